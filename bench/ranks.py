"""Ranks of a measurement: processes of their own, with a time limit of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    import torch

    from zerofit.plan.spec import RunSpec

Measurement = Callable[["RunSpec", "torch.device"], dict[str, Any]]
"""What a rank does in a group that has been joined; returns figures, of which rank 0's are kept."""
FIGURES = "figures.json"


class NoStore:
    """Commits nothing."""

    def commit(self, *arguments: Any, **options: Any) -> None:
        """Never reached: benchmarks switch saving off."""
        raise AssertionError("this benchmark writes no checkpoint")

    def write_tensors(self, *arguments: Any, **options: Any) -> None:
        """As little."""
        raise AssertionError("this benchmark writes no checkpoint")

    def finish(self) -> None:
        """There is nothing to wait for."""


def write_plan(recipe_name: str, overrides: Sequence[str], ranks: int, run_dir: Path) -> None:
    """Write the run directory of one measurement, which must not be there."""
    from zerofit.config.load import load_recipe
    from zerofit.plan.build import make_plan
    from zerofit.plan.files import write_spec
    from zerofit.plan.hardware import detect
    from zerofit.tasks import TASKS

    recipe = load_recipe(recipe_name, overrides)
    facts = TASKS[recipe.task].describe(recipe)
    spec = make_plan(recipe, facts=facts, hardware=detect(), ranks=ranks, run_dir=run_dir)
    run_dir.mkdir(parents=True)
    write_spec(spec)


def be_rank(run_dir: Path, measure: Measurement) -> None:
    """One rank of one measurement, started by torchrun; rank 0 writes the figures."""
    import torch
    import torch.distributed as dist

    from zerofit.launch.worker import prepare_engine
    from zerofit.plan.files import read_spec
    from zerofit.tasks.loop import this_device

    spec = read_spec(run_dir)
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(run_dir / "ops"))
    cuda = spec.hardware.device == "cuda"
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    prepare_engine(spec)
    dist.init_process_group("nccl" if cuda else "gloo")
    figures = measure(spec, this_device(spec))
    if dist.get_rank() == 0:
        (run_dir / FIGURES).write_text(json.dumps(figures))
    dist.destroy_process_group()


def training(spec: RunSpec, device: torch.device) -> dict[str, Any]:
    """Train without checkpoints: memory peaks, the largest of all ranks. Speed is in metrics.jsonl."""
    from transformers.trainer_utils import SaveStrategy

    from zerofit.data.loader import close
    from zerofit.tasks.loop import largest, prepare

    run = prepare(spec, device, NoStore())
    run.trainer.args.save_strategy = SaveStrategy.NO
    try:
        run.trainer.train()
    finally:
        close(run.job.train_loader())
    return largest(run.peak.figures())


def run_ranks(script: str, run_dir: Path, nproc: int, limit: int, *words: str) -> str | None:
    """Run `script --rank RUN_DIR WORDS` on `nproc` ranks for `limit` seconds at most; what went wrong, or null."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={nproc}"]
    environ = {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // nproc)),
        "THP_MEM_ALLOC_ENABLE": "1",
        **os.environ,
    }
    with (run_dir / "log").open("w") as log:
        command = [*torchrun, script, "--rank", str(run_dir), *words]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environ)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            # Its ranks as well: they would keep their GPU memory while the next one is measured.
            for one in [*psutil.Process(process.pid).children(recursive=True), process]:
                one.kill()
            return f"no end within {limit} s"
    return None if code == 0 else (run_dir / "log").read_text()[-3000:]
