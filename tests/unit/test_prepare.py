"""From files to shards: what is kept, what is dropped and why, and that nothing else decides about a byte."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from prepare_data import jsonl, prepared, problem, tokenizer

from zerofit.config.errors import UserError
from zerofit.prepare import pipeline
from zerofit.prepare.writing import sha256


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_rows_of_several_forms_come_out_in_one(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": "It."}]
    jsonl(tmp_path / "in" / "a.jsonl", [problem(1), {"messages": turns}])
    jsonl(tmp_path / "in" / "b.jsonl", [{"problem": "One?", "answer": 1}])
    rows, figures = prepared(tmp_path, tmp_path / "in", system="Think.")
    system = {"role": "system", "content": "Think."}
    question = {"role": "user", "content": problem(1)["question"]}
    solution = {"role": "assistant", "content": problem(1)["answer"]}
    assert rows[0] == {
        "messages": [system, question, solution],
        "prompt": [system, question],
        "answer": "1",
        "tools": None,
        "source": "a.jsonl:1",
    }
    assert rows[1]["messages"] == [system, *turns]
    assert rows[2]["messages"] == rows[2]["prompt"] == [system, {"role": "user", "content": "One?"}]
    assert [row["answer"] for row in rows] == ["1", None, "1"]
    assert figures["rows"] == {"read": 3, "kept": 3, "dropped": 0, "bad": 0}
    assert figures["usable"] == {"assistant": 2, "answer": 2, "both": 1}
    assert figures["files"][0]["forms"] == {"question/answer (GSM8K)": 1, "messages (OpenAI)": 1}


def test_what_was_prepared_is_prepared_again_to_the_same_rows(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", [problem(i) for i in range(9)])
    first, _ = prepared(tmp_path, tmp_path / "a.jsonl", shard_rows=4)
    again, _ = prepared(tmp_path, tmp_path / "out", name="again")
    assert [{**row, "source": ""} for row in again] == [{**row, "source": ""} for row in first]


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it lies, and in whichever order its files were made."""
    rows = [*(problem(i) for i in range(700)), problem(5), {"question": "x"}]
    for name, order in (("one", (0, 1, 2)), ("other/place", (2, 0, 1))):
        for part in order:
            jsonl(tmp_path / name / "in" / f"{part}.jsonl", rows[part::3])
        jsonl(tmp_path / name / "tests.jsonl", [problem(9)])
        (tmp_path / name / "in" / "torn.jsonl").write_text(json.dumps(problem(999)) + '\n{"question": ')
        tokenizer(tmp_path / name / "t")
    options: dict[str, Any] = {"context": 60, "shard_rows": 300}
    for name in ("one", "other/place"):
        monkeypatch.chdir(tmp_path / name)
        prepared(Path(), "in", tokenizer="t", against=("tests.jsonl",), **options)
    first, second = contents(tmp_path / "one" / "out"), contents(tmp_path / "other" / "place" / "out")
    assert sorted(first) == ["manifest.json", *(f"part-0000{i}.parquet" for i in range(3)), "prepare.json"]
    assert first == second
    manifest = json.loads(first["manifest.json"])
    assert [shard["sha256"] for shard in manifest["shards"]] == [
        sha256(tmp_path / "one" / "out" / shard["name"]) for shard in manifest["shards"]
    ]
    assert manifest["inputs"][0] == {"name": "0.jsonl", "sha256": sha256(tmp_path / "one" / "in" / "0.jsonl")}
    assert [shard["rows"] for shard in manifest["shards"]] == [300, 300, 100]
    # Inputs in another order are other options: the same rows, of which the earlier is kept of two.
    monkeypatch.chdir(tmp_path / "one")
    backwards, _ = prepared(tmp_path, *reversed(sorted(Path("in").glob("?.jsonl"))), name="backwards")
    assert [row["source"] for row in backwards if row["source"].endswith(":2")] == [
        "2.jsonl:2",
        "1.jsonl:2",
        "0.jsonl:2",
    ]


def test_each_reason_is_counted_with_places(tmp_path: Path) -> None:
    long = {"question": " ".join(f"w{i}" for i in range(80)), "answer": "1"}
    late = {"question": "short one", "answer": " ".join(f"v{i}" for i in range(80))}
    near = {**problem(1), "question": problem(1)["question"].replace("word31 ", "")}
    near["answer"] = near["answer"].replace("word31 ", "")
    good = [problem(1), problem(2), late]
    bad = [{"question": "x"}, {"question": "", "answer": "1"}, {"prompt": "only"}, {"messages": [7]}]
    lines = [*good, problem(1), problem(3), long, {"problem": "no answer", "answer": None}, *bad]
    path = jsonl(tmp_path / "a.jsonl", lines)
    path.write_text(path.read_text() + "not JSON\n")
    tests = jsonl(tmp_path / "tests.jsonl", [problem(3)])
    options: dict[str, Any] = {"tokenizer": str(tokenizer(tmp_path / "t")), "context": 70, "against": (str(tests),)}
    rows, figures = prepared(tmp_path, path, **options)
    assert [row["source"] for row in rows] == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:3"]
    found = {drop["reason"]: [one["source"].partition(":")[2] for one in drop["examples"]] for drop in figures["drops"]}
    assert found == {
        "malformed": ["12"],
        "unknown form": ["8", "10"],
        "invalid": ["11"],
        "empty": ["9"],
        "no target": ["7"],
        "duplicate": ["4"],
        "overlap": ["5"],
        "all masked": ["6"],
    }
    assert figures["rows"] == {"read": 12, "kept": 3, "dropped": 9, "bad": 6}
    assert figures["lengths"]["above_context"] == 2
    rows, figures = prepared(tmp_path, path, name="two", drop_long=True, keep_overlap=True, **options)
    assert [row["source"] for row in rows] == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:5"]
    assert figures["overlap"]["kinds"]["question"]["examples"][0]["source"] == "a.jsonl:5"


@pytest.mark.parametrize(("rule", "kept", "counted"), [("drop", 1, 1), ("keep", 2, 1), ("off", 2, 0)])
def test_near_duplicates_are_as_asked(tmp_path: Path, rule: str, kept: int, counted: int) -> None:
    text = " ".join(f"v{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(200))
    path = jsonl(tmp_path / "a.jsonl", [{"text": text}, {"text": text + " end"}])
    rows, figures = prepared(tmp_path, path, near_duplicates=rule)
    assert (len(rows), figures["duplicates"]["near"]) == (kept, counted)


def test_the_text_after_the_context_may_hold_all_that_is_learnt(tmp_path: Path) -> None:
    """A dialogue counts from its first assistant turn on, a prompt without solution as a whole."""
    many = " ".join(f"w{i}" for i in range(50))
    dialogue = [("user", "hi"), ("assistant", "hello"), ("user", many), ("assistant", "end")]
    rows = [
        {"messages": [{"role": role, "content": text} for role, text in dialogue]},
        {"messages": [{"role": role, "content": text} for role, text in dialogue[2:]]},
        {"problem": many + " more", "answer": "4"},
    ]
    options: dict[str, Any] = {"tokenizer": str(tokenizer(tmp_path / "t")), "context": 40, "near_duplicates": "off"}
    kept, figures = prepared(tmp_path, jsonl(tmp_path / "a.jsonl", rows), **options)
    assert [row["source"] for row in kept] == ["a.jsonl:1"]
    assert figures["drops"][0]["reason"] == "all masked"
    assert figures["lengths"]["above_context"] == 3


@pytest.mark.parametrize(
    ("lines", "options", "said"),
    [
        ([problem(1), "torn"], {"on_bad_row": "fail"}, "a.jsonl:2: not JSON"),
        ([problem(1), {"question": "x"}], {"on_bad_row": "fail"}, "a.jsonl:2: it has the fields question"),
        ([problem(1)] * 3, {"on_bad_row": "fali"}, "did you mean fail"),
        (
            [{"Frage": "x", "answer": "y"}],
            {},
            "a.jsonl is of no known form: it has the fields Frage, answer; the nearest",
        ),
        (["torn", "also"], {}, "no row of it can be read (a.jsonl:1: not JSON"),
        ([{"problem": "x", "answer": ""}], {}, "no row is left of 1: 1 neither an assistant turn nor an answer"),
        ([], {}, "there is no row in a.jsonl"),
        ([problem(1)], {"fields": {"question": "qestion"}}, "no field qestion; did you mean question?"),
        ([problem(1)], {"context": 9}, "--tokenizer"),
        ([problem(1)], {"drop_long": True}, "--context"),
        ([problem(1)], {"keep_overlap": True}, "--against"),
        ([problem(1)], {"against": ("nowhere.jsonl",)}, "nowhere.jsonl does not exist"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    tmp_path: Path, lines: list[Any], options: dict[str, Any], said: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    with pytest.raises(UserError) as caught:
        prepared(tmp_path, path, **options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


def test_a_large_file_of_strangers_is_refused_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"Frage": i} for i in range(3 * pipeline.STRANGERS)] + [problem(1)])
    with pytest.raises(UserError, match="of no known form"):
        prepared(tmp_path, path)


def test_evaluation_data_must_be_whole(tmp_path: Path) -> None:
    path, tests = jsonl(tmp_path / "a.jsonl", [problem(1)]), tmp_path / "t.jsonl"
    for text, said in (("torn", "t.jsonl:1: not JSON"), ('{"Frage": 1}', "t.jsonl:1: it has"), ("", "asks nothing")):
        tests.write_text(text)
        with pytest.raises(UserError, match=f"--against: .*{said}"):
            prepared(tmp_path, path, against=(str(tests),))


def test_an_output_that_exists_is_left_alone(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [problem(1)])
    prepared(tmp_path, path)
    before = contents(tmp_path / "out")
    with pytest.raises(UserError, match="exists"):
        prepared(tmp_path, path)
    assert contents(tmp_path / "out") == before
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").mkdir()
    prepared(tmp_path, path)
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, raised: type[BaseException]
) -> None:
    path = jsonl(tmp_path / "a.jsonl", [problem(1)])
    monkeypatch.setattr(pipeline, "write_json", lambda *_: os.kill(os.getpid(), number))
    with pytest.raises(raised):
        prepared(tmp_path, path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_drive_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = jsonl(tmp_path / "a.jsonl", [problem(1)])
    monkeypatch.setattr(pipeline, "write_json", full)
    with pytest.raises(UserError, match="the drive is full"):
        prepared(tmp_path, path)
    assert list(tmp_path.iterdir()) == [path]


def test_shards_are_read_in_groups(tmp_path: Path) -> None:
    prepared(
        tmp_path,
        jsonl(tmp_path / "a.jsonl", [{"text": f"text {i}"} for i in range(2500)]),
        shard_rows=2000,
        near_duplicates="off",
    )
    groups = [pq.read_metadata(path).num_row_groups for path in sorted((tmp_path / "out").glob("*.parquet"))]
    assert groups == [2, 1]


def test_no_tensor_library_is_loaded(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [problem(1)])
    code = (
        "import sys; from zerofit import cli; from typer.testing import CliRunner\n"
        f"done = CliRunner().invoke(cli.app, ['prepare', {str(path)!r}, '--output', {str(tmp_path / 'out')!r}, "
        f"'--tokenizer', {str(tokenizer(tmp_path / 't'))!r}])\n"
        "assert done.exit_code == 0, done.output\n"
        "sys.exit(', '.join({'torch', 'accelerate', 'datasets'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
