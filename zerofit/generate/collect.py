"""From the tensors of a batch to completions."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from zerofit.config.errors import UserError
from zerofit.generate.completion import Completion, completion_of


def collect(tokens: Tensor, logprobs: Tensor, stops: Collection[int]) -> list[Completion]:
    """A completion of each row of tokens [rows, steps] and their log-probabilities.

    Raises UserError where these are not finite: from such logits the first token of all is drawn, without a word.
    """
    found = [completion_of(*row, stops) for row in zip(tokens.tolist(), logprobs.tolist(), strict=True)]
    kept = torch.tensor([value for one in found for value in one.logprobs])
    if not kept.isfinite().all():
        raise UserError(
            "generating: the model's logits are not finite; its weights are ruined, or what it computes overflows in "
            "fp16: try the precision bf16 or fp32"
        )
    return found
