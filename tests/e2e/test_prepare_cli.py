"""`zerofit prepare` as a user runs it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow.parquet as pq
from cli_runs import refused, zerofit

NAMES = ("Tom", "Ada", "Eve", "Kim", "Lee", "Zoe")
THINGS = ("apples", "boats", "cards", "drums", "eggs", "flags", "goats", "hats")


def additions(count: int, seed: int) -> list[dict[str, str]]:
    """Exercises of GSM8K's form that a few templates give."""
    rng, rows = random.Random(seed), []
    for _ in range(count):
        one, other, who, what = rng.randint(2, 500), rng.randint(2, 500), rng.choice(NAMES), rng.choice(THINGS)
        question = f"{who} has {one} {what} and buys {other} more at the market. How many {what} does {who} have now?"
        rows.append({"question": question, "answer": f"{one} + {other} = {one + other} {what}.\n#### {one + other}"})
    return rows


def write(path: Path, rows: list[dict[str, str]], *more: str) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "".join(line + "\n" for line in more))
    return path


def test_prepare(tmp_path: Path) -> None:
    rows = additions(400, seed=1)
    write(tmp_path / "train.jsonl", [*rows, rows[0]], '{"question": "torn')
    write(tmp_path / "test.jsonl", rows[7:10])
    done = zerofit("prepare", "train.jsonl", "--output", "out", "--against", "test.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "401 rows of question/answer (GSM8K)" in done.stdout
    assert "train.jsonl:402: not JSON" in done.stdout
    assert done.stdout.splitlines()[-1] == "page: out/report.html"
    figures = json.loads((tmp_path / "out" / "prepare.json").read_text())
    table = pq.read_table(tmp_path / "out" / "part-00000.parquet").to_pylist()
    assert figures["rows"]["read"] == 402
    assert figures["duplicates"]["exact"] >= 1
    assert figures["overlap"]["kinds"]["question"]["rows"] == 3
    assert len(table) == figures["rows"]["kept"]
    page = (tmp_path / "out" / "report.html").read_text()
    for said in (f"{figures['rows']['kept']:,}", "of 402 read", "train.jsonl:402", "shared with the evaluation data"):
        assert said in page
    assert all(row["messages"][-1]["content"].endswith(f"#### {row['answer']}") for row in table)
    refused(zerofit("prepare", "train.jsonl", "--output", "out", cwd=tmp_path), "out exists", "--output")
    strict = ("prepare", "train.jsonl", "--output", "strict", "--on-bad-row", "fail")
    refused(zerofit(*strict, cwd=tmp_path), "train.jsonl:402", "not JSON")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "test.jsonl", "train.jsonl"]
