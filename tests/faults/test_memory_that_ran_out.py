"""A rank whose GPU has no more memory: its own exit code, and no second try at the same."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from commands import Zygote

sys.path.append(str(Path(__file__).parents[1] / "e2e"))
from cli_runs import result, tiny

MESSAGE = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total capacity of 10.75 GiB of which 1.17 GiB is free."
)


@pytest.mark.parametrize("tries", [0, 2])
def test_a_run_that_has_no_more_memory_is_not_begun_again(zygote: Zygote, tmp_path: Path, tries: int) -> None:
    crash = {"run": "tiny", "rank": 1, "kind": "OutOfMemoryError", "message": MESSAGE}
    command = zygote.run("train", tiny(tmp_path), "--nproc", 2, "--auto-resume", tries, cwd=tmp_path, crash=crash)
    assert command.code == 3, command.said
    assert command.stderr.count("out of memory in forward: 2.00 GiB more could not be had") == 1
    assert result(tmp_path / "runs/tiny")["exit"] == "failed"
