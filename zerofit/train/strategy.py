"""Which engine a strategy has. `engine_for(spec)` is the one place where a strategy's name is looked at."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from zerofit.models.placement import Placement, WholePlacement
from zerofit.plan.spec import RunSpec
from zerofit.train.engine import Engine, expect, inner, stored
from zerofit.train.fsdp2 import FullyShard
from zerofit.train.restoring import restore_tensors
from zerofit.train.rollout_weights import cast
from zerofit.train.state import TrainingState
from zerofit.train.zero import Zero, ZeroPlusPlus

if TYPE_CHECKING:
    from accelerate import Accelerator


AUTOCAST = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""By accelerate's `mixed_precision`."""


class Replicated(Engine):
    """single and ddp: whole float32 weights on every rank, autocast for lower precisions."""

    def arguments(self) -> dict[str, Any]:
        return {"bf16": self.spec.precision == "bf16", "fp16": self.spec.precision == "fp16"}

    def placement(self) -> Placement:
        return WholePlacement(self.device, torch.float32)

    def autocast(self) -> AbstractContextManager[Any]:
        low = self.compute_dtype != torch.float32
        return torch.autocast(self.device.type, self.compute_dtype, enabled=low)

    def autocast_dtype(self) -> torch.dtype:
        from accelerate.state import AcceleratorState

        return AUTOCAST[AcceleratorState().mixed_precision]

    def unwrapped(self, wrapped: nn.Module) -> nn.Module:
        return wrapped.module if isinstance(wrapped, DistributedDataParallel) else wrapped

    def whole(self, model: nn.Module) -> AbstractContextManager[None]:
        return cast(model, self.compute_dtype) if self.compute_dtype != torch.float32 else nullcontext()

    def adopt(self, accelerator: Accelerator) -> None:
        from accelerate.state import PartialState
        from accelerate.utils import DistributedType

        assert accelerator.ddp_handler is not None, "Trainer gives one"
        accelerator.ddp_handler.gradient_as_bucket_view = True  # else each gradient lies in its bucket and beside it
        if dist.get_world_size() == 1:  # accelerate would wrap one rank in DDP, too
            accelerator.state.distributed_type = DistributedType.NO
            PartialState._shared_state["distributed_type"] = DistributedType.NO  # setting up autocast reads this one

    def verify(self, wrapped: nn.Module, optimizer: Any) -> None:
        parallel = isinstance(wrapped, DistributedDataParallel)
        wanted = dist.get_world_size() > 1
        expect(parallel == wanted, self.strategy.name, f"the model is {type(wrapped).__name__}")
        plain = all(type(parameter.data) is Tensor for parameter in wrapped.parameters())
        expect(plain, self.strategy.name, "its parameters are not plain tensors")
        self.expect_optimizer(inner(optimizer))

    def begin(self, wrapped: nn.Module) -> None:
        # Gradients that are None after a step lie beside their buckets until its last micro-batch: better zeros. Where
        # the first is the last, None: as the second step begins all buckets are made anew, in the order in which
        # gradients came, and gradients would keep the old ones until then.
        if isinstance(wrapped, DistributedDataParallel) and self.spec.batches.accumulation > 1:
            wrapped.zero_grad = partial(wrapped.zero_grad, set_to_none=False)  # type: ignore[method-assign]

    def restore(self, model: nn.Module, wrapped: nn.Module, optimizer: Any, state: TrainingState) -> None:
        def copy(parameter: Tensor, whole: Tensor) -> Tensor:
            return whole.to(parameter.device, copy=True)

        restore_tensors(model, inner(optimizer), state, copy)

    def whole_weights(self, wrapped: nn.Module) -> dict[str, Tensor] | None:
        return stored(self.unwrapped(wrapped))


ENGINES: dict[str, type[Engine]] = {
    "single": Replicated,
    "ddp": Replicated,
    "fsdp2": FullyShard,
    "zero1": Zero,
    "zero2": Zero,
    "zero3": Zero,
    "zeropp": ZeroPlusPlus,
}


def engine_for(spec: RunSpec, device: torch.device) -> Engine:
    """The engine of the recipe's strategy."""
    return ENGINES[spec.strategy.name](spec, device)


class WholeLow(Engine):
    """Evaluation alone: whole weights in the compute dtype, as ZeRO-1/2 hold them."""

    def arguments(self) -> dict[str, Any]:
        raise AssertionError("this engine does not train")

    def placement(self) -> Placement:
        return WholePlacement(self.device, self.compute_dtype)

    def verify(self, wrapped: nn.Module, optimizer: Any) -> None:
        raise AssertionError("this engine does not train")

    def restore(self, model: nn.Module, wrapped: nn.Module, optimizer: Any, state: TrainingState) -> None:
        raise AssertionError("this engine does not train")

    def whole_weights(self, wrapped: nn.Module) -> dict[str, Tensor] | None:
        raise AssertionError("this engine does not train")


EVALUATION: dict[str, type[Engine]] = {
    "single": Replicated,
    "ddp": Replicated,
    "fsdp2": FullyShard,
    "zero1": WholeLow,
    "zero2": WholeLow,
    "zero3": FullyShard,
    "zeropp": FullyShard,
}


def evaluation_engine(spec: RunSpec, device: torch.device) -> Engine:
    """How the run's model is held to be evaluated: whole where training held it whole, else sharded."""
    return EVALUATION[spec.strategy.name](spec, device)
