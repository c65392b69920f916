"""What an engine is: how weights are placed, what Trainer is told, and proof that it is what runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from zerofit.models.placement import Placement
from zerofit.models.quantised import scale_tensors
from zerofit.plan.fused import is_fused
from zerofit.plan.spec import RunSpec
from zerofit.train.deferred import Deferred
from zerofit.train.holdings import state_tensors, tensors_in
from zerofit.train.optimizers import OPTIMIZERS
from zerofit.train.rollout_weights import plain
from zerofit.train.state import TrainingState
from zerofit.train.writes import Write

if TYPE_CHECKING:
    from accelerate import Accelerator

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
WEIGHTS = "model.safetensors"


class WrongEngine(RuntimeError):
    """The engine that runs is not the one that the strategy names."""


def expect(holds: bool, strategy: str, what: str) -> None:
    """Raise WrongEngine unless `holds`."""
    if not holds:
        raise WrongEngine(f"strategy {strategy} was asked for, but {what}")


class Engine(ABC):
    """One way of spreading a model over the ranks. `spec` is the run's; `device` this rank's."""

    flat_sharded = False
    """Whether optimizers are handed flat shards of whole groups of parameters, as float32 copies."""

    def __init__(self, spec: RunSpec, device: torch.device) -> None:
        self.spec, self.device = spec, device
        self.strategy = spec.strategy
        self.compute_dtype = DTYPES[spec.precision]

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """This engine's part of TrainingArguments."""

    @abstractmethod
    def placement(self) -> Placement:
        """How weights come into being."""

    @abstractmethod
    def verify(self, wrapped: nn.Module, optimizer: Any) -> None:
        """Raise WrongEngine unless `wrapped` and `optimizer`, as prepared for training, are of this engine."""

    def adopt(self, accelerator: Accelerator) -> None:
        """Adjust accelerate, right after Trainer made it, before it prepares anything."""

    def save_a_part(self, wrapped: nn.Module) -> None:
        """Make checkpoints hold trained parameters alone, where the model's own state dict does not decide."""

    def begin(self, wrapped: nn.Module) -> None:
        """Adjust the prepared engine, before the first step."""

    @abstractmethod
    def restore(self, model: nn.Module, wrapped: nn.Module, optimizer: Any, state: TrainingState) -> None:
        """Put `state` in the place of the weights and of what the optimizer keeps; both as prepared. Collective."""

    def stand_at(self, wrapped: nn.Module, step: int) -> None:
        """Make the engine count on from `step` optimizer steps, after `restore`."""

    def settle(self, wrapped: nn.Module) -> None:
        """Bring weights to rest after forwards that no backward followed."""

    def take_writes(self, wrapped: nn.Module, add: Callable[[Write, Any, Path], None], deferred: Deferred) -> None:
        """Have the engine's own large files written by way of `add` (`Writes.add`).

        Errors are kept in `deferred` where peers would wait for a rank that raises.
        """

    @abstractmethod
    def whole_weights(self, wrapped: nn.Module) -> dict[str, Tensor] | None:
        """Every stored weight and buffer, contiguous and whole, on rank 0; null on the others. Collective."""

    def complete(self, wrapped: nn.Module, directory: Path) -> None:
        """Add to a checkpoint what the engine has not written. By rank 0."""

    def weight_copies(self) -> int:
        """How often a checkpoint holds the weights as the model does."""
        return 1

    def shape_of(self, parameter: Tensor) -> torch.Size:
        """Shape of a whole parameter, as placed."""
        return parameter.shape

    def expect_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Raise WrongEngine unless `optimizer`, out of all wrappers, is the recipe's."""
        kind = OPTIMIZERS[self.spec.recipe.optimizer.name]
        what = f"the optimizer is {type(optimizer).__name__}, not {kind.__name__}"
        expect(type(optimizer) is kind, self.strategy.name, what)
        fused, wanted = optimizer.defaults.get("fused"), is_fused(self.spec, self.device.type)
        others = [group for group in optimizer.param_groups if bool(group.get("fused")) != wanted]
        expect(bool(fused) == wanted and not others, self.strategy.name, f"the optimizer says that fused is {fused}")

    @property
    def held_dtype(self) -> torch.dtype:
        """Of the parameters that the model trains."""
        return torch.float32

    def autocast_dtype(self) -> torch.dtype:
        """What the prepared forward pass of training computes in."""
        return self.compute_dtype

    def masters(self, wrapped: nn.Module, optimizer: Any) -> Iterator[Tensor]:
        """What the optimizer's steps change, as prepared for training."""
        yield from (parameter for group in inner(optimizer).param_groups for parameter in group["params"])

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of forwards outside training."""
        return nullcontext()

    @contextmanager
    def rollout(self, wrapped: nn.Module) -> Iterator[Any]:
        """The plain model, to generate with: whole on this rank's device, in evaluation mode, without gradients.

        Weights are gathered once, at the start, and sharded again at the end; between, no forward communicates.
        Collective. Works on what `placement` has made, too, before anything is prepared.
        """
        model = self.unwrapped(wrapped)
        with plain(model), self.whole(model), self.autocast():
            yield model

    def unwrapped(self, wrapped: nn.Module) -> nn.Module:
        """The model without what the engine has put around it."""
        return wrapped

    def whole(self, model: nn.Module) -> AbstractContextManager[None]:
        """The context in which weights are whole, in the dtype of forwards. Collective."""
        return nullcontext()

    def local_tensors(self, model: nn.Module) -> Iterator[Tensor]:
        """What this rank holds of every parameter."""
        yield from (parameter.detach() for parameter in model.parameters())

    def holdings(self, model: nn.Module, wrapped: nn.Module, optimizer: Any) -> dict[str, Iterator[Tensor]]:
        """What this rank holds of each kind, before or after the optimizer's step: `holdings.KINDS`, in order."""
        return {
            "weights": chain(self.local_tensors(model), scale_tensors(model)),
            "gradients": tensors_in([parameter.grad for parameter in model.parameters()]),
            "optimizer": state_tensors(inner(optimizer)),
        }

    def around_step(
        self, wrapped: nn.Module, optimizer: Any, before: Callable[[], None], after: Callable[[], None]
    ) -> None:
        """Have `before` and `after` called around every step of the optimizer, both as prepared."""
        stepping = inner(optimizer)
        stepping.register_step_pre_hook(lambda *_: before())
        stepping.register_step_post_hook(lambda *_: after())


def inner(optimizer: Any) -> torch.optim.Optimizer:
    """The optimizer that accelerate may have wrapped."""
    from accelerate.optimizer import AcceleratedOptimizer

    return optimizer.optimizer if isinstance(optimizer, AcceleratedOptimizer) else optimizer


def stored(model: nn.Module) -> dict[str, Tensor] | None:
    """`Engine.whole_weights` of a model that every rank holds whole."""
    if dist.get_rank() > 0:
        return None
    return {name: value.detach().contiguous() for name, value in model.state_dict().items()}
