"""A checkpoint written anew by another engine, or on another number of ranks, without a step between."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from zerofit.checkpoint.manifest import read_manifest
from zerofit.checkpoint.store import RunStore
from zerofit.config.errors import UserError
from zerofit.data.loader import close
from zerofit.plan.spec import RunSpec
from zerofit.tasks.loop import prepare
from zerofit.train.callbacks import Ready, forget_after
from zerofit.train.job import Part, Store
from zerofit.train.writes import Writes


class _Written(Exception):
    """The checkpoint is there: all ranks leave Trainer before its first step."""


class _Write(Ready):
    """A class of its own: Trainer warns of two callbacks of one."""


class _Once:
    """`store`, for one save that has to succeed; random numbers are those of the checkpoint `before`."""

    def __init__(self, store: Store, before: Path) -> None:
        self.store, self.before = store, before

    def commit(self, step: int, value: float | None, parts: Sequence[Part], *, size: int, last: bool) -> None:
        """As `Store.commit` promises."""

        def draw_on(staging: Path, _: Writes) -> None:
            # Where there are as many ranks they are the run's own: a CPU alone could not write those of GPUs.
            ranks = dist.get_world_size()
            if read_manifest(self.before).facts["world_size"] == ranks:
                name = "rng_state.pth" if ranks == 1 else f"rng_state_{dist.get_rank()}.pth"
                shutil.copyfile(self.before / name, staging / f"checkpoint-{step}" / name)

        try:
            self.store.commit(step, value, (*parts, draw_on), size=size, last=True)
        except UserError as error:
            raise UserError(str(error).partition("; ")[0]) from None  # what follows speaks of training

    def write_tensors(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        """As `Store.write_tensors` promises."""
        self.store.write_tensors(tensors, path)

    def finish(self) -> None:
        """As `Store.finish` promises."""
        self.store.finish()


def rewrite(target: RunSpec, spec: RunSpec, checkpoint: Path) -> None:
    """Write `checkpoint`, of any engine, into the run `target` as its own would. Collective.

    `spec` is `target` as this machine can hold it. Raises UserError where the checkpoint cannot be read or written.
    """
    run = prepare(spec, torch.device("cpu"), _Once(RunStore(target), checkpoint), checkpoint)

    def write() -> None:
        run.trainer.save_now()
        raise _Written

    if dist.get_rank() == 0:
        run.trainer.remove_callback(run.records)  # no step will be taken
    run.trainer.add_callback(_Write(write))
    try:
        with suppress(_Written):
            run.trainer.train()
    finally:
        close(run.job.train_loader())
    if dist.get_rank() == 0:
        forget_after(target.run_dir / "metrics.jsonl", run.trainer.state.global_step)
    dist.barrier()  # rank 0 holds the store by which the others hear of each other
