"""A shipped recipe under several strategies: one JSON line each, with memory and speed.

    python bench/main_job.py --data data/cifar10 --strategies zero2 zero3 fsdp2 --steps 20 --nproc 2
    python bench/main_job.py --data data/cifar10 --recipe vit-huge-food101 --shape vit-huge --strategies ddp zero3

Random weights of the exact shape (they cost the same memory and time as trained ones), on an image folder whatever
the recipe's data. Checkpoints are left out: one of the main job (qwen3-8b-cifar10) would be 90 GB of disk.
Each strategy has its own processes and its own time limit; one that fails is a line that says so.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from ranks import FIGURES, be_rank, run_ranks, training, write_plan


def plan(strategy: str, options: argparse.Namespace) -> Path:
    """Write the run directory of one strategy."""
    run_dir: Path = (options.out / strategy).resolve()
    overrides = [
        f"strategy={strategy}",
        "model.pretrained=null",
        f"model.shape={options.shape}",
        "data.source=folder",
        f"data.path={options.data}",
        "data.classes=null",
        f"train.max_steps={options.steps}",
        f"train.micro_batch={options.micro_batch}",
        f"train.global_batch={options.global_batch}",
        *options.set,
    ]
    write_plan(options.recipe, overrides, options.nproc, run_dir)
    return run_dir


def measure(strategy: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one strategy and read what it wrote."""
    run_dir = plan(strategy, options)
    error = run_ranks(__file__, run_dir, options.nproc, options.limit)
    if error is not None:
        return {"recipe": options.recipe, "strategy": strategy, "error": error}
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    steady = steps[len(steps) // 4 :]  # the first steps warm up
    return {
        "recipe": options.recipe,
        "strategy": strategy,
        "steps": len(steps),
        "loss_first": steps[0]["loss"],
        "loss_last": steps[-1]["loss"],
        "samples_s": round(statistics.median(step["samples_s"] for step in steady), 1),
        "mfu": steady[-1]["mfu"],
        **json.loads((run_dir / FIGURES).read_text()),
    }


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--data", help="image folder")
    parser.add_argument("--recipe", default="qwen3-8b-cifar10")
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
        be_rank(options.rank, training)
        return
    for strategy in options.strategies:
        print(json.dumps(measure(strategy, options)), flush=True)


if __name__ == "__main__":
    main()
