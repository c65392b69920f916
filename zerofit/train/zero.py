"""The engines of zero1, zero2, zero3 and zeropp: DeepSpeed's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from zerofit.config.strategy import ZERO_STAGE
from zerofit.models.adapters import ADAPTER
from zerofit.models.placement import Placement, WholePlacement
from zerofit.models.quantised import scale_tensors
from zerofit.models.trained import TrainedModel
from zerofit.plan.units import gathers_blocks
from zerofit.train.deferred import Deferred, in_step
from zerofit.train.engine import Engine, WrongEngine, expect, stored
from zerofit.train.holdings import state_tensors, tensors_in
from zerofit.train.placements import PackedPlacement, PartitionedPlacement
from zerofit.train.restoring import restore_zero_1_2, restore_zero_3
from zerofit.train.rollout_weights import gathered
from zerofit.train.state import TrainingState
from zerofit.train.writes import Write

QUANTISED = 8
"""Elements that DeepSpeed's int8 kernels handle at once."""


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
            return (PackedPlacement if self.spec.quantised else PartitionedPlacement)(self)
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

    def begin(self, wrapped: nn.Module) -> None:
        if self.stage == 3 and gathers_blocks(self.strategy.offload):
            from zerofit.train.units import gather_blocks

            model = self.unwrapped(wrapped)
            assert isinstance(model, TrainedModel), "what is trained is made by build_model"
            zero: Any = wrapped.optimizer
            gather_blocks(model, zero.parameter_offload)

    def restore(self, model: nn.Module, wrapped: nn.Module, optimizer: Any, state: TrainingState) -> None:
        (restore_zero_3 if self.stage == 3 else restore_zero_1_2)(wrapped, state)

    def stand_at(self, wrapped: nn.Module, step: int) -> None:
        engine: Any = wrapped
        engine.global_steps, engine.global_samples = step, step * self.spec.batches.global_batch

    def save_a_part(self, wrapped: nn.Module) -> None:
        engine: Any = wrapped
        for name in ("save_checkpoint", "_zero3_consolidated_16bit_state_dict"):
            setattr(engine, name, partial(getattr(engine, name), exclude_frozen_parameters=True))

    def take_writes(self, wrapped: nn.Module, add: Callable[[Write, Any, Path], None], deferred: Deferred) -> None:
        engine: Any = wrapped
        writer = engine.checkpoint_engine
        own = writer.save

        def save(state_dict: dict[str, Any], path: str) -> None:
            add(own, state_dict, Path(path))

        writer.save = deferred.keep(save)
        for owner, name in ((writer, "makedirs"), (engine, "_copy_recovery_script")):
            setattr(owner, name, deferred.keep(getattr(owner, name)))
        # Rank 0 writes `latest` between barriers: `complete` does it after them.
        engine.save_checkpoint = in_step(partial(engine.save_checkpoint, save_latest=False))

    def whole_weights(self, wrapped: nn.Module) -> dict[str, Tensor] | None:
        engine: Any = wrapped
        if self.stage < 3:
            return stored(engine.module)
        weights = in_step(engine._zero3_consolidated_16bit_state_dict)()
        return weights if dist.get_rank() == 0 else None

    def unwrapped(self, wrapped: nn.Module) -> nn.Module:
        from deepspeed import DeepSpeedEngine

        return wrapped.module if isinstance(wrapped, DeepSpeedEngine) else wrapped

    def whole(self, model: nn.Module) -> AbstractContextManager[None]:
        return gathered(model) if self.stage == 3 else nullcontext()

    def complete(self, wrapped: nn.Module, directory: Path) -> None:
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

    @property
    def held_dtype(self) -> torch.dtype:
        return self.compute_dtype

    def masters(self, wrapped: nn.Module, optimizer: Any) -> Iterator[Tensor]:
        from deepspeed.runtime.bf16_optimizer import BF16_Optimizer

        zero: Any = wrapped.optimizer
        if self.stage == 3:
            yield from zero.fp32_partitioned_groups_flat
        elif isinstance(zero, BF16_Optimizer):
            yield from zero.fp32_groups_flat_partition
        else:
            yield from zero.single_partition_of_fp32_groups

    def holdings(self, model: nn.Module, wrapped: nn.Module, optimizer: Any) -> dict[str, Iterator[Tensor]]:
        from deepspeed.runtime.bf16_optimizer import BF16_Optimizer

        zero: Any = wrapped.optimizer
        masters = list(self.masters(wrapped, optimizer))
        reduced = zero.fp32_groups_gradients_flat if isinstance(zero, BF16_Optimizer) else zero.averaged_gradients
        own = [tensor.grad for tensor in (*model.parameters(), *masters)]
        return {
            "weights": chain(self.local_tensors(model), scale_tensors(model)),
            "gradients": tensors_in([reduced, own]),
            "optimizer": chain(masters, state_tensors(zero.optimizer)),
        }

    def around_step(
        self, wrapped: nn.Module, optimizer: Any, before: Callable[[], None], after: Callable[[], None]
    ) -> None:
        zero: Any = wrapped.optimizer  # its step unscales, clips, and gathers the weights again under ZeRO-1 and 2
        step = zero.step

        def stepping(*arguments: Any, **options: Any) -> Any:
            before()
            done = step(*arguments, **options)
            after()
            return done

        zero.step = stepping


class ZeroPlusPlus(Zero):
    """zeropp: ZeRO-3 whose weights travel as int8 in forward, and within a host alone in backward."""

    def verify(self, wrapped: nn.Module, optimizer: Any) -> None:
        super().verify(wrapped, optimizer)
        zero: Any = wrapped.optimizer
        expect(zero.parameter_offload.zero_quantized_weights, self.strategy.name, "its weights are not quantised")

    def begin(self, wrapped: nn.Module) -> None:
        super().begin(wrapped)
        adapters = {id(parameter) for name, parameter in wrapped.named_parameters() if ADAPTER in name}
        for parameter in wrapped.parameters():
            weight: Any = parameter
            weight.all_gather_coalesced = partial(gather_as_int8, weight.all_gather_coalesced, adapters)


def gather_as_int8(
    gather: Any, adapters: Set[int], weights: Iterable[Any], safe_mode: bool = False, quantize: bool = False
) -> Any:
    """DeepSpeed's `gather`, as int8 those that may be, and the others as they are. `adapters` are `id`s."""
    from deepspeed.runtime.zero.partition_parameters import MultipleAllGatherHandles

    weights, world = list(weights), dist.get_world_size()
    rounded = [one for one in weights if quantize and travels_as_int8(one.ds_numel, world, id(one) in adapters)]
    chosen = set(map(id, rounded))
    exact = [one for one in weights if id(one) not in chosen]
    if not rounded or not exact:
        return gather(weights, safe_mode=safe_mode, quantize=bool(rounded))
    apart = ((rounded, True), (exact, False))
    return MultipleAllGatherHandles([gather(some, safe_mode=safe_mode, quantize=how) for some, how in apart])


def travels_as_int8(elements: int, ranks: int, adapter: bool) -> bool:
    """Whether ZeRO++ rounds a weight on its way.

    Not a size that DeepSpeed's kernels cannot share evenly: a bias of 101 would stop them or be mixed up. And no
    adapter: thousands of elements have one scale (CUDAQuantizer), LoRA's B begins at zero beside an A of 0.01, and its
    first steps would be rounded away.
    """
    return not adapter and elements % (QUANTISED * ranks) == 0
