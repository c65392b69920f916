"""Parts of an evaluation: kept, taken stock of, and shown; and the progress of all."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerofit.evaluate.merging import compared
from zerofit.evaluate.parts import Part, Parts, Prompt, read_prompts, write_prompts
from zerofit.evaluate.stopping import LeftUndone, Stop
from zerofit.measure.answers_progress import AnswersProgress
from zerofit.measure.rollouts import ROLLOUTS, Rollout, write_rollouts
from zerofit.prepare.writing import write_json


def row(problem: int, correct: bool, tokens: int = 3) -> Rollout:
    return Rollout(str(problem), "?", "so", "7", "7" if correct else None, correct, tokens, stopped=False)


@given(st.integers(1, 200), st.integers(1, 50))
def test_each_problem_is_in_one_part(count: int, per_part: int) -> None:
    parts = Parts(ROLLOUTS, Path("nowhere"), count, per_part, "s")
    assert [problem for part in parts.problems for problem in part] == list(range(count))
    assert all(len(part) <= per_part for part in parts.problems)


def test_what_is_damaged_or_of_other_settings_is_made_again(tmp_path: Path) -> None:
    parts, other = (Parts(ROLLOUTS, tmp_path, 7, 2, settings) for settings in ("these", "those"))
    assert parts.take_stock() == [0, 1, 2, 3]
    for number in (0, 1):
        parts.write(number, Part([row(number, True)], 1.5, 2))
    other.write(2, Part([row(2, True)], 1.5, 2))
    write_rollouts(parts.path(3), [row(3, True)])  # says nothing of itself
    assert parts.read(1) == Part([row(1, True)], 1.5, 2)
    parts.path(1).write_bytes(parts.path(1).read_bytes()[:-9])
    (parts.directory / "part-00002.parquet.partial").touch()
    assert parts.take_stock() == [1, 2, 3]
    assert parts.done() == [0]


def test_prompts_are_read_as_they_were_written(tmp_path: Path) -> None:
    prompts = [Prompt("a:1", "so?", [1, 2], "7"), Prompt("a:2", "", [], "x")]
    write_prompts(tmp_path, prompts)
    assert read_prompts(tmp_path) == prompts


def test_two_evaluations_are_paired_by_position(tmp_path: Path) -> None:
    """Samples may be of another number, and files of another name."""
    theirs = [row(100 + number, number < 2) for number in range(6)]
    write_rollouts(tmp_path / "rollouts.parquet", theirs)
    estimate = {"value": 1 / 3, "low": 0.1, "high": 0.7}
    write_json(tmp_path / "evaluation.json", {"problems": "d", "model": "m", "figures": {"pass@1": estimate}})
    ours = [one for number in range(6) for one in (row(number, number > 0), row(number, number > 3))]
    found = compared(ours, tmp_path)
    assert (found["first_only"], found["second_only"]) == (4, 1)
    assert found["p_value"] == pytest.approx(2 * (1 + 5) / 2**5)
    assert found["difference"]["value"] == pytest.approx((5 + 2) / 12 - 2 / 6)
    assert found["difference"]["low"] < found["difference"]["value"] < found["difference"]["high"]


def test_ranks_stop_where_one_was_asked(tmp_path: Path) -> None:
    now = [0.0]
    one, other = (Stop(tmp_path, lambda: now[0]) for _ in range(2))
    assert not one.asked("part 1")
    one.path.touch()  # what a rank does that hears a signal
    assert one.asked("part 1")
    now[0] = 8.0
    assert other.asked("part 2")
    other.wait_no_longer("part 2")
    now[0] = 11.0
    with pytest.raises(LeftUndone):
        one.wait_no_longer("part 1")
    other.wait_no_longer("part 2")
    one.clear()
    assert not Stop(tmp_path).asked("part 1")


def test_progress_tells_the_time_left_and_pass_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZEROFIT_TTY", raising=False)
    out, now = io.StringIO(), [0.0]
    progress = AnswersProgress(1000, 200, out, lambda: now[0])
    now[0] = 10.0
    progress.update(240, 0, 0)
    now[0] = 40.0
    progress.update(600, 150, 400)
    progress.update(500, 150, 400)  # never back
    now[0] = 50.0
    progress.update(1000, 250, 1000)
    progress.close()
    assert out.getvalue().splitlines() == [
        "200/1,000 completions",
        "600/1,000 completions, pass@1 37.5 %, 0:00:40 left",
        "1,000/1,000 completions, pass@1 25.0 %",
    ]
