"""Tokenizers made on the spot: a token for each byte, or merges of bytes; and three that mark turns and padding."""

from __future__ import annotations

from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from zerofit.data.arithmetic import problem
from zerofit.data.templates import shipped

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
"""Begin and end of a turn, and what fills samples up: of bytes the tokens 256, 257 and 258."""
MERGED = 640
"""Tokens of the one for word problems, before those three."""
PROBLEMS = 4000
"""Of which its merges are learnt."""
PIECES = r"\d+| ?[A-Za-z]+| ?[^\sA-Za-z\d]+|\s"
"""What is never merged across: numbers stand alone, the same behind a space and at a line's beginning."""


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """Token b is the byte b, of UTF-8; a turn ends with `<|im_end|>`, which is the end-of-sequence token."""
    inner = Tokenizer(models.BPE(vocab={letter: byte for byte, letter in enumerate(_letters())}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return _whole(inner)


@cache
def _merges() -> str:
    """The tokenizer for word problems, as JSON: the same on any machine."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    texts = (one for index in range(PROBLEMS) for one in (problem(0, index).question, problem(0, index).completion))
    trainer = trainers.BpeTrainer(vocab_size=MERGED, initial_alphabet=_letters(), show_progress=False)
    inner.train_from_iterator(texts, trainer)
    return str(inner.to_str())


def problem_tokenizer() -> PreTrainedTokenizerBase:
    """Bytes of UTF-8 and merges of them, learnt from the embedded word problems: a third of the tokens of bytes."""
    return _whole(Tokenizer.from_str(_merges()))


def _whole(inner: Tokenizer) -> PreTrainedTokenizerBase:
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
