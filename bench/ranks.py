"""Ranks of a measurement: processes of their own, with a time limit of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


class NoStore:
    """Commits nothing."""

    @contextmanager
    def commit(self, step: int, value: float | None) -> Iterator[Path]:
        """Never reached: benchmarks switch saving off."""
        raise AssertionError("this benchmark writes no checkpoint")
        yield Path()


def run_ranks(script: str, run_dir: Path, nproc: int, limit: int) -> str | None:
    """Run `script --rank RUN_DIR` on `nproc` ranks for `limit` seconds at most; what went wrong, or null."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={nproc}"]
    with (run_dir / "log").open("w") as log:
        process = subprocess.Popen([*torchrun, script, "--rank", str(run_dir)], stdout=log, stderr=log)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            # Its ranks as well: they would keep their GPU memory while the next one is measured.
            for one in [*psutil.Process(process.pid).children(recursive=True), process]:
                one.kill()
            return f"no end within {limit} s"
    return None if code == 0 else (run_dir / "log").read_text()[-3000:]
