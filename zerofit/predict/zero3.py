"""ZeRO-3 and ZeRO++, replayed after DeepSpeed 0.19.8's DeepSpeedZeroOptimizer_Stage3.

File:line are of runtime/zero/stage3.py, unless another file is named.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from itertools import chain
from unittest.mock import patch

import torch.nn.functional as F
from torch import Tensor, nn

from zerofit.models.adapters import ADAPTER
from zerofit.models.trained import TrainedModel
from zerofit.plan.spec import RunSpec
from zerofit.plan.units import gathers_blocks
from zerofit.predict.coordinator import Coordinator, Limits, Status, Weight
from zerofit.predict.gathering import Gathered, Shares
from zerofit.predict.gathering_int8 import GatheredInt8
from zerofit.predict.ledger import Account, Ledger
from zerofit.predict.replay import Books
from zerofit.predict.sizes import written
from zerofit.predict.updating import FLOAT, kept
from zerofit.predict.zero3_hooks import hook_modules
from zerofit.predict.zero3_linear import linear
from zerofit.predict.zero_base import DOUBLE, DeepSpeedReplay, briefly, elements_of

NORM = 250_000_000
"""Elements whose norm is taken at once (:1960)."""


class Zero3(DeepSpeedReplay):
    """Weights cut over the ranks, gathered for use; gradients reduced bucket by bucket into flat shares."""

    def __init__(self, spec: RunSpec, books: Books) -> None:
        super().__init__(spec, books)
        self.micro_steps = 1  # gradients have their place from the start
        self.steps = 2  # what is learnt in one pass is used in the next
        self.filling: list[Tensor] = []
        self.filled = 0
        self.stepped = False
        self.apart: list[Account] = []
        """Gradients larger than the bucket, in memory of their own."""

    def playing(self) -> AbstractContextManager[object]:
        """With DeepSpeed's linear layers."""
        return patch.object(F, "linear", linear)

    def take(self, model: TrainedModel) -> None:
        self.weights = self._weights(model)
        self.shares = Shares(self.ranks, self.item, self.zero["offload_param"]["device"] != "none", self.on_cuda)
        self.gathered = self.make_gathered()
        trained = [self.weights[id(one)] for one in self.trained]
        frozen = [weight for weight in self.weights.values() if not weight.trained]
        self.share = sum(map(self.shares.elements, trained))
        with briefly(self.books.device, "other", self._making(model)):
            pass
        self.hold_weights(trained, frozen)
        self.sub_groups = [part for group in self.groups for part in self._sub_groups(group)]
        self.make_masters()
        self.books.device.open("buckets", self.sent * self.bucket)  # one, for good (:782)
        self.make_sums()
        with briefly(self.books.device, "gathered", max(map(self.shares.whole, trained))):
            pass  # each is gathered once, for the hook on its gradient (:1504)
        self.make_states()
        self.coordinator = self._coordinate(model)

    def _weights(self, model: nn.Module) -> dict[int, Weight]:
        """Small ones are persistent, as long as they are few (runtime/zero/parameter_offload.py:317)."""
        threshold = int(self.zero["stage3_param_persistence_threshold"])
        room = int(self.zero["stage3_model_persistence_threshold"])
        weights: dict[int, Weight] = {}
        for number, (name, parameter) in enumerate(model.named_parameters()):
            size = parameter.numel()
            persistent = size <= min(threshold, room)
            room -= size if persistent else 0
            weights[id(parameter)] = Weight(number, size, parameter.requires_grad, persistent, ADAPTER in name)
        return weights

    def make_gathered(self) -> Gathered:
        """What weights are gathered into."""
        return Gathered(self.books.device, self.shares)

    @property
    def weights_at(self) -> Ledger:
        """Where shares of weights lie."""
        return self.books.host if self.shares.offloaded else self.books.device

    def _making(self, model: TrainedModel) -> int:
        """Bytes of what is whole for a moment: a weight, in float32 first (runtime/zero/partition_parameters.py:263).

        Around packed ones a block at a time, or all that is outside the blocks (train/placements.PackedPlacement).
        """
        if not self.spec.quantised:
            return (FLOAT + (self.item if self.item != FLOAT else 0)) * max(
                one.elements for one in self.weights.values()
            )
        blocks = [elements_of(block.parameters()) for block in chain.from_iterable(model.stacks)]
        around = elements_of(model.parameters()) - sum(blocks)
        return max(self.item * max(around, *blocks), written(model, fresh=self.spec.origin is None))

    def hold_weights(self, trained: list[Weight], frozen: list[Weight]) -> None:
        """Shares; those that are trained become one tensor, by way of the host (runtime/zero/utils.py:215)."""
        with briefly(self.books.host, "weights", self.item * self.share):
            pass
        self.books.device.open("weights", sum(map(self.shares.share, (*trained, *frozen))))

    def _sub_groups(self, group: list[nn.Parameter]) -> list[list[int]]:
        """Elements of shares that are updated at once: cut as soon as they are enough (:1210)."""
        limit = int(self.zero["sub_group_size"])
        parts: list[list[int]] = [[]]
        for parameter in group:
            if sum(parts[-1]) >= limit:
                parts.append([])
            parts[-1].append(self.shares.elements(self.weights[id(parameter)]))
        return parts

    def make_masters(self) -> None:
        """Cast, and cloned (:1170)."""
        for part in self.sub_groups:
            with briefly(self.books.device, "optimizer", FLOAT * sum(part) if self.item != FLOAT else 0):
                self.books.device.open("optimizer", FLOAT * sum(part))

    def make_sums(self) -> None:
        """The flat gradients that stay (:791)."""
        self.books.device.open("gradients", self.summed * self.share)

    def make_states(self) -> None:
        """Zero gradients of the largest sub-group, which go again (:1306)."""
        with briefly(self.books.device, "optimizer", FLOAT * max(map(sum, self.sub_groups))):
            pass

    @property
    def states_at(self) -> Ledger | None:
        """Where the optimizer's state is kept, which it makes in its first step."""
        return self.books.device

    def _coordinate(self, model: TrainedModel) -> Coordinator:
        zero = self.zero
        limits = Limits(
            prefetch=int(zero["stage3_prefetch_bucket_size"]),
            live=int(zero["stage3_max_live_parameters"]),
            reuse=int(zero["stage3_max_reuse_distance"]),
        )
        own = {
            module: [self.weights[id(one)] for one in module.parameters(recurse=False)] for module in model.modules()
        }
        inside = {
            module: [self.weights[id(one)] for child in module.children() for one in child.parameters()]
            for module in model.modules()
        }
        units = (
            frozenset(chain.from_iterable(model.stacks)) if gathers_blocks(self.spec.strategy.offload) else frozenset()
        )
        coordinator = Coordinator(own, self.gathered, limits, inside, units)
        hook_modules(model, coordinator, self.weights, self.gathered)
        return coordinator

    def take_gradient(self, parameter: Tensor) -> None:
        """`reduce_independent_p_g_buckets_and_remove_grads` (:1569) and `__add_grad_to_ipg_bucket` (:1621)."""
        size = parameter.numel()
        if self.filled and self.filled + size > self.bucket:
            self._reduce()
        parameter.grad = None
        if self.filled + size > self.bucket:
            self.apart.append(self.books.device.open("gathered", self.item * size))
        self.filling.append(parameter)
        self.filled += size

    def _reduce(self) -> None:
        """`__avg_scatter_grads` (:1912), then `partition_grads` (:2006)."""
        weights = [self.weights[id(one)] for one in self.filling]
        device, ranks = self.books.device, self.ranks
        shares = sum(map(self.shares.elements, weights))
        whole = len(weights) == 1 and weights[0].elements % ranks == 0  # runtime/comm/coalesced_collectives.py:99
        sent = self.sent * self.filled if self.sent != self.item else 0
        joined = device.open("buckets", sent + (0 if whole else self.sent * shares * ranks))
        cast = device.open("buckets", self.summed * shares if self.sent != self.summed else 0)
        if self.sent != self.summed:  # else shares are views of what was joined
            joined.close()
        for weight in weights:
            self.share_out(weight)
        joined.close()
        cast.close()
        for account in self.apart:
            account.close()
        self.filling, self.filled, self.apart = [], 0, []

    def share_out(self, weight: Weight) -> None:
        """A rank's share of a gradient goes into the flat one."""

    def micro_step_done(self) -> None:
        """The rest is reduced (:1407), and what no gradient came back into is dropped (:3059)."""
        if self.filling:
            self._reduce()
        self.coordinator.leave_the_rest()

    def step(self) -> None:
        """Weights are dropped, the norm is taken, sub-groups are updated, persistent weights are gathered (:2873)."""
        self.coordinator.drop_all(self.weights.values())
        self.check()
        for part in self.sub_groups:
            if self.states_at is not None and not self.stepped:
                self.states_at.open("optimizer", kept(self.spec, sum(part)))
            self.update_part(part)
        self.stepped = True
        self.forget_seconds()
        for weight in self.weights.values():
            if weight.persistent and weight.status is Status.ABSENT:
                self.gather_again(weight)

    def check(self) -> None:
        """Overflow under float16, of all at once (:3009), and norms in float64, one by one (:2419)."""
        device = self.books.device
        if self.spec.precision == "fp16":
            with briefly(device, "other", (self.summed + 1) * self.share):
                pass
        with briefly(device, "other", DOUBLE * max(max(part) for part in self.sub_groups)):
            pass

    def update_part(self, part: list[int]) -> None:
        """Its gradients are joined and cast (:2683)."""
        device, size = self.books.device, sum(part)
        joined = device.open("other", self.summed * size if len(part) > 1 else 0)
        gradient = device.open("other", FLOAT * size if self.summed != FLOAT else 0)
        if self.summed != FLOAT:
            joined.close()
        with briefly(device, "other", self.update(size)):
            pass
        joined.close()
        gradient.close()

    def forget_seconds(self) -> None:
        """ZeRO++ has more to do."""

    def gather_again(self, weight: Weight) -> None:
        """`_allgather_params_coalesced` (runtime/zero/partition_parameters.py:2022)."""
        if self.ranks == 1 and not self.shares.copied:
            self.gathered.keep(weight, self.books.device.open("gathered", 0))
        else:
            self.gathered.at_once(weight)


class ZeroPlusPlus(Zero3):
    """ZeRO-3 that gathers int8, and in backward within the host (zerofit.train.zero.ZeroPlusPlus)."""

    def make_gathered(self) -> Gathered:
        self.int8 = GatheredInt8(
            self.books.device, self.shares, int(self.zero["zero_hpz_partition_size"]), self.weights_at
        )
        return self.int8

    def hold_weights(self, trained: list[Weight], frozen: list[Weight]) -> None:
        super().hold_weights(trained, frozen)
        for weight in (*trained, *frozen):
            self.int8.add_second(weight)

    def forget_seconds(self) -> None:
        """Of what was trained (:755)."""
        self.int8.forget(weight for weight in self.weights.values() if weight.trained)
