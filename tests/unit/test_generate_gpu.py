"""On a GPU: what a graph replays is what the step does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tiny_causal_models import FAMILIES, PAD, PROMPTS, SEEDS, STOP, model_of
from tiny_models import VIT, tiny_spec
from transformers import PreTrainedModel

from zerofit.config.errors import UserError
from zerofit.config.grpo import Sampling
from zerofit.generate import graph
from zerofit.generate.completion import Completion
from zerofit.generate.generator import make_generator
from zerofit.generate.step import Captured
from zerofit.train.strategy import engine_for

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")
SAMPLING = Sampling(max_tokens=40, top_k=30, top_p=0.95)


def complete(model: PreTrainedModel, engine: str = "graph", sampling: Sampling = SAMPLING) -> list[Completion]:
    return make_generator(engine, CUDA, PAD, [STOP], 2)(model, PROMPTS, SEEDS, sampling)


def replayed_as_run(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, sampling: Sampling = SAMPLING) -> None:
    """Complete with graphs and without, and compare."""
    monkeypatch.setattr(graph, "BUCKET", 16)
    captured: list[Captured] = []

    def noted(step: Callable[[int], None], device: torch.device) -> Captured:
        captured.append(Captured(step, device))
        return captured[-1]

    monkeypatch.setattr(graph, "runner_on", lambda device, step: noted(step, device))
    found = complete(model, sampling=sampling)
    assert len(captured[0].graphs) >= 2
    captured.clear()
    monkeypatch.setattr(graph, "runner_on", lambda device, step: step)
    right = complete(model, sampling=sampling)
    assert [one.tokens for one in found] == [one.tokens for one in right]
    for one, other in zip(found, right, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_family(family: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(family, dtype).eval().to(CUDA)
    if family == "qwen3_moe" and dtype != torch.bfloat16:  # its experts are counted on the host in other dtypes
        with pytest.raises(UserError, match="take the engine hf"):
            complete(model)
        return
    replayed_as_run(model, monkeypatch)


@pytest.mark.parametrize("sampling", [Sampling(temperature=0, max_tokens=40), Sampling(max_tokens=40)])
def test_other_ways_to_draw(sampling: Sampling, monkeypatch: pytest.MonkeyPatch) -> None:
    replayed_as_run(model_of("qwen3").eval().to(CUDA), monkeypatch, sampling)


def test_a_large_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorts and sums of long rows take other kernels."""
    model = model_of("llama").eval()
    model.resize_token_embeddings(100_000)
    for sampling in (Sampling(max_tokens=40, top_p=0.9), Sampling(max_tokens=40, top_k=50), Sampling(max_tokens=40)):
        replayed_as_run(model.to(CUDA), monkeypatch, sampling)


@pytest.mark.filterwarnings("ignore:inner dimension:UserWarning")  # of 32: bitsandbytes' slower kernel
def test_4_bit_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    bnb = pytest.importorskip("bitsandbytes")
    model = model_of("qwen3", torch.float16).eval()
    for layer in model.model.layers:
        weight = bnb.nn.Params4bit(layer.self_attn.q_proj.weight.data, requires_grad=False, quant_type="nf4")
        layer.self_attn.q_proj = bnb.nn.Linear4bit(
            32, 32, bias=False, compute_dtype=torch.float16, quant_type="nf4", device="meta"
        )
        layer.self_attn.q_proj.weight = weight
    replayed_as_run(model.to(CUDA), monkeypatch)


def test_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tiny_spec({"kind": "vit", "shape": VIT}, strategy={"name": "ddp"})
    engine = engine_for(spec.model_copy(update={"precision": "bf16"}), CUDA)
    with engine.rollout(model_of("qwen3").to(CUDA)) as model:
        replayed_as_run(model, monkeypatch)


def test_engines_agree() -> None:
    model = model_of("qwen3").eval().to(CUDA)
    found, plain = complete(model), complete(model, "hf")
    assert sum(one.tokens == other.tokens for one, other in zip(found, plain, strict=True)) >= 4


def test_memory_comes_back() -> None:
    model = model_of("llama").eval().to(CUDA)
    complete(model)  # libraries keep workspaces from their first use
    before = torch.cuda.memory_allocated()
    complete(model)
    assert torch.cuda.memory_allocated() == before


def test_rollouts_do_not_pile_up() -> None:
    model = model_of("qwen3", torch.bfloat16).eval().to(CUDA)
    left = []
    for _ in range(4):
        complete(model)
        torch.cuda.synchronize()
        left.append(torch.cuda.memory_allocated())
    assert left[1:] == [left[0]] * 3  # cuBLAS keeps a workspace for each stream that it has seen
