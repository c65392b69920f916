"""ZeRO-1 and ZeRO-2, replayed after DeepSpeed 0.19.8's DeepSpeedZeroOptimizer.

File:line are of runtime/zero/stage_1_and_2.py, unless another file is named. Gradients are contiguous and parameters
in their own order, as plan/deepspeed.py has it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from zerofit.models.trained import TrainedModel
from zerofit.plan.spec import RunSpec
from zerofit.predict.flat import Flat
from zerofit.predict.ledger import Account
from zerofit.predict.replay import Books
from zerofit.predict.updating import FLOAT, kept
from zerofit.predict.zero_base import DOUBLE, DeepSpeedReplay, briefly, elements_of

GIB = 2**30


@dataclass(eq=False)
class Place:
    """Where a trained parameter lies."""

    group: int
    index: int
    here: int
    """Elements of it in this rank's partition."""


class Zero(DeepSpeedReplay):
    """Weights whole; masters and moments of a partition; gradients whole in buckets on their way to their partition.

    ZeRO-2 keeps those of its own partition alone. ZeRO-1 differs in when it reduces: with the last micro-batch.
    """

    def __init__(self, spec: RunSpec, books: Books) -> None:
        super().__init__(spec, books)
        self.partitions_gradients = self.zero["stage"] == 2
        self.overlaps = bool(self.zero["overlap_comm"])
        self.compact = self.summed == FLOAT and self.item != FLOAT
        """Whether own gradients are added up in one flat float32 buffer a group (:1259)."""
        self.whole_sums = self.compact and not self.partitions_gradients
        """Whether whole gradients are added up in float32, before anything is reduced (:404)."""
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

    def take(self, model: TrainedModel) -> None:
        device = self.books.device
        self.flats = [Flat(tuple(one.numel() for one in group), self.ranks) for group in self.groups]
        rank = self.ranks - 1
        held = [dict(flat.of(rank)) for flat in self.flats]
        self.places = {
            id(one): Place(number, index, held[number].get(index, 0))
            for number, group in enumerate(self.groups)
            for index, one in enumerate(group)
        }
        self.mine = [one for one in self.trained if self.places[id(one)].here]
        device.open("weights", self.item * (elements_of(model.parameters()) - elements_of(self.trained)))
        whole = [device.open("weights", self.item * sum(flat.sizes)) for flat in self.flats]
        for flat, account in zip(self.flats, whole, strict=True):
            self._flatten(flat, account)
            self.make_masters(flat)
        self.make_states()

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
                own = self.compact and cut.partition == self.ranks - 1
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

    def micro_step_done(self) -> None:
        """runtime/engine.py:3068: ZeRO-1 reduces with the last micro-batch alone."""
        if not (self.partitions_gradients or self.last):
            return
        if not (self.partitions_gradients or self.overlaps):
            for parameter in self.trained:  # :972
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
        """Norm (:2648), then group by group (:3060)."""
        device = self.books.device
        largest = max((self.places[id(one)].here for one in self.mine), default=0)
        with briefly(device, "other", DOUBLE * largest):
            pass
        for number, flat in enumerate(self.flats):
            if number == len(self.flats) - 1:  # which the last views of are freed with (:3103, :3135)
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
