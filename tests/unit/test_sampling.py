"""Drawing tokens: the right distribution, the right cuts, the same numbers everywhere."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from zerofit.config.grpo import Sampling
from zerofit.generate.sampling import cut, draw, uniforms

DRAWS = 40_000


def drawn(logits: list[float], sampling: Sampling) -> np.ndarray:
    """How often each token comes."""
    rows = torch.tensor(logits).expand(DRAWS, -1)
    tokens, _ = draw(rows, uniforms([7], DRAWS)[0], sampling)
    return np.bincount(tokens.numpy(), minlength=len(logits))


def plainly(logits: list[float], sampling: Sampling) -> np.ndarray:
    """Probabilities by a loop over sorted tokens."""
    weights = np.exp(np.array(logits, dtype=np.float64) / sampling.temperature)
    order = np.argsort(-weights, kind="stable")
    kept = order[: sampling.top_k or len(order)]
    nucleus, total = [], 0.0
    for token in kept:
        nucleus.append(token)
        total += weights[token] / weights[kept].sum()
        if total >= sampling.top_p:
            break
    right = np.zeros_like(weights)
    right[nucleus] = weights[nucleus]
    return right / right.sum()


LOGITS = [1.0, -0.5, 2.0, 0.3, -3.0, 1.7, 0.0, -1.0]


def test_tokens_come_as_often_as_they_should() -> None:
    for sampling in (
        Sampling(),
        Sampling(temperature=0.6),
        Sampling(top_k=3),
        Sampling(top_p=0.8),
        Sampling(temperature=1.5, top_k=5, top_p=0.7),
    ):
        right = plainly(LOGITS, sampling)
        counts = drawn(LOGITS, sampling)
        assert counts[right == 0].sum() == 0
        possible = right > 0
        assert chisquare(counts[possible], right[possible] * DRAWS).pvalue > 0.001, sampling


@given(
    st.lists(st.integers(-40, 40), min_size=1, max_size=12, unique=True),
    st.integers(0, 14),
    st.floats(0.05, 1.0),
    st.floats(0.3, 3.0),
)
def test_cuts_are_those_of_a_loop(logits: list[int], top_k: int, top_p: float, temperature: float) -> None:
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    scaled = torch.tensor([logits]) / 10
    right = plainly((scaled[0]).tolist(), sampling)
    probabilities = (scaled.float() / temperature).softmax(-1)
    found = cut(probabilities, sampling)[0].double().numpy()
    share = np.cumsum(np.sort(right)[::-1])
    if np.abs(share - top_p).min() > 1e-6 or top_p == 1:  # else the last bit decides
        np.testing.assert_allclose(found / found.sum(), right, atol=1e-5)
    assert found.sum() > 0


def test_equally_likely_tokens_are_not_told_apart() -> None:
    probabilities = torch.tensor([[0.3, 0.2, 0.2, 0.2, 0.1]])
    for sampling in (Sampling(top_k=2), Sampling(top_p=0.45)):
        assert torch.equal(cut(probabilities, sampling), torch.tensor([[0.3, 0.2, 0.2, 0.2, 0.0]]))


def test_log_probabilities_are_those_before_the_cut() -> None:
    logits = torch.tensor([LOGITS]).bfloat16()
    uniform = uniforms([1], 1)[:, 0]
    token, logprob = draw(logits, uniform, Sampling(temperature=0.5, top_k=2, top_p=0.5))
    assert torch.equal(logprob, (logits.float() / 0.5).log_softmax(-1)[0, token])
    token, logprob = draw(logits, uniform, Sampling(temperature=0))
    assert token.item() == 2
    assert torch.equal(logprob, logits.float().log_softmax(-1)[0, token])


def test_edges_of_the_interval() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]]).expand(3, -1)
    tokens, _ = draw(logits, torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64), Sampling())
    assert tokens.tolist() == [1, 3, 3]


@given(st.lists(st.integers(0, 2**63), min_size=1, max_size=5), st.integers(1, 40))
def test_numbers_depend_on_seed_and_position_alone(seeds: list[int], count: int) -> None:
    found = uniforms(seeds, count)
    assert found.dtype == torch.float64
    assert (found >= 0).all()
    assert (found < 1).all()
    for row, seed in enumerate(seeds):
        assert torch.equal(uniforms([seed], 60)[0, :count], found[row])
    assert not torch.equal(uniforms([5], 4), uniforms([5 + 2**32], 4))  # every bit counts
