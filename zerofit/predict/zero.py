"""ZeRO-1 and ZeRO-2, replayed after DeepSpeed 0.19.8's DeepSpeedZeroOptimizer.

File:line are of runtime/zero/stage_1_and_2.py, unless another file is named.
"""

from __future__ import annotations

from zerofit.models.trained import TrainedModel
from zerofit.plan.hardware import GIB
from zerofit.predict.flat import Flat
from zerofit.predict.ledger import Account
from zerofit.predict.sizes import written
from zerofit.predict.updating import FLOAT, kept
from zerofit.predict.zero_base import DOUBLE, briefly, elements_of
from zerofit.predict.zero_reducing import Place, Reducing

WORTH = 0.003
"""Of what a rank holds for good: gradients of another one that are more by less are not looked for."""


class Zero(Reducing):
    """Weights whole; masters and moments of a partition.

    ZeRO-1 differs in when it reduces: with the last micro-batch.
    """

    def take(self, model: TrainedModel) -> None:
        device = self.books.device
        self.flats = [Flat(tuple(one.numel() for one in group), self.ranks) for group in self.groups]
        held = [dict(flat.of(self.rank)) for flat in self.flats]
        self.places = {
            id(one): Place(number, index, held[number].get(index, 0))
            for number, group in enumerate(self.groups)
            for index, one in enumerate(group)
        }
        self.mine = [one for one in self.trained if self.places[id(one)].here]
        device.open("weights", self.item * (elements_of(model.parameters()) - elements_of(self.trained)))
        whole = [device.open("weights", self.item * sum(flat.sizes)) for flat in self.flats]
        with briefly(device, "other", written(model, fresh=self.spec.origin is None)):
            pass
        for flat, account in zip(self.flats, whole, strict=True):
            self._flatten(flat, account)
            self.make_masters(flat)
        self.make_states()
        self.rival = self._rival()

    def _rival(self) -> int | None:
        """The rank with most gradients of its own, where that is worth another look: whole ones are kept of whatever
        touches a partition, and with rates by depth, which are groups, that may be twice the partition.
        """
        own = [
            sum(flat.sizes[index] for flat in self.flats for index, _ in flat.of(rank)) for rank in range(self.ranks)
        ]
        most = max(range(self.ranks), key=lambda rank: own[rank])
        return most if self.item * (own[most] - own[-1]) > WORTH * self.books.device.total else None

    def _flatten(self, flat: Flat, whole: Account) -> None:
        """The group's weights move into one flat tensor, on the device where that has room beside them (:453)."""
        size = self.item * flat.elements
        if len(flat.sizes) == 1 and not flat.padded:
            return  # the flat tensor is a view of the one
        if self.books.device.total + size <= self.spec.hardware.memory_gib * GIB:
            self.books.device.open("weights", size)
            whole.close()
            return
        with briefly(self.books.host, "weights", self.item * sum(flat.sizes) + size):
            whole.close()
            self.books.device.open("weights", size)

    def make_masters(self, flat: Flat) -> None:
        """The partition, cloned and then cast (:560)."""
        with briefly(self.books.device, "other", self.item * flat.partition if self.item != FLOAT else 0):
            self.books.device.open("optimizer", FLOAT * flat.partition)

    def make_states(self) -> None:
        """Zero gradients of all partitions, which go again (:937); later, in the first step, the optimizer's state."""
        with briefly(self.books.device, "optimizer", FLOAT * sum(flat.partition for flat in self.flats)):
            pass
        self.books.device.open("optimizer", sum(kept(self.spec, flat.partition) for flat in self.flats))

    def micro_step_done(self) -> None:
        """runtime/engine.py:3073: ZeRO-1 reduces with the last micro-batch alone."""
        if not (self.partitions_gradients or self.last):
            return
        if not (self.partitions_gradients or self.overlaps):
            for parameter in self.trained:  # :971
                if id(parameter) in self.apart:
                    self._into_bucket(parameter)
        self._reduce()
        self.end_backward()
        for account in self.apart.values():
            account.close()
        self.apart = {}
        if not self.whole_sums:  # of which those of other partitions are views of buckets still, until the step
            self.free_buckets()

    def free_buckets(self) -> None:
        """Until the next gradient."""
        for buffer in self.buffers:
            buffer.close()
        self.buffers = []

    def end_backward(self) -> None:
        """`independent_gradient_partition_epilogue` (:1016): own gradients wait for the step, or are added up."""
        if self.compact:
            for group in range(len(self.flats)):
                self._make_sums(group)
        elif self.own is not None:
            if self.averaged is None:
                self.averaged = self.own
            else:  # of the micro-batches before: added to
                self.own.close()
            self.own = None

    def step(self) -> None:
        """Norm (:2648), then group by group (:3075)."""
        device = self.books.device
        largest = max((self.places[id(one)].here for one in self.mine), default=0)
        with briefly(device, "other", DOUBLE * largest):
            pass
        for number, flat in enumerate(self.flats):
            if number == len(self.flats) - 1:  # which the last views of are freed with (:3103, :3128)
                self.free_buckets()
            self._update(number, flat)

    def _update(self, number: int, flat: Flat) -> None:
        """A flat gradient is made (:3114) and cast (:3118); float32 sums are flat already."""
        device = self.books.device
        if self.compact:
            with briefly(device, "other", self.update(flat.partition)):
                pass
            self.sums.pop(number).close()
            return
        joined = device.open("other", 0 if self._is_view(number, flat) else self.item * flat.partition)
        gradient = device.open("other", FLOAT * flat.partition if self.item != FLOAT else 0)
        if self.item != FLOAT:
            joined.close()
        if number == len(self.flats) - 1 and self.averaged is not None:  # one tensor of all groups
            self.averaged.close()
            self.averaged = None
        with briefly(device, "other", self.update(flat.partition)):
            pass
        joined.close()
        gradient.close()

    def _is_view(self, number: int, flat: Flat) -> bool:
        """One tensor alone, as long as the partition, is its own flat tensor."""
        held = [one for one in self.mine if self.places[id(one)].group == number]
        return len(held) == 1 and self.places[id(held[0])].here == flat.partition
