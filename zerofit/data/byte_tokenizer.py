"""A tokenizer made on the spot: a token for each byte, and the three that mark turns and padding."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from zerofit.data.templates import shipped

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
"""Begin and end of a turn, and what fills samples up: tokens 256, 257 and 258."""


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """Token b is the byte b, of UTF-8; a turn ends with `<|im_end|>`, which is the end-of-sequence token."""
    inner = Tokenizer(models.BPE(vocab={letter: byte for byte, letter in enumerate(_letters())}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (START, END, PAD)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = shipped("chatml")
    return tokenizer


def _letters() -> list[str]:
    """The letter that byte-level models write for each byte: itself where it can be seen (GPT-2's table)."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    unseen = [byte for byte in range(256) if byte not in seen]
    letters = {byte: chr(byte) for byte in seen} | {byte: chr(256 + n) for n, byte in enumerate(unseen)}
    return [letters[byte] for byte in range(256)]
