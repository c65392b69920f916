"""Completions that the weights have no say in: sampling would turn the last bit into other tokens."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

LETTERS = b"abcdefghij 0123456789"
STOP = 257  # <|im_end|> of the tokenizer of bytes


def tokens_of(seed: int) -> list[int]:
    """A completion of 1 to 12 tokens, which most of the time ends by itself."""
    draws = random.Random(seed)
    tokens = [draws.choice(LETTERS) for _ in range(draws.randint(0, 11))]
    return [*tokens, STOP if draws.random() < 0.8 or not tokens else draws.choice(LETTERS)]


def worth(completion: str, row: Mapping[str, Any]) -> float:
    """How many digits it has, less a bit for its length."""
    text = "".join(one for one in completion if ord(one) < 256)
    return sum(one.isdigit() for one in text) - 0.1 * len(text)


@contextmanager
def recorded_rollouts() -> Iterator[None]:
    """Rollouts are those completions."""
    from zerofit.generate.completion import Completion

    def complete(model: Any, prompts: Any, seeds: Any, *_: Any) -> list[Any]:
        made = [tokens_of(seed) for seed in seeds]
        return [Completion(tokens, [0.0] * len(tokens), tokens[-1] == STOP) for tokens in made]

    with patch("zerofit.tasks.rollouts.make_generator", lambda *_: complete):
        yield
