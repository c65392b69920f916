"""Decoding that writes command texts of CAD models and nothing else: which tokens can come next, by the grammar.

The grammar (cad/grammar.py) is of characters, and has 300 states. What the tokens of a vocabulary say is read once, and
those that no command text has anywhere are left out. Which of the rest can come next is worked out once for each state
that is met, and kept: a step costs a look-up for each row, whatever the size of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from zerofit.cad import grammar
from zerofit.cad.grammar import State
from zerofit.config.errors import UserError


class CommandTokens:
    """What the tokens of a tokenizer do in a command text. `stops` end it; `width` is the logits', on `device`."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stops: Collection[int], width: int, device: torch.device
    ) -> None:
        self.stops, self.width, self.device = frozenset(stops), width, device
        known = set(range(min(width, len(tokenizer)))) - self.stops - set(tokenizer.all_special_ids)
        alone = _texts(tokenizer, sorted(known), [])
        # A tokenizer may read a token at the beginning of a text without the space that it has elsewhere.
        behind = _texts(tokenizer, list(alone), tokenizer("\n", add_special_tokens=False)["input_ids"][-1:])
        self._texts = {True: alone, False: behind}
        self._masks: dict[State, Tensor] = {}
        self._start = grammar.start()

    def mask(self, state: State) -> Tensor:
        """bool [width]: the tokens that can come next. Raises UserError where there is none."""
        if state not in self._masks:
            texts = self._texts[state == self._start]
            # One that says nothing could come for ever.
            tokens = [token for token, text in texts.items() if text and state.advance(text) is not None]
            tokens += self.stops if state.finished else ()
            if not tokens:
                raise UserError(
                    "constrained: the tokenizer has no token for one of "
                    f"{''.join(sorted(state.viable))!r}, with which a command text goes on here; decode without"
                )
            mask = torch.zeros(self.width, dtype=torch.bool)
            mask[tokens] = True
            self._masks[state] = mask.to(self.device)
        return self._masks[state]

    def anything(self) -> Tensor:
        """bool [width]: all of them."""
        return torch.ones(self.width, dtype=torch.bool, device=self.device)

    def after(self, state: State, token: int) -> State | None:
        """The state after a token that its mask has; null after one that ends the text."""
        if token in self.stops:
            return None
        return state.advance(self._texts[state == self._start][token])


class Constrained(LogitsProcessor):
    """Leaves each row of a batch of `generate` the tokens that can come next, from the beginning of a command text on.

    `width` is how many tokens of the prompt `generate` hands on.
    """

    def __init__(self, tokens: CommandTokens, rows: int, width: int = 0) -> None:
        self.tokens, self.width = tokens, width
        self.states: list[State | None] = [grammar.start()] * rows
        """Null once a row has ended."""
        self.anything = tokens.anything()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.shape[1] > self.width:
            drawn: list[int] = input_ids[:, -1].tolist()
            self.states = [
                None if state is None else self.tokens.after(state, token)
                for state, token in zip(self.states, drawn, strict=True)
            ]
        masks = [self.anything if state is None else self.tokens.mask(state) for state in self.states]
        return scores.masked_fill(~torch.stack(masks), -torch.inf)


def _texts(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], before: list[int]) -> dict[int, str]:
    """What each token says behind these; without those that no command text has, which are most of a vocabulary."""
    inner: Any = tokenizer.backend_tokenizer  # every fast one has it
    start = str(inner.decode(before, skip_special_tokens=False))
    said: list[str] = inner.decode_batch([[*before, token] for token in tokens], skip_special_tokens=False)
    found = {token: text[len(start) :] for token, text in zip(tokens, said, strict=True) if text.startswith(start)}
    return {token: text for token, text in found.items() if grammar.inside(text)}
