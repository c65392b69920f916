"""One rank of a start: trains a few steps of several runs, and says how much its tensors took.

    python memory_worker.py WORKS.json    # under `starts.run_script`; a list of run directories

Of those that are called so, AdamW is fused, as on CUDA.

Rank 0 leaves RUN/memory.json: bytes of the fullest rank at the fullest moment of a step's passes (`passes`; of the
second step alone: `second`), and of its optimizer (`step`).
"""

from __future__ import annotations

import faulthandler
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from live_memory import LiveStorages
from ranks import be_rank
from worker import LIMIT, NoStore, forget

from zerofit.launch import worker as product
from zerofit.launch.environment import World
from zerofit.plan import fused
from zerofit.plan.files import read_spec
from zerofit.plan.spec import RunSpec


def main() -> None:
    runs = json.loads(Path(sys.argv[1]).read_text())
    import torch.distributed as dist

    def body(world: World) -> None:
        for run in runs:
            faulthandler.dump_traceback_later(LIMIT, exit=True)  # each has its own, as in worker.py
            figures = measured(read_spec(Path(run)))
            ranks: list[Any] = [None] * world.size
            dist.all_gather_object(ranks, figures)
            if world.rank == 0:
                fullest = {phase: max(one[phase] for one in ranks) for phase in figures}
                (Path(run) / "memory.json").write_text(json.dumps(fullest))

    be_rank(Path(sys.argv[1]).parent / "logs", body, LIMIT)


class LastFirst(set[Any]):
    """Parameters from the last to the first. ZeRO-3 waits for a block's in the order of a set, by their addresses.

    What of it was prefetched and what was not then overlaps in memory, or not: differently in each process.
    """

    def __iter__(self) -> Iterator[Any]:
        return iter(sorted(super().__iter__(), key=lambda one: -getattr(one, "ds_id", 0)))


def measured(spec: RunSpec) -> dict[str, int]:
    """Train the run."""
    forget()
    product.prepare_engine(spec)
    fused.DEVICES = {"cpu"} if "fused" in spec.run_dir.name else {"cuda"}
    import torch
    from transformers import TrainerCallback
    from transformers.trainer_utils import SaveStrategy

    from zerofit.data.loader import close
    from zerofit.tasks.loop import prepare

    live = LiveStorages()
    peaks: dict[str, list[int]] = {"passes": [], "step": []}

    class Ready(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            trainer = run.trainer
            trainer.engine.around_step(trainer.model_wrapped, trainer.optimizer, before, after)

    def before() -> None:
        peaks["passes"].append(live.peak)
        begin("step")

    def after() -> None:
        peaks["step"].append(live.peak)
        begin("passes")

    def begin(name: str) -> None:
        live.careful = 0.9 * min(peaks[name], default=math.inf)
        live.reset()

    waiting = patch("deepspeed.runtime.zero.partitioned_param_coordinator.set", LastFirst, create=True)
    with live, live.blind_to_gloo(), waiting:
        run = prepare(spec, torch.device("cpu"), NoStore())
        run.trainer.args.save_strategy = SaveStrategy.NO
        run.trainer.add_callback(Ready())
        try:
            run.trainer.train()
        finally:
            close(run.job.train_loader())
    # The first steps make what stays; gloo's threads now and then hold on to a tensor for longer, more so under load.
    return {name: min(found[2:]) for name, found in peaks.items()} | {"second": peaks["passes"][1]}


if __name__ == "__main__":
    main()
