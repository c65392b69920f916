"""How ZeRO-1 and ZeRO-2 bring gradients to their partition, replayed after DeepSpeed 0.19.8's DeepSpeedZeroOptimizer.

File:line are of runtime/zero/stage_1_and_2.py. Gradients are contiguous and parameters in their own order, as
plan/deepspeed.py has it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from zerofit.plan.spec import RunSpec
from zerofit.predict.flat import Flat
from zerofit.predict.ledger import Account
from zerofit.predict.replay import Books
from zerofit.predict.updating import FLOAT
from zerofit.predict.zero_base import DeepSpeedReplay, briefly, elements_of


@dataclass(eq=False)
class Place:
    """Where a trained parameter lies."""

    group: int
    index: int
    here: int
    """Elements of it in this rank's partition."""


class Reducing(DeepSpeedReplay):
    """Whole gradients are copied into buckets that are reduced in turn; ZeRO-2 keeps what is of its own partition."""

    flats: list[Flat]
    """Of the optimizer's groups."""
    places: dict[int, Place]
    """Of trained parameters."""
    mine: list[Tensor]
    """Those that touch the own partition."""

    def __init__(self, spec: RunSpec, books: Books) -> None:
        super().__init__(spec, books)
        self.partitions_gradients = self.zero["stage"] == 2
        self.overlaps = bool(self.zero["overlap_comm"])
        self.compact = self.summed == FLOAT and self.item != FLOAT
        """Whether own gradients are added up in one flat float32 buffer a group (:1259)."""
        self.whole_sums = self.compact and not self.partitions_gradients
        """Whether whole gradients are added up in float32, before anything is reduced (:401)."""
        self.bucket_item = self.summed if self.whole_sums else self.item
        self.buffers: list[Account] = []
        self.filling: list[Tensor] = []
        self.filled = 0
        self.apart: dict[int, Account] = {}
        """Gradients that have memory of their own, by parameter."""
        self.own: Account | None = None
        """`grads_in_partition`: whole gradients of whatever touches the own partition, over all groups."""
        self.averaged: Account | None = None
        """The same of the micro-batches so far, until the step."""
        self.sums: dict[int, Account] = {}
        """Flat float32 sums of own gradients, by group."""

    def take_gradient(self, parameter: Tensor) -> None:
        """`process_gradients` (:2284)."""
        self._set_up_buckets()
        if self.whole_sums:
            self._add_up_whole(parameter)
        if self.partitions_gradients or (self.overlaps and self.last):
            self._into_bucket(parameter)
        else:  # ZeRO-1 lets autograd add up
            self._keep_apart(parameter, self.bucket_item)
        parameter.grad = None

    def _set_up_buckets(self) -> None:
        """At the first gradient after the last were freed (:3256)."""
        if not self.buffers:
            size = self.bucket_item * self.bucket
            self.buffers = [self.books.device.open("buckets", size) for _ in range(1 + self.overlaps)]

    def _add_up_whole(self, parameter: Tensor) -> None:
        """Cast, then kept or added (:1234)."""
        if id(parameter) in self.apart:
            with briefly(self.books.device, "gradients", FLOAT * parameter.numel()):
                return
        self._keep_apart(parameter, FLOAT)

    def _keep_apart(self, parameter: Tensor, item: int) -> None:
        if id(parameter) in self.apart:
            return
        if item == self.item:  # it is the tensor that autograd made
            parameter.grad = None
        self.apart[id(parameter)] = self.books.device.open("gradients", item * parameter.numel())

    def _into_bucket(self, parameter: Tensor) -> None:
        """`reduce_independent_p_g_buckets_and_remove_grads` (:1414)."""
        size = parameter.numel()
        if self.filled + size > self.bucket:
            self._reduce()
        if size > self.bucket:  # keeps memory of its own until it is reduced, as the next comes, or at the end
            self.keep_oversized(parameter)
        elif (apart := self.apart.pop(id(parameter), None)) is not None:
            apart.close()
        self.filling.append(parameter)
        self.filled += size

    def keep_oversized(self, parameter: Tensor) -> None:
        """A gradient larger than a bucket."""
        self._keep_apart(parameter, self.bucket_item)

    def _reduce(self) -> None:
        """`reduce_ipg_grads` (:2205): all of the bucket, then each gradient goes where it belongs."""
        if self.filling:
            self._average()
        for parameter in self.filling:
            if self.places[id(parameter)].here:
                self.settle(parameter)
            elif self.partitions_gradients:
                self.free(parameter)
        self.filling, self.filled = [], 0

    def _average(self) -> None:
        """`average_tensor` (:1590): the bucket's slices, by owner, all-reduced in lists of about a bucket (:1545)."""
        several: list[tuple[int, int]] = []  # elements; of these, those that are added to own float32 sums
        total = 0
        for elements, own in self._slices():
            several.append((elements, own))
            total += elements
            if total > self.bucket:
                self._all_reduce(several)
                several, total = [], 0
        if several:
            self._all_reduce(several)

    def _slices(self) -> list[tuple[int, int]]:
        """Neighbours of one owner are one slice (:1680), but not those that are added to float32 sums."""
        slices: list[tuple[int, int]] = []
        before: int | None = None
        for parameter in self.filling:
            place = self.places[id(parameter)]
            for cut in self.flats[place.group].cuts[place.index]:
                own = self.compact and cut.partition == self.rank
                if own:
                    self._make_sums(place.group)
                if cut.partition == before and not own:
                    slices[-1] = (slices[-1][0] + cut.length, 0)
                else:
                    slices.append((cut.length, cut.length if own else 0))
                before = cut.partition
        return slices

    def _all_reduce(self, slices: list[tuple[int, int]]) -> None:
        """Slices of one list are copied together (:2367), one alone is not; what is sent may be cast."""
        elements = sum(length for length, _ in slices)
        joined = self.books.device.open("buckets", self.bucket_item * elements if len(slices) > 1 else 0)
        cast = self.books.device.open("buckets", self.sent * elements if self.sent != self.bucket_item else 0)
        if cast.size:
            joined.close()
        added = FLOAT * max(own for _, own in slices) if self.sent != FLOAT else 0
        with briefly(self.books.device, "gradients", added):  # cast before it is added (:1326)
            pass
        joined.close()
        cast.close()

    def _make_sums(self, group: int) -> None:
        """Flat float32 sums of own gradients, when the first come (:1268)."""
        if group not in self.sums:
            self.sums[group] = self.books.device.open("gradients", FLOAT * self.flats[group].partition)

    def settle(self, parameter: Tensor) -> None:
        """`copy_grads_in_partition` (:2142), of what touches the own partition."""
        if self.compact:
            if self.whole_sums:
                self.free(parameter)
            return
        if self.own is None:
            self.own = self.books.device.open("gradients", self.item * elements_of(self.mine))
        self.free(parameter)

    def free(self, parameter: Tensor) -> None:
        """The gradient's own memory, if it has any."""
        if (apart := self.apart.pop(id(parameter), None)) is not None:
            apart.close()
