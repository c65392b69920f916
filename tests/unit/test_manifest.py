from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerofit.checkpoint.manifest import (
    NAME,
    newest,
    read_manifest,
    step_name,
    step_of,
    steps,
    verify,
    write_json,
    write_manifest,
)
from zerofit.config.errors import UserError

FACTS = {"step": 500, "strategy": "zero3", "world_size": 4}


def checkpoint(directory: Path, files: dict[str, bytes] | None = None) -> Path:
    files = (
        {"model.safetensors": b"weights" * 99, "global_step5/rank0.pt": b"\0\1\2", "empty": b""}
        if files is None
        else files
    )
    for name, contents in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)
    directory.mkdir(parents=True, exist_ok=True)
    write_manifest(directory, FACTS)
    return directory


names = st.lists(st.text("abc.é 1", min_size=1, max_size=8).filter(lambda n: n.strip(". ")), min_size=1, max_size=3)
trees = st.dictionaries(names.map(lambda parts: "d/".join(parts) + "f"), st.binary(max_size=300), max_size=5)


@given(files=trees, data=st.data())
def test_any_changed_byte_or_length_is_found(
    files: dict[str, bytes], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = checkpoint(tmp_path_factory.mktemp("checkpoint"), files)
    assert verify(directory) == []
    assert read_manifest(directory).facts == FACTS
    if not files:
        return
    name = data.draw(st.sampled_from(sorted(files)))
    before = files[name]
    after = data.draw(st.binary(max_size=301).filter(lambda contents: contents != before))
    (directory / name).write_bytes(after)
    (problem,) = verify(directory)
    assert problem.startswith(f"{name} has ")
    (directory / name).write_bytes(before)
    assert verify(directory) == []


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda d: truncate(d / "model.safetensors"), "model.safetensors has 692 bytes, not 693"),
        (lambda d: flip(d / "model.safetensors"), "model.safetensors has other contents than were written"),
        (lambda d: (d / "global_step5/rank0.pt").unlink(), "global_step5/rank0.pt is missing"),
        (lambda d: (d / "global_step5/rank1.pt").touch(), "global_step5/rank1.pt is not in the manifest"),
        (lambda d: (d / NAME).unlink(), "is not a complete checkpoint: it has no manifest.json"),
        (lambda d: truncate(d / NAME), "manifest.json cannot be read"),
        (lambda d: (d / NAME).write_bytes(b""), "manifest.json cannot be read"),
        (lambda d: (d / NAME).write_text('{"version": 2, "facts": {}, "files": {}}'), "manifest.json cannot be read"),
    ],
)
def test_damage_is_named(damage: Callable[[Path], None], problem: str, tmp_path: Path) -> None:
    directory = checkpoint(tmp_path / "step-000500")
    damage(directory)
    (found,) = verify(directory)
    assert problem in found


def test_newest_is_the_highest_step_that_is_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert newest(tmp_path) is None
    assert newest(tmp_path / "nowhere") is None
    for step in (999_999, 1_000_000, 2_000_000, 3_000_000):
        checkpoint(tmp_path / step_name(step))
    (tmp_path / step_name(3_000_000) / NAME).unlink()
    truncate(tmp_path / step_name(2_000_000) / "model.safetensors")
    (tmp_path / "step-notes").mkdir()
    (tmp_path / "best.json").touch()
    checkpoint(tmp_path / ".staging-step-4000000")

    seen: list[tuple[str, list[str]]] = []
    found = newest(tmp_path, lambda path, problems: seen.append((path.name, problems)))
    assert found == tmp_path / "step-1000000"
    assert [name for name, _ in seen] == ["step-3000000", "step-2000000"]
    with caplog.at_level(logging.WARNING, "zerofit"):
        assert newest(tmp_path) == found
    assert "step-2000000 is damaged and left out: model.safetensors has 692 bytes, not 693" in caplog.text
    assert list(steps(tmp_path)) == [999_999, 1_000_000, 2_000_000, 3_000_000]


@given(step=st.integers(0, 10**9))
def test_a_steps_name_says_the_step(step: int) -> None:
    assert step_of(Path("runs/x/checkpoints") / step_name(step)) == step


def test_a_step_has_six_digits() -> None:
    assert step_name(500) == "step-000500"
    assert step_of(Path("step-500")) is None


def test_json_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "best.json"
    write_json(path, {"step": 1})
    with pytest.raises(TypeError):
        write_json(path, {"step": object()})
    assert json.loads(path.read_text()) == {"step": 1}


def test_a_manifest_that_is_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a complete checkpoint"):
        read_manifest(tmp_path)
