"""Runs the command line as a user does, with a recipe file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from commands import OUTER, zygote

TINY = """\
name: tiny
model:
  kind: patch_lm
  shape:
    model_type: qwen3
    hidden_size: 16
    intermediate_size: 32
    num_hidden_layers: 2
    num_attention_heads: 2
    num_key_value_heads: 1
    head_dim: 8
  image_size: 8
  patch_size: 4
data:
  source: digits
train:
  max_steps: 6
  micro_batch: 8
  global_batch: 16
optimizer:
  lr: 1e-3
strategy: ddp
"""


def environment(**changes: str) -> dict[str, str]:
    """This process's environment, on CPU, without what an outer launcher would have set."""
    kept = {name: value for name, value in os.environ.items() if name not in OUTER and not name.startswith("SLURM")}
    return {**kept, "ZEROFIT_DEVICE": "cpu", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", **changes}


Start = Callable[..., subprocess.CompletedProcess[str]]


def zerofit(
    *arguments: str, cwd: Path, env: dict[str, str] | None = None, timeout: float = 400
) -> subprocess.CompletedProcess[str]:
    """`zerofit ARGUMENTS` in `cwd`, with its output; a fork, so variables that act on a starting Python do nothing."""
    done = zygote().start(*arguments, cwd=cwd, env=env or environment())
    with done:
        done.wait(timeout, look=0.02)
    assert done.code is not None
    return subprocess.CompletedProcess(arguments, done.code, done.stdout, done.stderr)


def zerofit_process(
    *arguments: str,
    cwd: Path,
    before: tuple[str, ...] = (),
    env: dict[str, str] | None = None,
    timeout: float = 400,
) -> subprocess.CompletedProcess[str]:
    """The same as a user starts it: a process of its own, behind `before`."""
    command = [*before, sys.executable, "-m", "zerofit", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=env or environment(), capture_output=True, text=True, timeout=timeout, check=False
    )


def tiny(directory: Path, text: str = TINY) -> Path:
    """Write the tiny recipe."""
    path = directory / "tiny.yaml"
    path.write_text(text)
    return path


def trained(*arguments: str, cwd: Path, start: Start = zerofit, **options: Any) -> Path:
    """Train; the run must succeed. Returns the run directory."""
    done = start("train", *arguments, cwd=cwd, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return cwd / "runs" / "tiny"


def steps(run: Path) -> list[dict[str, Any]]:
    """The records of optimizer steps."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def result(run: Path) -> dict[str, Any]:
    """result.json."""
    body: dict[str, Any] = json.loads((run / "result.json").read_text())
    return body


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 2, one line that has the words, no traceback."""
    assert done.returncode == 2, (done.returncode, done.stdout[-1500:], done.stderr[-1500:])
    said = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(said) == 1, done.stderr
    assert said[0].startswith("error: ")
    assert "Traceback" not in done.stdout + done.stderr
    for word in words:
        assert word in said[0], said[0]
