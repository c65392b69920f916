"""The engines behind a strategy: how weights are placed, what Trainer is told, and proof that it is what runs.

`engine_for(spec)` is the one place where a strategy's name is looked at.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from zerofit.config.schema import ZERO_STAGE
from zerofit.models.placement import Placement, WholePlacement
from zerofit.plan.spec import RunSpec
from zerofit.train.deferred import Deferred, in_step
from zerofit.train.optimizers import OPTIMIZERS
from zerofit.train.placements import PartitionedPlacement, ShardedPlacement
from zerofit.train.restoring import restore_tensors, restore_zero_1_2, restore_zero_3
from zerofit.train.state import TrainingState

if TYPE_CHECKING:
    from accelerate import Accelerator

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
WEIGHTS = "model.safetensors"
QUANTISED = 8
"""Elements that DeepSpeed's int8 kernels handle at once."""


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
        self.strategy = spec.recipe.strategy
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

    def settle(self, wrapped: nn.Module) -> None:
        """Bring weights to rest after forwards that no backward followed."""

    def keep_errors(self, wrapped: nn.Module, deferred: Deferred) -> None:
        """Make the engine's own writes keep their errors, where peers would wait for a rank that raises."""

    def save_weights(self, wrapped: nn.Module, directory: Path) -> None:
        """Add to a checkpoint what Trainer and the engine have not written: whole weights. Collective."""

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

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of forwards outside training."""
        return nullcontext()

    def local_tensors(self, model: nn.Module) -> Iterator[Tensor]:
        """What this rank holds of every parameter."""
        yield from (parameter.detach() for parameter in model.parameters())


class Replicated(Engine):
    """single and ddp: whole float32 weights on every rank, autocast for lower precisions."""

    def arguments(self) -> dict[str, Any]:
        return {"bf16": self.spec.precision == "bf16", "fp16": self.spec.precision == "fp16"}

    def placement(self) -> Placement:
        return WholePlacement(self.device, torch.float32)

    def autocast(self) -> AbstractContextManager[Any]:
        low = self.compute_dtype != torch.float32
        return torch.autocast(self.device.type, self.compute_dtype, enabled=low)

    def adopt(self, accelerator: Accelerator) -> None:
        from accelerate.state import PartialState
        from accelerate.utils import DistributedType

        if dist.get_world_size() == 1:  # accelerate would wrap one rank in DDP, too
            accelerator.state.distributed_type = DistributedType.NO
            PartialState._shared_state["distributed_type"] = DistributedType.NO  # setting up autocast reads this one

    def verify(self, wrapped: nn.Module, optimizer: Any) -> None:
        parallel = isinstance(wrapped, DistributedDataParallel)
        wanted = dist.get_world_size() > 1
        expect(parallel == wanted, self.strategy.name, f"the model is {type(wrapped).__name__}")
        plain = all(type(parameter.data) is Tensor for parameter in wrapped.parameters())
        expect(plain, self.strategy.name, "its parameters are not plain tensors")
        self.expect_optimizer(_inner(optimizer))

    def restore(self, model: nn.Module, wrapped: nn.Module, optimizer: Any, state: TrainingState) -> None:
        def copy(parameter: Tensor, whole: Tensor) -> Tensor:
            return whole.to(parameter.device, copy=True)

        restore_tensors(model, _inner(optimizer), state, copy)


class FullyShard(Engine):
    """fsdp2: `fully_shard` itself, on CPU as on GPUs.

    accelerate's own FSDP2 path is not used to shard: on CPU it runs DDP without a word, it upcasts by itself, and it
    finds the optimizer's parameters again by storage address, which empty shards share.
    """

    def arguments(self) -> dict[str, Any]:
        return {
            "bf16": False,  # fully_shard's own policy casts
            "fp16": self.spec.precision == "fp16",
            # Gradients are scattered after every micro-batch: whole ones would not fit.
            "accelerator_config": {"gradient_accumulation_kwargs": {"sync_each_batch": True}},
        }

    def placement(self) -> Placement:
        return ShardedPlacement(self)

    def adopt(self, accelerator: Accelerator) -> None:
        from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

        # The model comes sharded; accelerate is told so, that Trainer saves and loads it shard by shard.
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2, state_dict_type="SHARDED_STATE_DICT", cpu_ram_efficient_loading=False
        )
        accelerator.state.distributed_type = DistributedType.FSDP

        def prepare(*objects: Any, **_: Any) -> Any:
            prepared = tuple(
                accelerator.prepare_optimizer(item, device_placement=False)
                if isinstance(item, torch.optim.Optimizer)
                else item
                for item in objects
            )
            return prepared if len(prepared) > 1 else prepared[0]

        accelerator.prepare = prepare

    def verify(self, wrapped: nn.Module, optimizer: Any) -> None:
        from torch.distributed.fsdp import FSDPModule
        from torch.distributed.tensor import DTensor

        name = self.strategy.name
        expect(isinstance(wrapped, FSDPModule), name, f"the model is {type(wrapped).__name__}")
        whole = [key for key, parameter in wrapped.named_parameters() if not isinstance(parameter, DTensor)]
        expect(not whole, name, f"these parameters are not sharded: {', '.join(whole[:3])}")
        held = {id(parameter) for group in _inner(optimizer).param_groups for parameter in group["params"]}
        trained = {id(parameter) for parameter in wrapped.parameters() if parameter.requires_grad}
        expect(held == trained, name, "the optimizer holds other parameters than the model")
        self.expect_optimizer(_inner(optimizer))
        if self.strategy.offload.params:
            off = all(p.device.type == "cpu" for p in wrapped.parameters())
            expect(off, name, "its weights are not offloaded")

    def restore(self, model: nn.Module, wrapped: nn.Module, optimizer: Any, state: TrainingState) -> None:
        from torch.distributed.tensor import distribute_tensor

        def shard(parameter: Any, whole: Tensor) -> Tensor:
            mesh, placements = parameter.device_mesh, parameter.placements
            held = distribute_tensor(whole.to(mesh.device_type), mesh, placements, src_data_rank=None)  # all have it
            return held.to(parameter.device)

        restore_tensors(model, _inner(optimizer), state, shard)

    def weight_copies(self) -> int:
        return 2  # sharded and whole

    def settle(self, wrapped: nn.Module) -> None:
        from torch.distributed.fsdp import FSDPModule

        assert isinstance(wrapped, FSDPModule)
        wrapped.reshard()  # the root's own weights stay whole after a forward, for a backward that did not come

    def save_weights(self, wrapped: nn.Module, directory: Path) -> None:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights = get_model_state_dict(wrapped, options=options)
        if dist.get_rank() == 0:
            tensors = {name: value.contiguous() for name, value in weights.items() if isinstance(value, Tensor)}
            save_file(tensors, directory / WEIGHTS)

    def local_tensors(self, model: nn.Module) -> Iterator[Tensor]:
        yield from (parameter.detach().to_local() for parameter in model.parameters())  # type: ignore[attr-defined]


class Zero(Engine):
    """zero1, zero2, zero3: a DeepSpeed engine with weights in the compute dtype, float32 masters."""

    flat_sharded = True

    @property
    def stage(self) -> int:
        """ZeRO stage."""
        return ZERO_STAGE[self.strategy.name]

    def arguments(self) -> dict[str, Any]:
        low = {"bf16": self.spec.precision == "bf16", "fp16": self.spec.precision == "fp16"}
        return {"deepspeed": self.spec.model_dump(mode="json")["deepspeed"], **low}

    def placement(self) -> Placement:
        if self.stage == 3:
            return PartitionedPlacement(self)
        return WholePlacement(self.device, self.compute_dtype)

    def weight_copies(self) -> int:
        return 1 if self.stage == 3 else 2

    def shape_of(self, parameter: Tensor) -> torch.Size:
        if self.stage < 3:
            return parameter.shape
        shape: torch.Size = parameter.ds_shape  # type: ignore[attr-defined]
        return shape

    def verify(self, wrapped: nn.Module, optimizer: Any) -> None:
        from deepspeed import DeepSpeedEngine
        from deepspeed.runtime.bf16_optimizer import BF16_Optimizer
        from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
        from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

        name = self.strategy.name
        if not isinstance(wrapped, DeepSpeedEngine):
            raise WrongEngine(f"strategy {name} was asked for, but the model is {type(wrapped).__name__}")
        stage = wrapped.zero_optimization_stage()
        expect(stage == self.stage, name, f"DeepSpeed runs ZeRO stage {stage}")
        # BF16_Optimizer is ZeRO-1 for bf16 weights whose gradients are accumulated in float32.
        kinds = {1: (DeepSpeedZeroOptimizer, BF16_Optimizer), 2: (DeepSpeedZeroOptimizer,)}
        kind = kinds.get(self.stage, (DeepSpeedZeroOptimizer_Stage3,))
        expect(isinstance(wrapped.optimizer, kind), name, f"the optimizer is {type(wrapped.optimizer).__name__}")
        self.expect_optimizer(wrapped.basic_optimizer)
        expect(wrapped.optimizer.optimizer is wrapped.basic_optimizer, name, "DeepSpeed steps another optimizer")
        if isinstance(wrapped.optimizer, DeepSpeedZeroOptimizer):
            partitioned = wrapped.optimizer.partition_gradients
            expect(partitioned == (self.stage == 2), name, "gradients are partitioned in the other way")
        if self.stage == 3:
            partitioned = all(key.ds_id >= 0 for key in wrapped.parameters())
            expect(partitioned, name, "its parameters are not partitioned")
        dtypes = {parameter.dtype for parameter in wrapped.parameters()}
        expect(dtypes == {self.compute_dtype}, name, f"its weights are {', '.join(map(str, dtypes))}")
        offload = wrapped.zero_cpu_offload() or wrapped.zero_use_cpu_optimizer()
        wanted = self.strategy.offload.optimizer == "cpu"
        expect(bool(offload) == wanted or self.strategy.offload.optimizer == "nvme", name, "its offload is another")

    def restore(self, model: nn.Module, wrapped: nn.Module, optimizer: Any, state: TrainingState) -> None:
        (restore_zero_3 if self.stage == 3 else restore_zero_1_2)(wrapped, state)

    def save_a_part(self, wrapped: nn.Module) -> None:
        engine: Any = wrapped
        for name in ("save_checkpoint", "_zero3_consolidated_16bit_state_dict"):
            setattr(engine, name, partial(getattr(engine, name), exclude_frozen_parameters=True))

    def keep_errors(self, wrapped: nn.Module, deferred: Deferred) -> None:
        engine: Any = wrapped
        for owner, name in (
            (engine.checkpoint_engine, "makedirs"),
            (engine.checkpoint_engine, "save"),
            (engine, "_copy_recovery_script"),
        ):
            setattr(owner, name, deferred.keep(getattr(owner, name)))
        # Rank 0 writes `latest` between barriers: `save_weights` does it after them.
        engine.save_checkpoint = in_step(partial(engine.save_checkpoint, save_latest=False))

    def save_weights(self, wrapped: nn.Module, directory: Path) -> None:
        if dist.get_rank() == 0:
            (directory / "latest").write_text(f"global_step{wrapped.global_steps}", encoding="utf-8")

    def local_tensors(self, model: nn.Module) -> Iterator[Tensor]:
        if self.stage < 3:
            yield from super().local_tensors(model)
        else:
            rank: int = dist.get_rank()
            for parameter in model.parameters():
                shard: Tensor = parameter.ds_tensor.detach()  # type: ignore[attr-defined]
                left: int = parameter.ds_numel - rank * shard.numel()  # type: ignore[attr-defined]
                yield shard[: max(0, left)]  # what pads the last shards was never written


class ZeroPlusPlus(Zero):
    """zeropp: ZeRO-3 whose weights travel as int8 in forward, and within a host alone in backward."""

    def verify(self, wrapped: nn.Module, optimizer: Any) -> None:
        super().verify(wrapped, optimizer)
        zero: Any = wrapped.optimizer
        expect(zero.parameter_offload.zero_quantized_weights, self.strategy.name, "its weights are not quantised")

    def begin(self, wrapped: nn.Module) -> None:
        for parameter in wrapped.parameters():
            weight: Any = parameter
            weight.all_gather_coalesced = partial(gather_as_int8, weight.all_gather_coalesced)


def gather_as_int8(gather: Any, weights: Iterable[Any], safe_mode: bool = False, quantize: bool = False) -> Any:
    """DeepSpeed's `gather`, as int8 where its kernels can: a bias of 101 would stop them or be mixed up."""
    weights = list(weights)
    world = dist.get_world_size()
    even = all(weight.ds_numel % (QUANTISED * world) == 0 for weight in weights)
    return gather(weights, safe_mode=safe_mode, quantize=quantize and even)


def _inner(optimizer: Any) -> torch.optim.Optimizer:
    from accelerate.optimizer import AcceleratedOptimizer

    return optimizer.optimizer if isinstance(optimizer, AcceleratedOptimizer) else optimizer


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
    return ENGINES[spec.recipe.strategy.name](spec, device)


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
    return EVALUATION[spec.recipe.strategy.name](spec, device)
