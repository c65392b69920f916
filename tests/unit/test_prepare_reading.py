"""Rows of files of every format, whole and damaged."""

from __future__ import annotations

import gzip
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zerofit.config.errors import UserError
from zerofit.prepare import reading, sources
from zerofit.prepare.rows import Broken, Row

ROWS: list[dict[str, Any]] = [{"question": f"what is {i}?", "answer": str(i)} for i in range(5)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def read(*inputs: Path | str) -> list[Row | Broken]:
    return [item for source in sources.find([str(one) for one in inputs]) for item in reading.read(source)]


def values(*inputs: Path | str) -> list[Any]:
    return [item.value if isinstance(item, Row) else item.why for item in read(*inputs)]


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def zipped(path: Path, members: dict[str, str | bytes], how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


COLUMNS = json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]}, indent=1)
FILES: dict[str, str | bytes] = {
    "a.jsonl": LINES,
    "bom.jsonl": b"\xef\xbb\xbf" + LINES.replace("\n", "\r\n").encode(),
    "a.ndjson": LINES + "\n\n",
    "lines.json": LINES,
    "array.json": json.dumps(ROWS, indent=1),
    "bom.json": b"\xef\xbb\xbf" + json.dumps(ROWS).encode(),
    "one-line.json": json.dumps(ROWS),
    "columns.json": COLUMNS,
    "within.json": json.dumps({"version": 1, "data": ROWS}),
    "a.csv": "question,answer\n" + "".join(f'"{row["question"]}",{row["answer"]}\n' for row in ROWS),
    "a.tsv": "question\tanswer\n" + "".join(f"{row['question']}\t{row['answer']}\n" for row in ROWS),
    "a.jsonl.gz": gzip.compress(LINES.encode()),
}


@pytest.mark.parametrize("name", FILES)
def test_formats(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, FILES[name])
    assert values(path) == ROWS
    assert [item.source.partition(":")[0] for item in read(path)] == [name] * 5
    assert values(zipped(tmp_path / "all.zip", {f"in/{name}": FILES[name]})) == ROWS


def test_tables(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.OSFile(str(tmp_path / "b.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    assert values(tmp_path / "a.parquet") == values(tmp_path / "b.arrow") == ROWS
    assert read(tmp_path / "a.parquet")[4].source == "a.parquet:5"


@pytest.mark.parametrize("text", ['{"messages": [{"role": "user"}]}', '{\n"messages": [{"role": "user"}]}', '{"a": 1}'])
def test_a_document_may_be_one_row(tmp_path: Path, text: str) -> None:
    assert values(write(tmp_path / "a.json", text)) == [json.loads(text)]


def test_columns_of_lists_and_of_unequal_length(tmp_path: Path) -> None:
    turns = [[{"role": "user"}], [{"role": "system"}]]
    assert values(write(tmp_path / "a.json", json.dumps({"messages": turns}))) == [{"messages": turn} for turn in turns]
    first, broken = values(write(tmp_path / "b.json", '{"question": ["a", "b"], "answer": ["c"]}'))
    assert first == {"question": "a", "answer": "c"}
    assert "answer ends after 1 rows" in broken


def test_texts_between_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "\n=====\none\n\n\nmore = 1\n=====\n=====\n two\n")
    assert values(path) == [{"text": "one\n\n\nmore = 1"}, {"text": "two"}]
    assert [item.source for item in read(path)] == ["a.txt:3", "a.txt:9"]


def test_broken_lines_are_told_by_number_and_the_rest_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST", 1000)
    deep = "[" * 500 + "]" * 500
    lines = ['{"a": 1}', '{"torn": ', "", "[" * 990, "nonsense", "x" * 5000, '{"a": NaN}', deep[:998], '{"a": 2}']
    path = write(tmp_path / "a.jsonl", "\n".join(lines).encode() + b'\n{"a": "\xff"}\n{"a": 3')
    found = read(path)
    assert [item.value for item in found if isinstance(item, Row)][:1] == [{"a": 1}]
    assert [item.value for item in found if isinstance(item, Row)][1:] == [{"a": None}, {"a": 2}]
    broken = {item.source: item.why for item in found if isinstance(item, Broken)}
    assert list(broken) == [f"a.jsonl:{number}" for number in (2, 4, 5, 6, 8, 10, 11)]
    assert "not UTF-8" in broken["a.jsonl:10"]
    assert "MiB" in broken["a.jsonl:6"]


def test_tables_of_text_with_broken_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'a,b\n1,"two\nlines"\n3\n"4"x,5\n6,7\n')
    found = read(path)
    assert [item.value for item in found if isinstance(item, Row)] == [
        {"a": "1", "b": "two\nlines"},
        {"a": "6", "b": "7"},
    ]
    assert [item.source for item in found] == ["a.csv:2", "a.csv:4", "a.csv:5", "a.csv:6"]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "array.json", "a.parquet", "a.jsonl.zip", "b.arrow"])
def test_a_file_that_was_cut_off_ends_with_a_broken_row(tmp_path: Path, name: str) -> None:
    rows = [{"question": f"{i} " * 50, "answer": str(i * 7919)} for i in range(3000)]
    whole = tmp_path / "whole" / name
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    contents = {"a.jsonl.gz": gzip.compress(lines.encode()), "array.json": json.dumps(rows).encode()}
    if name in contents:
        write(whole, contents[name])
    elif name == "a.parquet":
        whole.parent.mkdir()
        pq.write_table(pa.Table.from_pylist(rows), whole)
    elif name == "b.arrow":
        table = pa.Table.from_pylist(rows)
        whole.parent.mkdir()
        with pa.OSFile(str(whole), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table, max_chunksize=100)
    else:  # a member whose bytes were changed: its checksum tells
        whole.parent.mkdir()
        zipped(whole, {"a.jsonl": lines}, zipfile.ZIP_STORED)
        content = bytearray(whole.read_bytes())
        content[len(content) // 2] ^= 1
        write(tmp_path / name, bytes(content))
    if name != "a.jsonl.zip":
        write(tmp_path / name, whole.read_bytes()[: len(whole.read_bytes()) // 2])
    found = read(tmp_path / name)
    assert isinstance(found[-1], Broken)
    assert "nothing" in found[-1].why
    assert (len(found) > 100) == (name != "a.parquet")


def test_archives_that_are_none_or_bombs_or_locked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read as a zip archive"):
        read(write(tmp_path / "a.zip", "PK nonsense"))
    with pytest.raises(UserError, match="no members of data"):
        read(zipped(tmp_path / "b.zip", {"a.png": "x", "__MACOSX/a.jsonl": LINES, ".a.jsonl": LINES}))
    bomb = zipped(tmp_path / "c.zip", {"a.jsonl": b"\0" * (sources.SMALL + 1)})
    with pytest.raises(UserError, match="more than 200 times"):
        read(bomb)
    content = bytearray(zipped(tmp_path / "d.zip", {"a.jsonl": LINES}).read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(UserError, match="encrypted"):
        read(write(tmp_path / "d.zip", bytes(content)))


def test_members_of_archives_never_leave_them(tmp_path: Path) -> None:
    members = {"../../out.jsonl": LINES, "./a.jsonl": LINES, "b.jsonl.gz": gzip.compress(LINES.encode())}
    path = zipped(tmp_path / "a.zip", members)
    assert values(path) == ROWS * 2
    assert list(tmp_path.iterdir()) == [tmp_path / "a.zip"]


def test_directories_are_read_by_name(tmp_path: Path) -> None:
    for name in ("b/2.jsonl", "a.jsonl", "b/10.jsonl", ".hidden/x.jsonl", "README.txt", "dataset_info.json", "z.md"):
        write(tmp_path / "set" / name, LINES)
    write(tmp_path / "other.jsonl", LINES)
    names = [source.name for source in sources.find([str(tmp_path / "other.jsonl"), str(tmp_path / "set")])]
    assert names == ["other.jsonl", "set/a.jsonl", "set/b/10.jsonl", "set/b/2.jsonl"]
    assert [source.name for source in sources.find([str(tmp_path / "set" / "b")])] == ["10.jsonl", "2.jsonl"]


def test_inputs_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "a.xml", "<a/>")
    for name, said in (("empty", "without files of data"), ("a.xml", "none of .jsonl"), ("no", "does not exist")):
        with pytest.raises(UserError, match=said):
            read(tmp_path / name)
    with pytest.raises(UserError, match="written hf:openai/gsm8k"):
        read("openai/gsm8k")


def test_a_data_set_that_datasets_reads(tmp_path: Path) -> None:
    write(tmp_path / "set" / "train.jsonl", LINES)
    assert values(f"hf:{tmp_path}/set") == ROWS
    with pytest.raises(UserError, match="cannot be loaded as a data set"):
        read(f"hf:{tmp_path}/set::test")


@given(
    name=st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.txt", "a.parquet", "a.arrow", "a.jsonl.gz"]), data=st.data()
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_file_holds_it_is_rows_or_broken(tmp_path: Path, name: str, data: st.DataObject) -> None:
    start = st.sampled_from(
        [b"", b"{", b"[", b'{"a": [', b'[{"a": 1},', b"PAR1", b"\x1f\x8b\x08", b"\xef\xbb\xbf", b'"']
    )
    content = data.draw(start) + data.draw(st.binary(max_size=60))
    for item in read(write(tmp_path / name, content)):
        if isinstance(item, Broken):
            assert item.why.isprintable()


def test_odd_names_are_shown_and_harmless(tmp_path: Path) -> None:
    path = tmp_path / "in" / os.fsdecode(b"a\xff\x1b[2J.jsonl")
    assert read(write(path, LINES))[0].source == "a\\udcff\\x1b[2J.jsonl:1"


def test_what_was_prepared_before_is_no_input_of_a_directory(tmp_path: Path) -> None:
    for name in ("a.jsonl", "out/part-00000.jsonl", "out/manifest.json", "out/prepare.json"):
        write(tmp_path / name, LINES)
    assert [source.name for source in sources.find([str(tmp_path)])] == ["a.jsonl"]
    assert [source.name for source in sources.find([str(tmp_path / "out")])] == ["part-00000.jsonl"]


def test_an_arrow_file_whose_offsets_lead_elsewhere_is_refused(tmp_path: Path) -> None:
    """Followed, they end the process."""
    table = pa.Table.from_pylist(ROWS)
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    content = (tmp_path / "a.arrow").read_bytes()
    lengths = np.cumsum([0, *(len(row["question"]) for row in ROWS)]).astype("<i4")
    assert content.count(lengths.tobytes()) == 1
    lengths[-1] = 2**30
    write(tmp_path / "a.arrow", content.replace(lengths.astype("<i4").tobytes()[:-4], lengths.tobytes()[4:], 1))
    (broken,) = read(tmp_path / "a.arrow")
    assert isinstance(broken, Broken)
