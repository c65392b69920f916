"""The main job under several strategies: one JSON line each, with memory and speed.

    python bench/main_job.py --data data/cifar10 --strategies zero2 zero3 fsdp2 --steps 20 --nproc 2

The shipped recipe qwen3-8b-cifar10 with random weights of the exact shape (they cost the same memory and time as
trained ones), 32 px in patches of 4, on an image folder. Checkpoints are left out: one would be 90 GB of disk.
Each strategy has its own processes and its own time limit; one that fails is a line that says so.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any

from ranks import NoStore, run_ranks


def plan(strategy: str, options: argparse.Namespace) -> Path:
    """Write the run directory of one strategy."""
    from zerofit.config.load import load_recipe
    from zerofit.plan.build import make_plan
    from zerofit.plan.files import write_spec
    from zerofit.plan.hardware import detect
    from zerofit.tasks import TASKS

    run_dir = (options.out / strategy).resolve()
    overrides = [
        f"strategy={strategy}",
        f"model.shape={options.shape}",
        "data.source=folder",
        f"data.path={options.data}",
        "data.classes=null",
        f"train.max_steps={options.steps}",
        f"train.micro_batch={options.micro_batch}",
        f"train.global_batch={options.global_batch}",
        *options.set,
    ]
    recipe = load_recipe("qwen3-8b-cifar10", overrides)
    facts = TASKS[recipe.task].describe(recipe)
    spec = make_plan(recipe, facts=facts, hardware=detect(), ranks=options.nproc, run_dir=run_dir)
    run_dir.mkdir(parents=True)
    write_spec(spec)
    return run_dir


def rank(run_dir: Path) -> None:
    """One rank of one strategy, started by torchrun."""
    import torch
    import torch.distributed as dist
    from transformers.trainer_utils import SaveStrategy

    from zerofit.launch import workarounds
    from zerofit.plan.files import read_spec
    from zerofit.tasks.classify import largest, prepare, this_device

    spec = read_spec(run_dir)
    cuda = spec.hardware.device == "cuda"
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if spec.deepspeed is not None:
        workarounds.apply()
    elif not cuda:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    dist.init_process_group("nccl" if cuda else "gloo")
    run = prepare(spec, this_device(spec), NoStore())
    run.trainer.args.save_strategy = SaveStrategy.NO
    run.trainer.train()
    peaks = largest(run.peak.figures())
    if dist.get_rank() == 0:
        (run_dir / "peaks.json").write_text(json.dumps(peaks))
    dist.destroy_process_group()


def measure(strategy: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one strategy and read what it wrote."""
    run_dir = plan(strategy, options)
    error = run_ranks(__file__, run_dir, options.nproc, options.limit)
    if error is not None:
        return {"strategy": strategy, "error": error}
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    steady = steps[len(steps) // 4 :]  # the first steps warm up
    return {
        "strategy": strategy,
        "steps": len(steps),
        "loss_first": steps[0]["loss"],
        "loss_last": steps[-1]["loss"],
        "samples_s": round(statistics.median(step["samples_s"] for step in steady), 1),
        "mfu": steady[-1]["mfu"],
        **json.loads((run_dir / "peaks.json").read_text()),
    }


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--data", help="image folder")
    parser.add_argument("--strategies", nargs="+", default=["zero2", "zero3", "fsdp2"])
    parser.add_argument("--shape", default="qwen3-8b")
    parser.add_argument("--nproc", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--micro-batch", type=int, default=32)
    parser.add_argument("--global-batch", type=int, default=64)
    parser.add_argument("--limit", type=int, default=180, help="seconds for each strategy")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--set", nargs="*", default=[], help="further overrides, a.b=c")
    options = parser.parse_args()
    if options.rank:
        rank(options.rank)
        return
    for strategy in options.strategies:
        print(json.dumps(measure(strategy, options)), flush=True)


if __name__ == "__main__":
    main()
