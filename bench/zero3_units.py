"""What whole blocks as units save ZeRO-3: time of a step, fetches and gathers, with each module by itself beside it.

    OMP_NUM_THREADS=1 python bench/zero3_units.py            # 2 processes on the CPU, 24 narrow blocks with LoRA
    python bench/zero3_units.py strategy.activation_checkpointing=full

The same numbers come out, so losses are not looked at. Figures are the median of the steps after the first few, by
rank 0; the two ways take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from ranks import FIGURES, NoStore, be_rank, run_ranks, write_plan

if TYPE_CHECKING:
    import torch

    from zerofit.plan.spec import RunSpec

SHAPE = (
    "{model_type: qwen3, hidden_size: 64, num_hidden_layers: 24, num_attention_heads: 4, num_key_value_heads: 2, "
    "head_dim: 16, intermediate_size: 128}"
)
WORDS = [
    f"model={{kind: patch_lm, patch_size: 4, shape: {SHAPE}, lora: {{rank: 4, alpha: 8}}}}",
    *("strategy=zero3", "strategy.precision=fp32", "optimizer.lr=1e-3"),
    # About a block, and no weight is small: as it is in a large model.
    "strategy.deepspeed.zero_optimization.stage3_prefetch_bucket_size=40_000",
    "strategy.deepspeed.zero_optimization.stage3_param_persistence_threshold=0",
    *("train.max_steps=30", "train.epochs=null", "train.micro_batch=4", "train.global_batch=8"),
    *("evaluate.at_end=false", "evaluate.every_epochs=null"),
]
LIMIT = 300
"""Seconds for a measurement, imports included."""
FIRST = 5
"""Steps in which the order of modules is learnt, and the optimizer makes its state."""


def main() -> None:
    """Measure both ways, or be a rank."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="overrides of the recipe")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--modules", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank is not None:
        measured = by_modules if arguments.modules else of_blocks
        be_rank(arguments.rank, measured)
        return
    with tempfile.TemporaryDirectory() as directory:
        for number in range(arguments.repeats):
            for way in ("modules", "blocks"):
                place = Path(directory) / f"{way}-{number}"
                write_plan("digits", [*WORDS, *arguments.words], 2, place)
                wrong = run_ranks(__file__, place, 2, LIMIT, *(["--modules"] if way == "modules" else []))
                print(way, wrong or (place / FIGURES).read_text(), flush=True)


def of_blocks(spec: RunSpec, device: torch.device) -> dict[str, Any]:
    """A rank's figures, as zerofit trains."""
    from deepspeed.comm.torch import TorchBackend
    from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator
    from transformers import TrainerCallback
    from transformers.trainer_utils import SaveStrategy

    from zerofit.tasks.loop import prepare

    counts: Counter[str] = Counter()

    def counted(owner: Any, name: str) -> Any:
        own = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return own(*arguments, **options)

        return patch.object(owner, name, call)

    class Counts(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            seen.append(dict(counts))
            counts.clear()

    seen: list[dict[str, int]] = []
    run = prepare(spec, device, NoStore())
    run.trainer.args.save_strategy = SaveStrategy.NO
    run.trainer.add_callback(Counts())
    with ExitStack() as stack:
        stack.enter_context(counted(PartitionedParameterCoordinator, "fetch_sub_module"))
        stack.enter_context(counted(TorchBackend, "all_gather_into_tensor"))
        run.trainer.train()
    logged = [json.loads(line) for line in (spec.run_dir / "metrics.jsonl").read_text().splitlines()]
    rates = [line["samples_s"] for line in logged if "samples_s" in line]
    return {"step_s": round(spec.batches.global_batch / statistics.median(rates[FIRST:]), 4), **seen[-1]}


def by_modules(spec: RunSpec, device: torch.device) -> dict[str, Any]:
    """The same with each module by itself."""
    with patch("zerofit.train.zero.gathers_blocks", lambda _: False):
        return of_blocks(spec, device)


if __name__ == "__main__":
    main()
