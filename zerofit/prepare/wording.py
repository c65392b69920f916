"""Texts made comparable: normalised, cut into words, and hashed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import xxhash

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+")
_SIGN = re.compile(r"\d+|[-+*/=<>^_!%\u2200-\u22ff]")


def normalise(text: str) -> str:
    """Case, white space and the ways to compose an accent do not count. (NFC: under NFKC x² would be x2.)"""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def words(normal: str) -> list[str]:
    """Letters and digits that stand together; of Chinese, Japanese and Korean, which have no spaces, each character."""
    return _WORD.findall(normal)


def signs(normal: str) -> str:
    """The numbers and the signs of arithmetic, in their order: what tells two exercises of the same words apart."""
    return " ".join(_SIGN.findall(normal))


def runs(of: Sequence[str], length: int) -> list[str]:
    """Each run of so many words; all words where there are fewer."""
    return [" ".join(of[i : i + length]) for i in range(max(1, len(of) - length + 1))]


def digest(text: str) -> int:
    """128 bits of hash."""
    return xxhash.xxh3_128_intdigest(text.encode())
