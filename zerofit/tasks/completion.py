"""The parts of a completion: a thought in `<think>` tags, and the answer after it, bare or in `<answer>` tags."""

from __future__ import annotations

MATHS = ("$", "\\(", "\\[", "\\boxed")
"""What says that a text has LaTeX in it, and where."""


def inside(text: str, tag: str) -> str | None:
    """What stands between the only `<tag>` and the only `</tag>` of a text, stripped; null where that is not so."""
    opening, closing = f"<{tag}>", f"</{tag}>"
    if text.count(opening) != 1 or text.count(closing) != 1:
        return None
    before, _, rest = text.partition(opening)
    content, closed, _ = rest.partition(closing)
    return content.strip() if closed else None


def after_thought(completion: str) -> str:
    """All that follows the thought: the whole text without one, nothing where it has not ended.

    The thought may have been opened by the prompt.
    """
    rest = completion.rpartition("</think>")[2]
    return "" if "<think>" in rest else rest


def answers(completion: str) -> list[str]:
    """The texts in which to look for the final answer: readings of the same part, best first."""
    rest = after_thought(completion)
    tagged = inside(rest, "answer")
    if tagged is not None:
        bare = not any(mark in tagged for mark in MATHS)
        return [f"\\boxed{{{tagged}}}", tagged] if bare and tagged else [tagged]
    if "\\boxed" not in rest and "####" in rest:  # as GSM8K's solutions end
        return [rest.rpartition("####")[2].strip().partition("\n")[0]]
    return [rest]
