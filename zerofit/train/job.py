"""What a task gives the trainer: its data, its loss, its validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from zerofit.data.loader import Loader
from zerofit.train.writes import Writes

Part = Callable[[Path, Writes], None]
"""A part of a save: this rank's files in a directory; large ones go by way of the writes."""


class Job(Protocol):
    """One task, ready to be trained on this rank."""

    def train_loader(self) -> Loader:
        """This rank's micro-batches of an epoch; the same object at every call."""

    def seek(self, step: int) -> None:
        """Make the next pass over the loader begin after `step` optimizer steps of the run."""

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Figures over the validation split, equal on every rank: `loss`, `top1`, ... Collective."""

    def say(self, figures: Mapping[str, float]) -> str:
        """Such figures in a few words."""


class LossJob(Job, Protocol):
    """A task whose loss is its own."""

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Mean loss of a micro-batch (scalar, float32)."""


class Store(Protocol):
    """Where checkpoints are committed."""

    def write_tensors(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        """Write a safetensors file."""

    def commit(self, step: int, value: float | None, parts: Sequence[Part], *, size: int, last: bool) -> None:
        """Let all ranks write `parts` of a checkpoint into a staging directory's `checkpoint-<step>`. Collective.

        After each part ranks hear of each other's failures; the parts after a failed one are left out, and the save is
        given up. `value` is evaluate.best_metric at this very step; null where it was not validated. `size` is about
        how many bytes it will have, where no checkpoint is there to tell. Raises UserError where the run cannot do
        without the save: it is of its `last` step, or the third that failed in a row.

        What needs no rank may go on behind training, until the next `commit` or `finish`.
        """

    def finish(self) -> None:
        """Wait until what goes on behind training is done. Collective. Raises UserError as `commit` does."""
