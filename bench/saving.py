"""A checkpoint of a shipped recipe: how long training waits for it, how long it takes, and how fast a run goes on.

    python bench/saving.py --data data/cifar10 --strategies zero2 zero3 --out /fast/bench
    python bench/saving.py --data data/cifar10 --strategies zero3 --set checkpoint.async_save=false

One JSON line for each strategy: `blocked_s` (training waited), `behind_s` (from then on until it was a checkpoint),
`step_s` and `step_behind_s` (an optimizer step without and with that going on), `verify_s` (all files hashed, as
--resume does first) and `first_step_s` (from the start of the ranks until the first step was done). A line before them
gives the speed of the drive under --out: one file of 8 GiB, written and fsynced by `dd`. Random weights.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ranks import FIGURES, NoStore, be_rank, run_ranks, write_plan

if TYPE_CHECKING:
    import torch

    from zerofit.plan.spec import RunSpec

SAVED = 4
"""Steps before the save: the first are slow."""
AFTER = 60
"""Steps at most while it is written."""


def saving(spec: RunSpec, device: torch.device) -> dict[str, Any]:
    """Train, save once, and train on until the checkpoint is there."""
    import torch.distributed as dist
    from transformers import TrainerCallback

    from zerofit.checkpoint.store import RunStore
    from zerofit.data.loader import close
    from zerofit.tasks.loop import largest, prepare

    ends: list[tuple[float, bool]] = []  # of steps; whether a checkpoint was there by then
    store = RunStore(spec)

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            there = [len(store.saves) > 0]
            dist.broadcast_object_list(there, src=0)
            ends.append((time.monotonic(), there[0]))
            control.should_save = len(ends) == SAVED  # once: a second save would wait for the first
            control.should_training_stop = there[0] or len(ends) == SAVED + AFTER

    run = prepare(spec, device, store)
    run.trainer.add_callback(Watch())
    try:
        run.trainer.train()
        store.finish()
    finally:
        close(run.job.train_loader())
        store.close()
    steps = [later[0] - earlier[0] for earlier, later in zip(ends, ends[1:], strict=False)]
    behind = steps[SAVED : len(steps) - 1]  # the step after the save has the save in it; the last one its end
    return {
        **(store.saves[0] if store.saves else {}),
        "step_s": round(statistics.median(steps[1 : SAVED - 1]), 3),
        "step_behind_s": round(statistics.median(behind), 3) if behind else None,
        "steps_behind": len(behind),
        **largest(run.peak.figures()),
    }


def resuming(began: float, spec: RunSpec, device: torch.device) -> dict[str, Any]:
    """Go on from the checkpoint, for one step; `began`: time.time() when the ranks were started."""
    from transformers import TrainerCallback

    from zerofit.data.loader import close
    from zerofit.tasks.loop import prepare, this_device

    marks: dict[str, float] = {"imports_s": time.time() - began}

    class Watch(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            marks["restored_s"] = time.time() - began

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            marks["first_step_s"] = time.time() - began
            control.should_training_stop = True

    checkpoint = spec.run_dir / "checkpoints" / f"step-{SAVED:06d}"
    run = prepare(spec, this_device(spec), NoStore(), checkpoint)
    marks["built_s"] = time.time() - began
    run.trainer.add_callback(Watch())
    try:
        run.trainer.train()
    finally:
        close(run.job.train_loader())
    return {name: round(value, 2) for name, value in marks.items()}


def measure(strategy: str, options: argparse.Namespace) -> dict[str, Any]:
    """Save and go on under one strategy."""
    from zerofit.checkpoint.manifest import verify

    run_dir: Path = (options.out / strategy).resolve()
    overrides = [
        f"strategy={{name: {strategy}, activation_checkpointing: full}}",
        "model.pretrained=null",
        f"model.shape={options.shape}",
        "data.source=folder",
        f"data.path={options.data}",
        "data.classes=null",
        "train.max_steps=1000",
        f"train.micro_batch={options.micro_batch}",
        f"train.global_batch={options.micro_batch * options.nproc}",
        "checkpoint.every_steps=1000",
        "checkpoint.every_epochs=null",
        "evaluate.every_epochs=null",
        *options.set,
    ]
    write_plan(options.recipe, overrides, options.nproc, run_dir)
    line: dict[str, Any] = {"recipe": options.recipe, "strategy": strategy, "ranks": options.nproc}
    try:
        error = run_ranks(__file__, run_dir, options.nproc, options.limit)
        if error is not None:
            return {**line, "error": error}
        line |= json.loads((run_dir / FIGURES).read_text())
        checkpoint = run_dir / "checkpoints" / f"step-{SAVED:06d}"
        started = time.monotonic()
        faults = verify(checkpoint)
        line |= {"verify_s": round(time.monotonic() - started, 2), "faults": faults}
        error = run_ranks(__file__, run_dir, options.nproc, options.limit, "--began", str(time.time()))
        return {**line, **({"error": error} if error is not None else json.loads((run_dir / FIGURES).read_text()))}
    finally:
        shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)


def drive(directory: Path) -> dict[str, Any]:
    """Bytes a second that the drive of `directory` takes."""
    directory.mkdir(parents=True, exist_ok=True)
    path, size = directory / "dd", 8 * 2**30
    started = time.monotonic()
    command = ["dd", "if=/dev/zero", f"of={path}", "bs=16M", f"count={size // 2**24}", "conv=fsync", "status=none"]
    subprocess.run(command, check=True)
    taken = time.monotonic() - started
    path.unlink()
    return {"drive": str(directory), "write_gb_s": round(size / taken / 1e9, 2)}


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--data", help="image folder")
    parser.add_argument("--recipe", default="qwen3-8b-cifar10")
    parser.add_argument("--strategies", nargs="+", default=["zero2", "zero3"])
    parser.add_argument("--shape", default="qwen3-8b")
    parser.add_argument("--nproc", type=int, default=2)
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--limit", type=int, default=240, help="seconds for each start of ranks")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--set", nargs="*", default=[], help="further overrides, a.b=c")
    options = parser.parse_args()
    if options.rank:
        be_rank(options.rank, saving if options.began is None else partial(resuming, options.began))
        return
    print(json.dumps(drive(options.out)), flush=True)
    for strategy in options.strategies:
        print(json.dumps(measure(strategy, options)), flush=True)


if __name__ == "__main__":
    main()
