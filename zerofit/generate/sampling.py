"""Drawing tokens: the inverse of the cumulative distribution at a number that seed and position alone decide.

Pure functions of tensors, whose shapes depend on no values: they can be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from zerofit.config.grpo import Sampling


def uniforms(seeds: Sequence[int], count: int) -> Tensor:
    """Numbers in [0, 1), float64 [rows, count], on the CPU: column i of a row depends on its seed and on i alone.

    By NumPy's Philox, keyed with the seed: torch's generator for the CPU looks at its lowest 32 bits alone.
    """
    rows = [np.random.Generator(np.random.Philox(key=seed % 2**128)).random(count) for seed in seeds]
    return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, count, dtype=torch.float64)


def draw(logits: Tensor, uniform: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """A token for each row of logits [rows, vocabulary] by the row's number in `uniform` [rows].

    Returns tokens, int64 [rows], and their log-probabilities before any cut, float32 [rows].
    """
    logits = logits.float()
    if sampling.temperature == 0:
        tokens = logits.argmax(dim=-1)
    else:
        logits = logits / sampling.temperature
    logprobs = logits.log_softmax(dim=-1)
    if sampling.temperature > 0:
        tokens = invert(cut(logprobs.exp(), sampling), uniform)
    return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]


def cut(probabilities: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities of the tokens that may be drawn, zero for the others; they need not add up to 1.

    top-k first, then top-p of what is left. Tokens as likely as the last one that may be drawn may be drawn, too: so
    no order among equals matters, of which 16-bit logits have many.
    """
    size = probabilities.shape[-1]
    top_k = min(sampling.top_k or size, size)
    if top_k == size and sampling.top_p == 1:
        return probabilities
    if top_k == size:
        likeliest = probabilities.sort(dim=-1, descending=True).values
    else:
        likeliest = probabilities.topk(top_k, dim=-1).values
    if sampling.top_p < 1:
        total = likeliest.cumsum(dim=-1, dtype=torch.float64)
        inside = total - likeliest < sampling.top_p * total[:, -1:]  # what stands before the token is not enough yet
        last = inside.sum(dim=-1, keepdim=True) - 1
    else:
        last = torch.full_like(probabilities[:, :1], top_k - 1, dtype=torch.int64)
    least = likeliest.gather(-1, last)
    return probabilities.masked_fill(probabilities < least, 0)


def invert(weights: Tensor, uniform: Tensor) -> Tensor:
    """The first token up to which more than the share `uniform` of its row's weights lies, int64 [rows]."""
    total = weights.cumsum(dim=-1, dtype=torch.float64)
    below = total <= uniform[:, None] * total[:, -1:]
    return below.sum(dim=-1).clamp(max=weights.shape[-1] - 1)
