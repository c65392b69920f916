"""FSDP2, replayed after torch 2.13's `fully_shard` as zerofit.train.placements.ShardedPlacement calls it.

File:line are of torch/distributed/fsdp/_fully_shard/_fsdp_param_group.py, unless another file there is named. Streams
that run beside one another are as if each waited: a tensor is counted for as long as Python holds it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Variable

from zerofit.models.trained import TrainedModel
from zerofit.plan.spec import RunSpec
from zerofit.predict.fsdp2_group import Group, Policy, Running
from zerofit.predict.host import page_locked
from zerofit.predict.passing import over_all
from zerofit.predict.replay import Books, Replay
from zerofit.predict.sizes import written
from zerofit.predict.updating import FLOAT, kept, made, optimizer_groups
from zerofit.predict.zero_base import briefly, scale_bytes
from zerofit.train.engine import DTYPES


class FullyShard(Replay):
    """Each block, and what is around them, is a group; float32 shards, gradients scattered in float32."""

    def __init__(self, spec: RunSpec, books: Books) -> None:
        super().__init__(spec, books)
        offload = spec.strategy.offload
        self.offloads = offload.params is not None
        self.on_cuda = spec.hardware.device == "cuda"
        self.pins = self.offloads and offload.pin_memory and self.on_cuda

    def held(self) -> torch.dtype:
        """Weights are cast for use."""
        return DTYPES[self.spec.precision]

    def attach(self, model: TrainedModel) -> None:
        device, spec = self.books.device, self.spec
        frozen = FLOAT if model.frozen_dtype is None else model.frozen_dtype.itemsize
        self.policy = Policy(spec.batches.ranks, DTYPES[spec.precision], frozen, self.offloads and self.on_cuda)
        units: list[nn.Module] = [*chain.from_iterable(model.stacks), model]
        taken: set[int] = set()
        self.running = Running()
        self.groups: dict[nn.Module, Group] = {}
        for unit in units:
            own = [one for one in unit.parameters() if id(one) not in taken]
            taken.update(map(id, own))
            self.groups[unit] = Group(own, self.policy, device, self.running, root=unit is model)
        self.shards = {id(one): self.policy.shard(one) for group in self.groups.values() for one in group.parameters}
        self.updated = [[self.shards[id(one)] for one in group] for group in optimizer_groups(model, spec)]
        device.open("weights", scale_bytes(model))
        self._hold_shards(model)
        keep = self.books.host if self.offloads else device
        keep.open("optimizer", sum(kept(self.spec, sum(group)) for group in self.updated))
        for unit, group in self.groups.items():
            self._hook(unit, group)

    def _hold_shards(self, model: TrainedModel) -> None:
        """Each whole weight is written from a value on the device, and a shard of it copied."""
        parameters = list(model.parameters())
        whole = max(self.policy.stored(one) * (one.numel() + self.shards[id(one)]) for one in parameters)
        with briefly(self.books.device, "other", max(whole, written(model, fresh=self.spec.origin is None))):
            pass
        sizes = [self.policy.stored(one) * self.shards[id(one)] for one in parameters]
        if not self.offloads:
            self.books.device.open("weights", sum(sizes))
        else:  # page-locked one by one (_fsdp_param.py, `reset_sharded_param`)
            self.books.host.open("weights", sum(map(page_locked, sizes)) if self.pins else sum(sizes))

    def _hook(self, unit: nn.Module, group: Group) -> None:
        """`_pre_forward` and `_post_forward` (_fsdp_state.py:290, :322)."""

        def before(_: nn.Module, arguments: Any, options: Any) -> Any:
            arguments, options = over_all(self.policy.cast, (arguments, options))
            group.enter_forward()
            if torch.is_grad_enabled():
                arguments, options = self._watch_inputs(group, arguments, options)
            return arguments, options

        def after(_: nn.Module, __: Any, output: Any) -> Any:
            group.leave_forward()
            if torch.is_grad_enabled():
                over_all(self._watch_output(group), output)
            return output

        unit.register_forward_pre_hook(before, prepend=True, with_kwargs=True)
        unit.register_forward_hook(after)
        for parameter in group.parameters:
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(group.take_gradient)

    def _watch_inputs(self, group: Group, arguments: Any, options: Any) -> Any:
        """All inputs with gradients pass one function (`_register_post_backward_hook`, :891)."""
        inputs: list[Tensor] = []

        def collect(tensor: Tensor) -> Tensor:
            if tensor.requires_grad:
                inputs.append(tensor)
            return tensor

        over_all(collect, (arguments, options))
        if not inputs:
            return arguments, options
        passed = iter(Leaving.apply(lambda: self._leave_backward(group), *inputs))
        return over_all(lambda one: next(passed) if one.requires_grad else one, (arguments, options))

    def _watch_output(self, group: Group) -> Callable[[Tensor], Tensor]:
        def enter(_: Tensor) -> None:
            if not self.running.finishing:
                self.running.finishing = True
                Variable._execution_engine.queue_callback(self._finish_backward)
            group.enter_backward()

        def watch(tensor: Tensor) -> Tensor:
            if tensor.requires_grad:
                tensor.register_hook(enter)
            return tensor

        return watch

    def _leave_backward(self, group: Group) -> None:
        host = self.books.host
        for size in group.leave_backward():
            host.open("gradients", page_locked(size) if self.pins else size)

    def _finish_backward(self) -> None:
        """`_root_post_backward_final_callback` (_fsdp_state.py:395): one after the other, the root first."""
        *blocks, root = self.groups.values()
        for group in (root, *blocks):
            if group.in_backward or group.given:
                self._leave_backward(group)
            group.end()
        self.running.end()

    def micro_step_done(self) -> None:
        """Gradients are scattered after every micro-batch; a second one is added to the first."""

    def step(self) -> None:
        """AdamW on float32 shards; then gradients go."""
        at = self.books.host if self.offloads else self.books.device
        on_cuda = self.on_cuda and not self.offloads
        with briefly(at, "other", max(made(self.spec, group, on_cuda=on_cuda) for group in self.updated)):
            pass
        for group in self.groups.values():
            group.forget_gradients()


class Leaving(torch.autograd.Function):
    """The same tensors; backward calls `then` before their gradients go on (`RegisterPostBackwardFunction`, :1110)."""

    @staticmethod
    def forward(ctx: Any, then: Callable[[], None], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.then = then
        return tensors

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        ctx.then()
        return (None, *gradients)
