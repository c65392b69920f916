r"""The final answer at the end of a solution: `#### 42`, `\boxed{42}`, `<answer>42</answer>`."""

from __future__ import annotations

import re
from typing import Any

MARK = "####"
_BOXED = re.compile(r"\\(?:boxed|fbox|framebox)\s*(?=[{\w])")
_TAGGED = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
TRIES = 16
"""Boxes that are tried, from the last on: each may need the text to be read to its end."""
SHORT = 64
"""Characters of one line that may be an answer by themselves."""


def marked(text: str) -> str | None:
    """GSM8K's: what stands behind `####` in the last line; null where there is none. (In another it is a heading.)"""
    _, mark, after = text.rstrip().rpartition("\n")[2].rpartition(MARK)
    return (after.strip() or None) if mark else None


def boxed(text: str) -> str | None:
    r"""MATH's: what the last whole `\boxed{...}` holds (also \fbox, and `\boxed 5`); null where there is none."""
    for found in reversed(list(_BOXED.finditer(text))[-TRIES:]):
        if text[found.end()] == "{":
            end = closing(text, found.end())
            if end is not None and (inside := text[found.end() + 1 : end].strip()):
                return inside
        else:
            return re.split(r"[^\w.]", text[found.end() :], maxsplit=1)[0].rstrip(".") or None
    return None


def closing(text: str, start: int) -> int | None:
    r"""Where the brace at `start` is closed: `\{` and `\}` are characters. Null where it never is."""
    depth, i = 0, start
    while i < len(text):
        if text[i] == "\\":
            i += 1
        elif text[i] == "{":
            depth += 1
        elif text[i] == "}":
            depth -= 1
            if depth == 0:
                return i
        i += 1
    return None


def tagged(text: str) -> str | None:
    """What the last `<answer>...</answer>` holds; null where there is none."""
    found = _TAGGED.findall(text)
    return (found[-1].strip() or None) if found else None


def final_answer(text: str) -> str | None:
    """The answer that a solution ends with, by the first of the marks that it has."""
    return tagged(text) or boxed(text) or marked(text)


def short(text: str) -> str | None:
    """The text itself where it is an answer and nothing else: one line, no sentence."""
    text = text.strip()
    sentence = len(text.split()) > 5 and text.endswith((".", "!", "?"))
    return text if text and len(text) <= SHORT and "\n" not in text and not sentence else None


def written(value: Any) -> str | None:
    """An answer field as text: 27.0 is `27`, `\\boxed{5}` is `5`, a list of one is that one; null where it is blank."""
    if isinstance(value, list):
        parts = [part for part in map(written, value) if part is not None]
        return ", ".join(parts) or None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or isinstance(value, dict) or value != value:  # NaN: what pandas writes where nothing is
        return None
    text = str(value).strip()
    return final_answer(text) or text or None
