"""Final answers at the end of solutions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerofit.prepare.answers import boxed, final_answer, marked, written

letters = st.text(st.sampled_from("ab1 +^_$,.\n"), max_size=6)
escaped = st.sampled_from([r"\{", r"\}", r"\frac", r"\\"])
balanced: st.SearchStrategy[str] = st.recursive(
    letters | escaped,
    lambda inner: st.lists(inner, max_size=3).map("".join) | inner.map(lambda text: "{" + text + "}"),
    max_leaves=12,
)


@given(before=letters, inside=balanced, after=letters)
def test_braces_within_a_box_are_matched(before: str, inside: str, after: str) -> None:
    expected = inside.strip() or None
    assert boxed(before + r"\boxed{" + inside + "}" + after) == expected


@given(inside=balanced)
def test_of_several_boxes_the_last_whole_one_counts(inside: str) -> None:
    text = r"\boxed{first} then \boxed{" + inside + "} and torn \\boxed{{"
    assert boxed(text) == (inside.strip() or "first")


@given(st.text())
def test_any_text_is_read_without_a_crash(text: str) -> None:
    for found in (boxed(text), marked(text), final_answer(text)):
        assert found is None or found.strip() == found != ""


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("48/2 = <<48/2=24>>24\n#### 72", "72"),
        ("a #### 1\nb\n#### 1,080\n", "1,080"),
        ("####", None),
        ("it is #### 42", "42"),
        ("#### Step 1: add\nIt is 4.", None),  # a heading
        ("none", None),
        (r"so $\boxed{\left( 3, \frac{\pi}{2} \right)}.$", r"\left( 3, \frac{\pi}{2} \right)"),
        (r"\fbox{5}", "5"),
        (r"it is \boxed 7.", "7"),
        (r"it is \boxed", None),
        ("<think> 1 </think> <answer> (87 - 64) - 6 </answer>", "(87 - 64) - 6"),
        ("write <answer>x</answer>: <answer>2</answer>", "2"),
    ],
)
def test_marks_of_final_answers(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("value", "answer"),
    [(27.0, "27"), (0.5, "0.5"), (3, "3"), (" 204 ", "204"), ("", None), (None, None), (["2"], "2")]
    + [(r"\boxed{5}", "5"), ({"a": 1}, None), (["1", "2"], "1, 2")],
)
def test_answer_fields_become_text(value: Any, answer: str | None) -> None:
    assert written(value) == answer
