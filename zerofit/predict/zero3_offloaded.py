"""ZeRO-3 and ZeRO++ with offload, after DeepSpeed 0.19.8's DeepSpeedZeroOptimizer_Stage3.

File:line are of runtime/zero/stage3.py, unless another file is named.
"""

from __future__ import annotations

from zerofit.predict.coordinator import Weight
from zerofit.predict.host import page_locked
from zerofit.predict.ledger import Ledger
from zerofit.predict.updating import FLOAT
from zerofit.predict.zero3 import NORM, Zero3, ZeroPlusPlus
from zerofit.predict.zero_base import DOUBLE, briefly


class OffloadedZero3(Zero3):
    """Optimizer on the host or a drive; weights there, too, where the strategy has it so."""

    def locked(self, size: int) -> int:
        """Bytes on the host of what is page-locked where the strategy asks for that."""
        return page_locked(size) if self.pinned else size

    def hold_weights(self, trained: list[Weight], frozen: list[Weight]) -> None:
        """Shares are made on the host one by one, page-locked; those that are trained then become a tensor a group.

        That tensor is always page-locked (:888), and what it replaces stays with PyTorch's allocator of such memory.
        """
        if not self.shares.offloaded:
            super().hold_weights(trained, frozen)
            return
        host, place = self.books.host, self.zero["offload_param"]
        in_memory = self.share
        if place["device"] == "nvme":
            buffers = int(place["buffer_count"]) * int(place["buffer_size"])  # swap_tensor/partitioned_param_swapper.py
            host.open("weights", page_locked(self.item * buffers))
            in_memory = min(in_memory, int(place["max_in_cpu"]))
        else:
            each = page_locked if place["pin_memory"] else int
            stays = (*trained, *frozen) if place["pin_memory"] else frozen
            host.open("weights", sum(each(self.shares.share(weight)) for weight in stays))
        host.open("weights", page_locked(self.item * in_memory) if self.on_cuda else self.item * in_memory)

    def make_masters(self) -> None:
        """Cast, and cloned, without being page-locked (:1158); a drive's go through page-locked buffers."""
        host, place = self.books.host, self.zero["offload_optimizer"]
        if not self.offloads:
            super().make_masters()
        elif place["device"] == "nvme":
            largest = FLOAT * max(map(sum, self.sub_groups))
            host.open("optimizer", int(place["buffer_count"]) * page_locked(largest))
        else:
            for part in self.sub_groups:
                with briefly(host, "optimizer", FLOAT * sum(part)):
                    host.open("optimizer", FLOAT * sum(part))

    def make_sums(self) -> None:
        """Zeros, copied to be page-locked (:791)."""
        if not self.offloads:
            super().make_sums()
            return
        size = self.summed * self.share
        with briefly(self.books.host, "gradients", size if self.pinned else 0):
            self.books.host.open("gradients", self.locked(size))

    def make_states(self) -> None:
        """A float32 gradient of each sub-group, for good (:1338)."""
        if not self.offloads:
            super().make_states()
            return
        if self.zero["offload_optimizer"]["device"] == "nvme":
            return
        host = self.books.host
        with briefly(host, "gradients", FLOAT * max(map(sum, self.sub_groups))):
            for part in self.sub_groups:
                with briefly(host, "gradients", FLOAT * sum(part) if self.pinned else 0):
                    host.open("gradients", self.locked(FLOAT * sum(part)))

    @property
    def states_at(self) -> Ledger | None:
        """Never page-locked; of a drive's, buffers are all there is."""
        if not self.offloads:
            return super().states_at
        return None if self.zero["offload_optimizer"]["device"] == "nvme" else self.books.host

    def share_out(self, weight: Weight) -> None:
        """Back from the host to be added to; with the last micro-batch its norm, and float32 (:2006, :1443)."""
        elements = self.shares.elements(weight)
        if not self.offloads or elements * (self.ranks - 1) >= weight.elements:
            return  # of which the last rank holds nothing
        norm = DOUBLE * min(elements, NORM)
        cast = FLOAT * elements if self.summed != FLOAT else 0
        back = self.summed * elements if self.on_cuda else 0
        with briefly(self.books.device, "other", back + (max(norm, cast) if self.last else 0)):
            pass

    def check(self) -> None:
        """Norms are known; overflow is looked for on the host."""
        if not self.offloads:
            super().check()
        elif self.spec.precision == "fp16":
            with briefly(self.books.host, "other", (self.summed + 1) * self.share):
                pass

    def update_part(self, part: list[int]) -> None:
        """On the host; what goes back to the device is cast there first."""
        if not self.offloads:
            super().update_part(part)
            return
        back = 0 if self.shares.offloaded or self.item == FLOAT else self.item
        with briefly(self.books.host, "other", max(self.update(sum(part)), back * sum(part))):
            pass


class OffloadedZeroPlusPlus(ZeroPlusPlus, OffloadedZero3):
    """Second shares of weights lie where the first ones do."""
