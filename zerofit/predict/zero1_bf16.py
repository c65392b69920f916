"""ZeRO-1 in bf16 whose gradients are added up in float32: DeepSpeed 0.19.8's BF16_Optimizer.

It takes the place of the other one where there are several micro-batches and nothing is offloaded
(runtime/engine.py:2305). File:line are of runtime/bf16_optimizer.py.
"""

from __future__ import annotations

from torch import Tensor

from zerofit.models.trained import TrainedModel
from zerofit.predict.flat import Flat
from zerofit.predict.sizes import written
from zerofit.predict.updating import FLOAT, kept
from zerofit.predict.zero_base import DeepSpeedReplay, briefly, elements_of

TOGETHER = 500_000_000
"""Elements that are reduced together (runtime/engine.py:151, MEMORY_OPT_ALLREDUCE_SIZE)."""


class Bf16Zero1(DeepSpeedReplay):
    """Float32 sums of all gradients stay, whole."""

    def take(self, model: TrainedModel) -> None:
        device = self.books.device
        self.flats = [Flat(tuple(one.numel() for one in group), self.ranks) for group in self.groups]
        device.open("weights", self.item * (elements_of(model.parameters()) - elements_of(self.trained)))
        whole = [device.open("weights", self.item * sum(flat.sizes)) for flat in self.flats]
        with briefly(device, "other", written(model, fresh=self.spec.origin is None)):
            pass
        for flat, account in zip(self.flats, whole, strict=True):
            if len(flat.sizes) > 1 or flat.padded:
                device.open("weights", self.item * flat.elements)
                account.close()
            with briefly(device, "other", self.item * flat.partition):  # `clone().float()` (:182)
                device.open("optimizer", FLOAT * flat.partition)
            device.open("gradients", self.summed * flat.elements)  # :191
        device.open("optimizer", sum(kept(self.spec, flat.partition) for flat in self.flats))

    def take_gradient(self, parameter: Tensor) -> None:
        """Cast, added, and gone (:508, :707)."""
        with briefly(self.books.device, "gradients", self.summed * parameter.numel()):
            pass
        parameter.grad = None

    def micro_step_done(self) -> None:
        """The sums, as they travel: groups together, until they are many (runtime/engine.py:3828)."""
        if not self.last:
            return
        several: list[int] = []
        for flat in self.flats:
            several.append(flat.elements)
            if sum(several) > TOGETHER:
                self._reduce(several)
                several = []
        if several:
            self._reduce(several)

    def _reduce(self, groups: list[int]) -> None:
        """Copied together where they are several, and cast (runtime/engine.py:3795)."""
        joined = self.summed if len(groups) > 1 else 0
        cast = self.sent if self.sent != self.summed else 0
        with briefly(self.books.device, "buckets", (joined + cast) * sum(groups)):
            pass

    def step(self) -> None:
        """Partitions of the sums are the gradients (:417)."""
        for flat in self.flats:
            with briefly(self.books.device, "other", self.update(flat.partition)):
                pass
