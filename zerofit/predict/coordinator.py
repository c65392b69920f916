"""Which weights ZeRO-3 has gathered when: DeepSpeed 0.19.8's PartitionedParameterCoordinator, replayed.

A unit (DeepSpeed's leaf module) is fetched with all that is within, and what is within is not fetched by itself. It
learns the order of modules in the first forward and backward pass, and prefetches and keeps weights by it from then
on. File:line are of runtime/zero/partitioned_param_coordinator.py.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import accumulate
from typing import Protocol

import torch
from torch import nn


class Status(Enum):
    """Of a whole weight."""

    ABSENT = 1
    COMING = 2
    HERE = 3


class Trace(Enum):
    """Whether the order of modules is known (:53)."""

    UNKNOWN = 1
    LEARNING = 2
    KNOWN = 3


@dataclass(eq=False)
class Weight:
    """A parameter, cut over the ranks."""

    number: int
    elements: int
    trained: bool
    persistent: bool
    """Small enough to be kept whole from its first use to the optimizer's step."""
    adapter: bool = False
    """One of LoRA's."""
    status: Status = Status.ABSENT
    users: set[int] = field(default_factory=set)
    """Modules in whose pass it is."""


class Handle(Protocol):
    """Weights on their way."""

    def arrive(self) -> None:
        """All are here; calling it again does nothing."""

    def let_go(self, weight: Weight) -> None:
        """It is asked for by nobody any more; with the last, what they came in is freed."""


class Gathering(Protocol):
    """What weights are gathered into, and dropped from."""

    def start(self, weights: list[Weight]) -> dict[Weight, Handle]:
        """Begin with absent ones: what each comes in."""

    def drop(self, weight: Weight) -> None:
        """Free a whole one."""


@dataclass(frozen=True)
class Limits:
    """Elements."""

    prefetch: int
    live: int
    reuse: int


class Distances:
    """How far apart the uses of weights are, in elements of other weights, by those that each step is said to need."""

    def __init__(self, steps: Sequence[Sequence[Weight]]) -> None:
        self._passed = [0, *accumulate(sum(weight.elements for weight in weights) for weights in steps)]
        self._steps: dict[Weight, list[int]] = defaultdict(list)
        for step, weights in enumerate(steps):
            for weight in weights:
                self._steps[weight].append(step)

    def near(self, weight: Weight, step: int, distance: int) -> bool:
        """Whether it is needed from `step` on, before others of so many elements are."""
        steps = self._steps[weight]
        place = bisect_left(steps, step)
        return place < len(steps) and steps[place] < bisect_left(self._passed, self._passed[step] + distance)


class Coordinator:
    """Gathers and drops weights, as modules begin and end.

    `weights_of`: of each module those of its own, to which others are added that its forward was seen to use.
    `inside`: those of modules within. `units`: modules that need both.
    """

    def __init__(
        self,
        weights_of: dict[nn.Module, list[Weight]],
        gathering: Gathering,
        limits: Limits,
        inside: Mapping[nn.Module, Sequence[Weight]] | None = None,
        units: frozenset[nn.Module] = frozenset(),
    ) -> None:
        self.weights_of, self.gathering, self.limits = weights_of, gathering, limits
        self.inside, self.units = inside or {}, units
        self.trace = Trace.UNKNOWN
        self._step = 0
        self._modules: list[nn.Module] = []
        self._order: list[tuple[Weight, int]] = []
        self._by_own = self._by_all = Distances(())
        self._queue: deque[tuple[Weight, int]] = deque()
        self._fetched_for: dict[Weight, int] = defaultdict(lambda: -1)
        self._coming: dict[Weight, Handle] = {}
        self._live = 0
        self._releases: dict[tuple[nn.Module, int], set[Weight]] = {}
        self._in_backward: dict[nn.Module, None] = {}
        self._recomputed: dict[nn.Module, set[Weight]] = defaultdict(set)

    def begin(self) -> None:
        """`reset_step` (:251), before each forward pass."""
        self._clean()
        if self.trace is Trace.LEARNING:
            self._order = [
                (weight, step)
                for step, module in enumerate(self._modules)
                for weight in sorted(set(self.needed(module)), key=lambda one: one.number)
            ]
            self._by_own = Distances([self.weights_of[module] for module in self._modules])
            self._by_all = Distances([self._all(module) for module in self._modules])
            self.trace = Trace.KNOWN
        elif self.trace is Trace.UNKNOWN:
            self.trace = Trace.LEARNING
        self._queue = deque(self._order)
        self._fetched_for.clear()
        self._step = self._live = 0

    def needed(self, module: nn.Module) -> list[Weight]:
        """What is fetched for it."""
        return self._all(module) if module in self.units else self.weights_of[module]

    def _all(self, module: nn.Module) -> list[Weight]:
        """Its own and those of modules within, each once."""
        return list(dict.fromkeys((*self.weights_of[module], *self.inside.get(module, ()))))

    def fetch(self, module: nn.Module, *, forward: bool) -> None:
        """Before a module's forward or backward pass (:310): gather what it needs, and begin with what comes next."""
        self._follow(module)
        if not forward:
            self._in_backward[module] = None
        weights = list(dict.fromkeys(self.needed(module)))
        self._gather(weights)
        recomputing = forward and torch._C._current_graph_task_id() != -1
        for weight in weights:
            weight.users.add(id(module))
            if recomputing and self._in_backward and not weight.trained:  # else no backward hook would drop it (:387)
                owner = next(reversed(self._in_backward))
                self._recomputed[owner].add(weight)
                weight.users.add(id(owner))
        self._await(weights)
        if self.trace is Trace.KNOWN:
            self._prefetch(weights)
        self._step += 1

    def _follow(self, module: nn.Module) -> None:
        """`trace_prologue` and `record_module` (:202, :222): one that comes in another order makes it learn again."""
        if self.trace is Trace.KNOWN and (len(self._modules) <= self._step or self._modules[self._step] is not module):
            self.trace = Trace.UNKNOWN
            self._modules, self._order = [], []
            self._queue.clear()
            self._fetched_for.clear()
            self._clean()
        if self.trace is Trace.LEARNING:
            self._modules.append(module)

    def _clean(self) -> None:
        for weight in list(self._coming):
            self._await([weight])
            self._release(weight)

    def _gather(self, weights: Iterable[Weight]) -> None:
        absent = [weight for weight in weights if weight.status is Status.ABSENT]
        if absent:
            self._live += sum(weight.elements for weight in absent)
            self._coming.update(self.gathering.start(absent))

    def _await(self, weights: list[Weight]) -> None:
        """In the order of a set, by addresses: several gathers are taken to be mixed, and let go of at the end."""
        coming = {weight: self._coming.pop(weight) for weight in weights if weight in self._coming}
        for handle in coming.values():
            handle.arrive()
        for weight, handle in coming.items():
            handle.let_go(weight)

    def _prefetch(self, weights: list[Weight]) -> None:
        """What comes next in the order, up to a bucket (:418)."""
        wanted = {weight for weight in weights if self._fetched_for[weight] < self._step}
        passed: set[Weight] = set()
        while self._queue and len(passed) < len(wanted):
            weight, step = self._queue.popleft()
            self._fetched_for[weight] = step
            passed.add(weight)
        assert passed == wanted, "modules came in another order than they were learnt in"
        room = min(self.limits.live - self._live, self.limits.prefetch)
        chosen: dict[Weight, None] = {}
        size = 0
        while self._queue and size < room:
            weight, step = self._queue.popleft()
            self._fetched_for[weight] = max(self._fetched_for[weight], step)
            if weight.status is Status.ABSENT and weight not in chosen:
                chosen[weight] = None
                size += weight.elements
        self._gather(chosen)

    def leave(self, module: nn.Module, *, forward: bool) -> None:
        """`release_sub_module` (:494), after a module's forward or backward pass."""
        mine = set(self.needed(module))
        going = self._going(module) if self.trace is Trace.KNOWN else set(mine)
        if not forward:
            again = self._recomputed.pop(module, set())
            going.update(weight for weight in again if not weight.persistent)
            mine |= again
            self._in_backward.pop(module, None)
        for weight in mine:
            weight.users.discard(id(module))
            if weight in going:
                self._release(weight)

    def _going(self, module: nn.Module) -> set[Weight]:
        """Of a module's weights those that are not needed again soon (:634); worked out once for each step.

        For a unit, later modules are looked at with all that is within, the whole model where its backward pass begins;
        for others, later units are not looked into (`recurse=z3_leaf_module(submodule_to_release)`, :660).
        """
        known = self._releases.get((module, self._step))
        if known is not None:
            return known
        going = {one for one in self.needed(module) if not one.persistent}
        going -= {one for one in going if self._fetched_for[one] > self._step}
        distances = self._by_all if module in self.units else self._by_own
        going -= {one for one in going if distances.near(one, self._step, self.limits.reuse)}
        self._releases[module, self._step] = going
        return going

    def _release(self, weight: Weight) -> None:
        if weight.status is Status.HERE and not weight.users:
            self.gathering.drop(weight)
            self._live -= weight.elements

    def leave_the_rest(self) -> None:
        """Modules into which no gradient came back, so that their backward pass never ended (:554)."""
        while self._in_backward:
            module, _ = self._in_backward.popitem()
            for weight in {*self.needed(module), *self._recomputed.pop(module, set())}:
                weight.users.discard(id(module))
                if not weight.persistent:
                    self._release(weight)

    def drop_all(self, weights: Iterable[Weight]) -> None:
        """`release_and_reset_all` (:537), before the optimizer's step."""
        for weight in weights:
            self._await([weight])
            weight.users.clear()
            self._release(weight)
