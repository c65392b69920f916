"""Rows of an evaluation: written, read, and their figures."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zerofit.config.errors import UserError
from zerofit.measure.pass_at_k import one_each
from zerofit.measure.rollouts import Rollout, compare_rollouts, figures, read_rollouts, write_rollouts


def row(problem: str, answer: str | None, *, tokens: int = 3) -> Rollout:
    return Rollout(problem, "?", f"so {answer}", "7", answer, answer in ("7", "7.0"), tokens)


ROWS = [row("a", "7"), row("a", "7.0"), row("a", "8"), row("a", None, tokens=9), row("b", "8"), row("b", "8")]
ROWS += [row("b", "7"), row("b", "9")]


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write_rollouts(path, ROWS)
    assert read_rollouts(path) == ROWS
    assert [file.name for file in tmp_path.iterdir()] == ["rows.parquet"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    write_rollouts(tmp_path / "rows", ROWS)
    table = pq.read_table(tmp_path / "rows")
    pq.write_table(table.drop_columns(["gold", "tokens"]), tmp_path / "fewer")
    pq.write_table(table.set_column(6, "tokens", pa.array(["many"] * 8)), tmp_path / "other")
    pq.write_table(table.set_column(3, "gold", pa.array([None] * 8, pa.string())), tmp_path / "null")
    for name, reason in {
        "absent": "cannot be read as parquet",
        "text": "cannot be read as parquet",
        "fewer": "has no gold, tokens; rows of an evaluation have problem, prompt",
        "other": "is not of an evaluation",
        "null": "is not of an evaluation",
    }.items():
        with pytest.raises(UserError, match=f"{name}: {reason}"):
            read_rollouts(tmp_path / name)


def test_figures() -> None:
    found = figures(ROWS, (1, 2, 4))
    assert (found["problems"], found["samples"], found["answered"]) == (2, 8, 7 / 8)
    assert found["tokens"] == {"mean": 30 / 8, "max": 9}
    assert found["pass@1"]["value"] == (2 / 4 + 1 / 4) / 2
    assert found["pass@2"]["value"] == pytest.approx((1 - 1 / 6 + 1 - 3 / 6) / 2)
    assert found["maj@4"]["value"] == 0.5
    # a: of 6 pairs 1 is right and right, 2 right and 8, 2 right and nothing, 1 wrong; b: 3 of 6 are right and another.
    assert found["maj@2"]["value"] == pytest.approx(((1 + 1 + 2 + 0) / 6 + 1.5 / 6) / 2)
    for name in ("pass@1", "pass@2", "maj@2", "maj@4"):
        assert 0 <= found[name]["low"] <= found[name]["value"] <= found[name]["high"] <= 1
    single = figures([row(str(i), "7" if i < 6 else "8") for i in range(8)])
    wilson = one_each(6, 8)
    assert single["pass@1"] == {"value": 0.75, "low": wilson.low, "high": wilson.high}
    with pytest.raises(UserError, match="pass@5 needs 5 samples of each problem; a has 4"):
        figures(ROWS, (5,))
    with pytest.raises(UserError, match="no rows"):
        figures([])


def test_two_evaluations_of_the_same_problems() -> None:
    first = [row(str(i), "7" if i < 6 else "8") for i in range(8)]
    second = [row(str(i), "7" if i == 7 else "8") for i in reversed(range(8))]
    found = compare_rollouts(first, second)
    assert (found.first_only, found.second_only) == (6, 1)
    assert found.p_value == pytest.approx(2 * 8 / 2**7)
    with pytest.raises(UserError, match="not of the same problems: 7 is in one"):
        compare_rollouts(first[:-1], second)
    with pytest.raises(UserError, match="one sample of each problem; a has 4 and 4"):
        compare_rollouts(ROWS, ROWS)
