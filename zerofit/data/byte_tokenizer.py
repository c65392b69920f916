"""Tokenizers made on the spot: a token for each byte, or merges of bytes; and three that mark turns and padding."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from zerofit.cad.parts import part
from zerofit.cad.text import write
from zerofit.data.arithmetic import problem
from zerofit.data.templates import shipped

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
"""Begin and end of a turn, and what fills samples up: of bytes the tokens 256, 257 and 258."""
MERGED = 640
"""Tokens of one with merges, before those three."""
PROBLEMS, PARTS = 4000, 2000
"""Of which merges are learnt."""
PIECES = r"\d+| ?[A-Za-z]+| ?[^\sA-Za-z\d]+|\s"
"""What is never merged across: numbers stand alone, the same behind a space and at a line's beginning."""
COMMANDS = r" ?\d+|\n(?:line|arc|circle|extrude|end)| ?[A-Za-z]+| ?[^\sA-Za-z\d]+|\s"
"""The same for parts, where a space is before each number: one token with it. So is a line's first word with the break
before it, save `loop`: it begins a command text, and the break before that belongs to the prompt."""


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """Token b is the byte b, of UTF-8; a turn ends with `<|im_end|>`, which is the end-of-sequence token."""
    inner = Tokenizer(models.BPE(vocab={letter: byte for byte, letter in enumerate(_letters())}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return _whole(inner)


def problem_tokenizer() -> PreTrainedTokenizerBase:
    """Bytes of UTF-8 and merges of them, learnt from the embedded word problems: a third of the tokens of bytes."""
    return _whole(Tokenizer.from_str(_of_problems()))


def part_tokenizer() -> PreTrainedTokenizerBase:
    """The same, learnt from the embedded parts: captions and command texts in a quarter of the tokens."""
    return _whole(Tokenizer.from_str(_of_parts()))


@cache
def _of_problems() -> str:
    """The tokenizer for word problems, as JSON: the same on any machine."""
    problems = (problem(0, index) for index in range(PROBLEMS))
    return _learnt((text for one in problems for text in (one.question, one.completion)), PIECES)


@cache
def _of_parts() -> str:
    """The tokenizer for parts, as JSON: the same on any machine."""
    parts = (part(0, index) for index in range(PARTS))
    return _learnt((text for one in parts for text in (one.caption, write(one.sequence))), COMMANDS)


def _learnt(texts: Iterable[str], pieces: str) -> str:
    """Merges within pieces of these texts."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pieces), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(vocab_size=MERGED, initial_alphabet=_letters(), show_progress=False)
    inner.train_from_iterator(texts, trainer)
    return str(inner.to_str())


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
