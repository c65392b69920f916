"""A group of parameters that FSDP2 gathers and reduces together. File:line as in fsdp2.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from zerofit.predict.ledger import Account, Ledger
from zerofit.predict.updating import FLOAT
from zerofit.predict.zero_base import briefly


@dataclass(frozen=True)
class Policy:
    """How parameters are cut and cast."""

    ranks: int
    compute: torch.dtype
    frozen: int
    """Bytes of an element of what is frozen, as it is sharded."""
    offloaded: bool
    """Whether shards lie elsewhere than where they are used."""

    def shard(self, parameter: Tensor) -> int:
        """Elements of the first rank's shard, to which all are padded: whole rows (_fsdp_param.py:304)."""
        if not parameter.dim():
            return 1
        rows = parameter.shape[0]
        return -(-rows // self.ranks) * (parameter.numel() // max(rows, 1))

    def stored(self, parameter: Tensor) -> int:
        """Bytes of an element as it is sharded."""
        return FLOAT if parameter.requires_grad else self.frozen

    def cast(self, tensor: Tensor) -> Tensor:
        """Inputs, into what is computed with (_fsdp_state.py:346)."""
        return tensor.to(self.compute) if tensor.is_floating_point() else tensor


@dataclass
class Running:
    """What groups share."""

    order: list[Group] = field(default_factory=list)
    """In the order in which their forward passes ended."""
    last_gathered: Account | None = None
    """What the last group was gathered into, in forward, kept until the next one is (:483)."""
    scattered: list[Account] = field(default_factory=list)
    """Inputs of reduce-scatters: the last one stays (:717)."""
    finishing: bool = False
    """Whether the end of the backward pass is waited for."""

    def free_gathered(self) -> None:
        """If it is there."""
        if self.last_gathered is not None:
            self.last_gathered.close()
            self.last_gathered = None

    def free_scattered(self) -> None:
        """All of them."""
        for account in self.scattered:
            account.close()
        self.scattered = []

    def end(self) -> None:
        """Of a backward pass."""
        self.free_scattered()
        self.order, self.finishing = [], False


class Group:
    """`root`: whether it stays whole between forward and backward."""

    def __init__(
        self, parameters: list[nn.Parameter], policy: Policy, device: Ledger, running: Running, *, root: bool
    ) -> None:
        self.parameters, self.policy, self.device, self.running, self.root = parameters, policy, device, running, root
        self.whole = [one.itemsize * policy.ranks * policy.shard(one) for one in parameters]
        self.places: list[int] = []
        self.gathering: Account | None = None
        """What is on its way."""
        self.here: Account | None = None
        self.given: dict[int, Account] = {}
        """Gradients of whole parameters."""
        self.kept: dict[int, int] = {}
        """Elements of shards that have a gradient."""
        self.gradients: list[Account] = []
        self.in_backward = False

    def enter_forward(self) -> None:
        """`pre_forward` (:540)."""
        self._gather()
        self._arrive(forward=True)

    def leave_forward(self) -> None:
        """`post_forward` (:557)."""
        self.places.append(len(self.running.order))
        self.running.order.append(self)
        if self.root:
            self.running.free_gathered()
        else:
            self._drop()

    def enter_backward(self) -> None:
        """`pre_backward` (:576): what comes next is gathered meanwhile (:795)."""
        if self.in_backward:
            return
        self.in_backward = True
        self._gather()
        self._arrive(forward=False)
        if self.places and (place := self.places.pop()) > 0:
            self.running.order[place - 1]._gather()

    def take_gradient(self, parameter: Tensor) -> None:
        """Kept whole until all of the group are there; in a second pass of a shared parameter added to."""
        parameter.grad = None
        if id(parameter) not in self.given:
            size = parameter.itemsize * parameter.numel()
            self.given[id(parameter)] = self.device.open("gathered", size)

    def leave_backward(self) -> Iterator[int]:
        """`post_backward` (:588), and `foreach_reduce` (_fsdp_collectives.py:522); bytes that go to the host anew."""
        self.in_backward = False
        self._drop()
        self.running.free_scattered()
        had = [one for one in self.parameters if id(one) in self.given]
        if not had:
            return
        shards = {id(one): self.policy.shard(one) for one in had}
        share = FLOAT * sum(shards.values())
        self.running.scattered.append(self.device.open("buckets", self.policy.ranks * share))
        for account in self.given.values():
            account.close()
        self.given = {}
        result = self.device.open("gradients", share)
        new = {key: size for key, size in shards.items() if key not in self.kept}
        self.kept.update(new)
        if self.policy.offloaded:
            result.close()
            yield from (FLOAT * size for size in new.values())
        elif new:
            self.gradients.append(result)
        else:  # added to those of the micro-batches before
            result.close()

    def _gather(self) -> None:
        """`unshard` (:372): shards are cast beside one another, and sent into one tensor. One rank sends nothing."""
        if self.gathering is not None or self.here is not None:
            return
        total = sum(self.whole)
        if self.policy.ranks == 1:
            self.gathering = self.device.open("gathered", 0)
            return
        with briefly(self.device, "gathered", self._casts()):
            self.gathering = self.device.open("gathered", total)

    def _casts(self) -> int:
        """Copies of shards: in what is computed with, and one by one as they come from the host."""
        policy = self.policy
        low = [one for one in self.parameters if policy.stored(one) != one.itemsize]
        copied = self.parameters if policy.offloaded else low
        coming = max((policy.stored(one) * policy.shard(one) for one in low), default=0) if policy.offloaded else 0
        return coming + sum(one.itemsize * policy.shard(one) for one in copied)

    def _arrive(self, *, forward: bool) -> None:
        """`wait_for_unshard` (:417): whole parameters are copied out of what was gathered.

        What the last group was gathered into has a name there (:430) until that is done.
        """
        if self.gathering is None:
            return
        largest = max((size // self.policy.ranks for size in self.whole), default=0)
        with briefly(self.device, "gathered", largest if self.policy.ranks == 1 else 0):
            self.here = self.device.open("gathered", sum(self.whole))
        if forward:
            self.running.free_gathered()
        if forward and self.policy.ranks > 1:
            self.running.last_gathered = self.gathering
        else:
            self.gathering.close()
        self.gathering = None

    def _drop(self) -> None:
        if self.here is not None:
            self.here.close()
            self.here = None

    def end(self) -> None:
        """What was gathered in vain goes (:763)."""
        if self.gathering is not None:
            self.gathering.close()
            self.gathering = None
        self.places = []

    def forget_gradients(self) -> None:
        """After the optimizer's step."""
        for account in self.gradients:
            account.close()
        self.gradients, self.kept = [], {}
