"""What a generator makes of one prompt."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Completion:
    """The tokens that follow one prompt."""

    tokens: list[int]
    """Ends with a stop token where it stopped by itself."""
    logprobs: list[float]
    """Of each token, under the distribution it was drawn from before top-k and top-p cut it: log softmax(logits /
    temperature); at temperature 0 log softmax(logits)."""
    stopped: bool
    """Whether it stopped by itself, before `max_tokens`."""


def completion_of(tokens: Sequence[int], logprobs: Sequence[float], stops: Collection[int]) -> Completion:
    """The row up to its first stop token; what was drawn after it does not count."""
    end = next((index for index, token in enumerate(tokens) if token in stops), None)
    length = len(tokens) if end is None else end + 1
    return Completion(list(tokens[:length]), list(logprobs[:length]), stopped=end is not None)


def as_text(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], stops: Collection[int]) -> str:
    """What a completion says: its tokens without the stop token at the end; others that are special stay."""
    said = tokens[:-1] if tokens and tokens[-1] in stops else tokens
    return str(tokenizer.decode(list(said), skip_special_tokens=False))
