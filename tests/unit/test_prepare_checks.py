"""What finds duplicates and overlaps, and measures lengths."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prepare_data import tokenizer

from zerofit.config.errors import UserError
from zerofit.prepare.duplicates import Duplicates, NearDuplicates
from zerofit.prepare.figures import bins, percentiles
from zerofit.prepare.lengths import Characters, Tokens, ruler_of
from zerofit.prepare.overlap import COMMON, Evaluation
from zerofit.prepare.rows import Example, Message
from zerofit.prepare.wording import normalise, words

TEXT = " ".join(f"word{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(100))


def row(question: str, solution: str | None = None, answer: str | None = None, system: str | None = None) -> Example:
    turns = [Message("system", system)] if system else []
    turns.append(Message("user", question))
    return Example((*turns, *([Message("assistant", solution)] if solution else [])), answer)


def test_duplicates_are_of_text_and_answer() -> None:
    seen = Duplicates()
    assert seen.of(row("How many?", "Four.", "4"), "a:1") is None
    assert seen.of(row("how  MANY?\n", "four.", "4"), "a:2") == "a:1"
    for number, other in enumerate(
        (row("How many?", "Four.", "5"), row("How many? Four.", None, "4"), row("x²"), row("x2"))
    ):
        assert seen.of(other, f"b:{number}") is None


@pytest.mark.parametrize(
    ("other", "near"),
    [
        (row(TEXT.replace("wordab", "other", 1), answer="4"), True),
        (row(TEXT.replace("wordab", "other", 1), answer="4", system="Think first, then say what you found."), True),
        (row(TEXT + " and and and", answer="4"), True),
        (row(" ".join(reversed(TEXT.split())), answer="4"), False),
        (row(TEXT[: len(TEXT) // 2], answer="4"), False),
        (row(TEXT + " 7", answer="4"), False),  # another number
        (row(TEXT + " - and", answer="4"), False),  # another sign
        (row(TEXT.replace("wordab", "other", 1), answer="5"), False),
    ],
)
def test_near_duplicates_say_nearly_the_same_of_the_same_numbers(other: Example, near: bool) -> None:
    seen = NearDuplicates()
    assert seen.of(row(TEXT, answer="4"), "a:1") is None
    assert seen.of(other, "a:2") == ("a:1" if near else None)


def test_exercises_of_one_template_are_kept() -> None:
    seen = NearDuplicates()
    template = "Using the numbers {}, {} and {}, write an equation that equals {}. Each number may be used only once."
    found = [seen.of(row(template.format(i, 2 * i, i + 7, 3 * i)), f"a:{i}") for i in range(200)]
    assert found == [None] * 200


def test_overlap_is_the_question_or_13_words_of_it() -> None:
    question = "Tom has three red marbles and gives his sister two of them before school starts. How many are left?"
    tests = Evaluation([("e:1", row("What is 2 + 2?")), ("e:2", row(question)), ("e:3", row(question))])
    assert len(tests) == 2
    same = tests.shared(row("what is  2 + 2?", "Four."))
    assert same is not None
    assert (same.kind, same.source) == ("question", "e:1")
    assert tests.shared(row("What is 2 + 3?", "Five.")) is None
    part = "tom has three red marbles and gives his sister two of them before"
    within = tests.shared(
        row("Another.", "As in: Tom has three red marbles, and gives his sister two of them before noon.")
    )
    assert within is not None
    assert (within.kind, within.source, within.text) == ("13 words", "e:2", part)
    assert tests.shared(row("Another: Tom has three red marbles, and gives his sister two of them after noon.")) is None
    assert Evaluation([]).shared(row("")) is None
    assert (
        Evaluation([("e:1", Example((Message("assistant", "x"),)))]).shared(Example((Message("assistant", "y"),)))
        is None
    )


def test_instructions_that_many_questions_have_do_not_count() -> None:
    order = "Please reason step by step and put your final answer within a box at the very end"
    few = Evaluation([(f"e:{i}", row(f"Question {i}? {order}")) for i in range(COMMON)])
    many = Evaluation([(f"e:{i}", row(f"Question {i}? {order}")) for i in range(COMMON + 1)])
    assert few.shared(row(f"Mine? {order}")) is not None
    assert many.shared(row(f"Mine? {order}")) is None


@given(st.text())
def test_normal_text_stays_as_it_is(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


def test_words_of_languages_without_spaces_are_characters() -> None:
    assert words("我们有 64, 87 x_1") == ["我", "们", "有", "64", "87", "x", "1"]


def test_tokens_are_those_of_the_chat_template(tmp_path: Path) -> None:
    example = row("one two three", "four five")
    ruler = Tokens(str(tokenizer(tmp_path / "t")))
    assert ruler.measure([example], None)[0].length == 9
    long = ruler.measure([example], 8)[0]
    assert (long.length, long.words, long.opening) == (9, 5, 6)  # <user> one two three <end> <assistant>
    assert ruler.measure([row("one", answer="2")], None)[0].length == 4  # with the assistant's beginning
    assert set(ruler.hashes) == {"tokenizer.json", "tokenizer_config.json"}
    plain = Tokens(str(tokenizer(tmp_path / "p", template=None) / "tokenizer.json"))
    assert plain.measure([example], 5)[0].opening == 3
    assert "no chat template" in plain.how
    refusing = Tokens(str(tokenizer(tmp_path / "r", template="{{ raise_exception('no system') }}")))
    assert refusing.measure([example], None)[0].length == 5
    assert Characters().measure([example], None)[0].length == len("one two three\nfour five")


@pytest.mark.parametrize(
    ("name", "said"), [(".", "has no tokenizer.json"), ("./no", "does not exist"), ("t.json", "t.json")]
)
def test_tokenizers_that_are_none(tmp_path: Path, name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.json").write_text("{}")
    with pytest.raises(UserError, match=said) as caught:
        ruler_of(name)
    assert "\n" not in str(caught.value)


@given(st.lists(st.integers(0, 5000), min_size=1), st.none() | st.integers(1, 2000))
def test_bins_and_percentiles_cover_all_rows(lengths: list[int], context: int | None) -> None:
    counts = Counter(lengths)
    found = bins(counts, context)
    assert sum(one["rows"] or 0 for one in found) == len(lengths)
    for one in found:
        assert one["rows"] == sum((one["from"] or 0) <= length < (one["to"] or 0) for length in lengths)
    assert [one["from"] for one in found[1:]] == [one["to"] for one in found[:-1]]
    if context is not None and max(lengths) > context:
        above = [one for one in found if (one["from"] or 0) > context]
        assert sum(one["rows"] or 0 for one in above) == sum(length > context for length in lengths)
    ordered = sorted(lengths)
    assert percentiles(counts)["0"] == ordered[0]
    assert percentiles(counts)["50"] == ordered[(len(ordered) + 1) // 2 - 1]
    assert percentiles(counts)["100"] == ordered[-1]
