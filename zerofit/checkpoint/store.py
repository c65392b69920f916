"""Checkpoints of a run on several ranks: all write into staging, rank 0 commits, rotates and names the best."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist

from zerofit.checkpoint.commit import Best, commit, read_best, record_best, rotate, stage, staging, sweep
from zerofit.plan.spec import RunSpec


def written_as(spec: RunSpec) -> dict[str, Any]:
    """What the files in a checkpoint of `spec` depend on: facts in its manifest."""
    return {"strategy": spec.recipe.strategy.name, "world_size": spec.batches.ranks, "precision": spec.precision}


class RunStore:
    """`checkpoints/` of a run directory. Made on every rank; sweeps what a crash left half done."""

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.checkpoints = spec.run_dir / "checkpoints"
        if dist.get_rank() == 0:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            sweep(self.checkpoints)
        dist.barrier()

    @contextmanager
    def commit(self, step: int, value: float | None) -> Iterator[Path]:
        """Yields a staging directory; on a clean exit its `checkpoint-<step>` becomes a checkpoint. Collective.

        `value` is evaluate.best_metric at this very step; null where it was not validated.
        """
        if dist.get_rank() == 0:
            stage(self.checkpoints, step)
        dist.barrier()  # nobody writes before it is there
        directory = staging(self.checkpoints, step)
        yield directory
        dist.barrier()  # nothing is listed before it is written
        if dist.get_rank() == 0:
            facts = written_as(self.spec)
            commit(directory / f"checkpoint-{step}", self.checkpoints, step, facts)
            if value is not None and self._is_best(value):
                record_best(self.checkpoints, Best(step=step, value=value))
            rotate(self.checkpoints, self.spec.recipe.checkpoint.keep, step)
        dist.barrier()  # nobody goes on before it counts

    def _is_best(self, value: float) -> bool:
        best = read_best(self.checkpoints)
        if best is None:
            return True
        smaller = self.spec.recipe.evaluate.best_metric == "loss"
        return value < best.value if smaller else value > best.value
