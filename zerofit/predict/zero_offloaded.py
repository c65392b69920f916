"""ZeRO-1 and ZeRO-2 whose optimizer is offloaded to the host, after DeepSpeed 0.19.8's DeepSpeedZeroOptimizer.

File:line are of runtime/zero/stage_1_and_2.py.
"""

from __future__ import annotations

from torch import Tensor

from zerofit.models.trained import TrainedModel
from zerofit.predict.flat import Flat
from zerofit.predict.host import page_locked
from zerofit.predict.updating import FLOAT, kept
from zerofit.predict.zero import Zero
from zerofit.predict.zero_base import DOUBLE, briefly


class OffloadedZero(Zero):
    """Own gradients go to the host as soon as they are reduced, parameter by parameter; the update is done there."""

    def take(self, model: TrainedModel) -> None:
        super().take(model)
        largest = self.item * max(one.numel() for one in self.trained)
        self.books.device.open("gradients", largest)  # temp_grad_buffer_for_gpu_offload (:659)
        self.books.host.open("gradients", self.locked(largest))  # and its like on the host (:653)
        self.on_host: set[int] = set()

    def locked(self, size: int) -> int:
        """Bytes on the host of what is page-locked where the strategy asks for that."""
        return page_locked(size) if self.pinned else size

    def make_masters(self, flat: Flat) -> None:
        """Masters, and the weights that go back (:560 to :578): each made first, and then copied to be page-locked."""
        host = self.books.host
        with briefly(self.books.device, "other", self.item * flat.partition):
            pass
        for item in (FLOAT, self.item):
            with briefly(host, "other", item * flat.partition if self.pinned else 0):
                host.open("optimizer", self.locked(item * flat.partition))

    def make_states(self) -> None:
        """Float32 gradients that stay (:937), and the moments, which are never page-locked."""
        host = self.books.host
        for flat in self.flats:
            with briefly(host, "other", FLOAT * flat.partition if self.pinned else 0):
                host.open("gradients", self.locked(FLOAT * flat.partition))
        host.open("optimizer", sum(kept(self.spec, flat.partition) for flat in self.flats))

    def keep_oversized(self, parameter: Tensor) -> None:
        """It is cloned first (:1446)."""
        with briefly(self.books.device, "gradients", self.bucket_item * parameter.numel()):
            super().keep_oversized(parameter)

    def settle(self, parameter: Tensor) -> None:
        """`copy_grads_in_partition` (:2142): with the last micro-batch, norm and float32 copy."""
        here = self.places[id(parameter)].here
        if not self.compact and self.partitions_gradients and self.spec.batches.accumulation > 1:
            self._sum_on_host(parameter)
        if self.last:
            with briefly(self.books.device, "other", DOUBLE * here):
                pass
        if self.last or not self.compact:
            self.free(parameter)

    def _sum_on_host(self, parameter: Tensor) -> None:
        """`async_accumulate_grad_in_cpu_via_gpu` (:1809), where sums are of the weights' own type."""
        if id(parameter) not in self.on_host:
            self.on_host.add(id(parameter))
            self.books.host.open("gradients", self.locked(self.item * parameter.numel()))

    def end_backward(self) -> None:
        """Nothing waits on the device but float32 sums, if there are any."""

    def step(self) -> None:
        """On the host, group by group (:3078); what comes back is written into the weights in place."""
        for number, flat in enumerate(self.flats):
            with briefly(self.books.host, "other", self.update(flat.partition)):
                pass
            if number in self.sums:
                self.sums.pop(number).close()

    def begin_micro_step(self, last: bool) -> None:
        """Whole float32 sums, and the buckets that they became views of, go before the next forward pass (:1138)."""
        super().begin_micro_step(last)
        if not self.apart:
            self.free_buckets()
