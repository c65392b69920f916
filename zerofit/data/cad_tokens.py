"""What a prompt and a command text are in tokens: a caption and a newline, then the commands and the end of sequence.

Places for a cloud and an image come between the two (data/cad_loader.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase


class CadTokens:
    """Tokens of one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self.bare: list[int] = tokenizer("")["input_ids"]
        """A prompt without caption: what the tokenizer begins every text with, mostly nothing."""
        self.end = int(tokenizer.eos_token_id)

    def prompts(self, captions: Sequence[str]) -> list[list[int]]:
        """Of each caption."""
        return [[*self.bare, *tokens] for tokens in self._of([f"{caption}\n" for caption in captions])]

    def commands(self, texts: Sequence[str]) -> list[list[int]]:
        """Of each command text, its end included."""
        return [[*tokens, self.end] for tokens in self._of(texts)]

    def _of(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        found = self._tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)
        tokens: list[list[int]] = found["input_ids"]
        return tokens
