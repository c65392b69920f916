"""Manifests, headers and links that others made: whatever they say is a fault with a name, never a crash."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from zerofit.checkpoint.commit import read_best
from zerofit.checkpoint.headers import read_header
from zerofit.checkpoint.manifest import NAME, read_manifest, verify, write_manifest
from zerofit.config.errors import UserError
from zerofit.config.limited import MOST, read_limited
from zerofit.models.zero_files import tag_directory
from zerofit.plan.files import read_spec
from zerofit.plan.job import read_job

HASH = "0" * 32
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
)
entries = st.fixed_dictionaries({"size": st.integers() | values, "xxh3_128": st.just(HASH) | values})
paths = st.lists(st.sampled_from(["..", ".", "", "a", "\0", "\n", "é", "\ud800"]), max_size=4).map("/".join)
manifests = st.fixed_dictionaries(
    {
        "facts": st.dictionaries(st.text(max_size=9), values, max_size=3),
        "files": st.dictionaries(paths | st.text(max_size=9), entries, max_size=3),
    }
)
headers = st.dictionaries(
    st.text(max_size=9),
    st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "BF16", "X"]) | values,
            "shape": st.lists(st.integers(), max_size=4) | values,
            "data_offsets": st.tuples(st.integers(), st.integers()) | values,
        }
    ),
    max_size=3,
)


def read(reader: Callable[[Path], Any], path: Path) -> Any:
    """What it reads; null where it is the user's error, of one line."""
    try:
        return reader(path)
    except UserError as error:
        lines = str(error).split("\n")
    assert len(lines) == 1
    return None


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


files = st.binary(max_size=200) | values.map(as_json) | manifests.map(as_json)


@given(content=files)
def test_no_manifest_raises_anything_but_a_users_error(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("any")
    for name in (NAME, "best.json", "run.json", "job.json"):
        (directory / name).write_bytes(content)
    manifest = read(read_manifest, directory)
    if manifest is not None:
        assert all(0 <= entry.size < 2**63 for entry in manifest.files.values())
        assert not any(".." in name.split("/") or name.startswith("/") for name in manifest.files)
    assert all(fault.isprintable() for fault in verify(directory))
    for reader in (read_best, read_spec, read_job):
        read(reader, directory)


@given(content=st.binary(max_size=99) | st.tuples(headers | values, st.binary(max_size=64)))
def test_no_header_raises_anything_but_a_users_error(
    content: bytes | tuple[Any, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any") / "model.safetensors"
    if isinstance(content, tuple):
        header, rest = as_json(content[0]), content[1]
        content = struct.pack("<Q", len(header)) + header + rest
    path.write_bytes(content)
    tensors = read(read_header, path)
    assert sum(tensor.elements for tensor in (tensors or {}).values()) <= 2 * len(content)


def test_a_header_says_what_safetensors_wrote(tmp_path: Path) -> None:
    kinds = [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.uint8, torch.float8_e4m3fn]
    written = {str(kind): torch.zeros(2, 3, dtype=kind) for kind in kinds}
    save_file({**written, "scalar": torch.ones(()), "none": torch.zeros(0, 5)}, tmp_path / "a", {"format": "pt"})
    found = read_header(tmp_path / "a")
    assert {name: found[name].dtype for name in written} == dict(
        zip(written, ["F32", "BF16", "F16", "I64", "BOOL", "U8", "F8_E4M3"], strict=True)
    )
    assert {name: tensor.elements for name, tensor in found.items()} == {
        **dict.fromkeys(written, 6), "scalar": 1, "none": 0
    }  # fmt: skip


@pytest.mark.parametrize("name", ["../weights", "/etc/passwd", "a/../../b", "a//b", "./a", "", "a\0b"])
def test_names_that_lead_out_are_refused(name: str, tmp_path: Path) -> None:
    manifest = {"version": 1, "facts": {}, "files": {name: {"size": 0, "xxh3_128": HASH}}}
    (tmp_path / NAME).write_text(json.dumps(manifest))
    (fault,) = verify(tmp_path)
    assert "names what no checkpoint can hold" in fault


def test_links_that_lead_out_are_faults_and_are_not_followed(tmp_path: Path) -> None:
    directory = tmp_path / "step-000001"
    directory.mkdir()
    (directory / "shard").write_bytes(b"weights")
    os.symlink("shard", directory / "same")  # stays inside
    write_manifest(directory, {})
    assert verify(directory) == []
    (tmp_path / "outside").mkdir()
    (directory / "shard").rename(tmp_path / "outside" / "shard")
    os.symlink(tmp_path / "outside" / "shard", directory / "shard")  # with the very contents
    os.symlink("../outside", directory / "global_step1")
    os.symlink("../outside/shard", directory / "extra")
    os.symlink("loop", directory / "loop")
    os.mkfifo(directory / "pipe")
    out = f"is a link that leads out of the checkpoint, to {tmp_path / 'outside'}"
    assert verify(directory) == [
        f"extra {out}/shard",
        f"global_step1 {out}",
        "loop is neither a file nor a directory",
        "pipe is neither a file nor a directory",
        f"same {out}/shard",
        f"shard {out}/shard",
    ]


def test_files_that_are_too_large_or_no_files_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / NAME).open("wb") as file:
        file.truncate(MOST + 1)
    (fault,) = verify(tmp_path)
    assert fault == f"{tmp_path / NAME} is not read: it has more than 64 MiB"
    (tmp_path / NAME).unlink()
    os.mkfifo(tmp_path / NAME)
    (fault,) = verify(tmp_path)
    assert "is no regular file" in fault
    with pytest.raises(UserError, match="no regular file"):
        read_limited(Path("/dev/zero"))
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", MOST + 1))
        file.truncate(2 * MOST)
    with pytest.raises(UserError, match="its header has 67108865 bytes, more than 64 MiB"):
        read_header(tmp_path / "model.safetensors")


def test_deep_json_is_damage(tmp_path: Path) -> None:
    for name in (NAME, "run.json"):
        (tmp_path / name).write_text("[" * 100_000)
    assert "cannot be read" in verify(tmp_path)[0]
    with pytest.raises(UserError, match="not JSON"):
        read_spec(tmp_path)


def test_a_tag_lies_beside_the_file_that_names_it(tmp_path: Path) -> None:
    for tag in ("../elsewhere", "/etc", "..", "\x1b[2J"):
        (tmp_path / "latest").write_text(tag)
        with pytest.raises(UserError, match="which is no directory beside it"):
            tag_directory(tmp_path)
