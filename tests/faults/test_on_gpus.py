"""What of a run only GPUs can show: NCCL's flight recorder, the allocator's snapshot, the largest micro-batch."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

sys.path.append(str(Path(__file__).parents[1] / "e2e"))
from cli_runs import result, tiny
from test_interrupt import LONG, await_step

pytestmark = pytest.mark.gpu
ONE_GPU = Path(__file__).parents[2] / "bench" / "one_gpu.py"
ON_CPU = ("ZEROFIT_DEVICE", "DS_ACCELERATOR")


def started(cwd: Path, *words: str, program: tuple[str, ...] = ("-m", "zerofit")) -> subprocess.Popen[str]:
    """`zerofit WORDS` on this machine's GPUs."""
    environ = {name: value for name, value in os.environ.items() if name not in ON_CPU}
    command, pipe = [sys.executable, *program, *words], subprocess.PIPE
    return subprocess.Popen(command, cwd=cwd, env=environ, stdout=pipe, stderr=pipe, text=True)


def done(cwd: Path, *words: str, program: tuple[str, ...] = ("-m", "zerofit")) -> str:
    """What it printed."""
    process = started(cwd, *words, program=program)
    printed, said = process.communicate(timeout=600)
    assert process.returncode == 0, printed[-2000:] + said[-3000:]
    return printed + said


def test_a_hanging_rank_leaves_what_nccl_was_doing(tmp_path: Path) -> None:
    """Of two hosts, which one GPU is enough for (bench/one_gpu.py)."""
    run = tmp_path / "runs" / "tiny"
    words = ("train", str(tiny(tmp_path, LONG)), "strategy=ddp", "--watchdog", "0.2", "train.max_steps=200000")
    with started(tmp_path, *words, program=(str(ONE_GPU), "2")) as launcher:
        try:
            await_step(run, 3, launcher)
            rank = next(one for one in psutil.Process(launcher.pid).children() if one.environ()["RANK"] == "1")
            rank.send_signal(signal.SIGSTOP)
            _, said = launcher.communicate(timeout=200)
        finally:
            for one in psutil.Process(launcher.pid).children() if launcher.poll() is None else []:
                one.kill()
            launcher.kill()
    assert launcher.returncode == 1, said
    assert "rank 1 does not answer" in result(run)["error"]
    recorded = pickle.loads((run / "logs" / "nccl_trace_rank_0").read_bytes())  # noqa: S301 - this test's own run wrote it
    assert any("all_reduce" in entry["profiling_name"] for entry in recorded["entries"])


def test_a_profile_has_the_allocators_snapshot(tmp_path: Path) -> None:
    done(tmp_path, "train", str(tiny(tmp_path)), "strategy=single", "profile={steps: [3, 4], memory: true}")
    path = tmp_path / "runs" / "tiny" / "profile" / "memory-rank-0.pickle"
    snapshot = pickle.loads(path.read_bytes())  # noqa: S301 - this test's own run wrote it
    assert sum(segment["allocated_size"] for segment in snapshot["segments"]) > 0


def test_the_largest_micro_batch_is_found(tmp_path: Path) -> None:
    fields = ("hardware.memory_cap=4GiB", "train.micro_batch=8", "train.global_batch=1024")
    words = (
        "--strategies",
        "single",
        "--gpus",
        "1",
        "--steps",
        "4",
        "--max-batch",
        "--no-profile",
        "--output",
        "found",
    )
    done(tmp_path, "compare", str(tiny(tmp_path)), *fields, *words)
    (row,) = json.loads((tmp_path / "found" / "compare.json").read_text())["rows"]
    assert row["status"] == "ok"
    assert row["max_micro_batch"] >= 8
