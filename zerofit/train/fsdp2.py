"""The engine of fsdp2: torch's `fully_shard`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from zerofit.models.placement import Placement
from zerofit.train.engine import Engine, expect, inner
from zerofit.train.placements import ShardedPlacement
from zerofit.train.restoring import restore_tensors
from zerofit.train.rollout_weights import unsharded
from zerofit.train.state import TrainingState

if TYPE_CHECKING:
    from accelerate import Accelerator


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
        held = {id(parameter) for group in inner(optimizer).param_groups for parameter in group["params"]}
        trained = {id(parameter) for parameter in wrapped.parameters() if parameter.requires_grad}
        expect(held == trained, name, "the optimizer holds other parameters than the model")
        self.expect_optimizer(inner(optimizer))
        if self.strategy.offload.params:
            off = all(p.device.type == "cpu" for p in wrapped.parameters())
            expect(off, name, "its weights are not offloaded")

    def restore(self, model: nn.Module, wrapped: nn.Module, optimizer: Any, state: TrainingState) -> None:
        from torch.distributed.tensor import distribute_tensor

        def shard(parameter: Any, whole: Tensor) -> Tensor:
            mesh, placements = parameter.device_mesh, parameter.placements
            held = distribute_tensor(whole.to(mesh.device_type), mesh, placements, src_data_rank=None)  # all have it
            return held.to(parameter.device)

        restore_tensors(model, inner(optimizer), state, shard)

    def weight_copies(self) -> int:
        return 2  # sharded and whole

    def settle(self, wrapped: nn.Module) -> None:
        from torch.distributed.fsdp import FSDPModule

        assert isinstance(wrapped, FSDPModule)
        wrapped.reshard()  # the root's own weights stay whole after a forward, for a backward that did not come

    def whole(self, model: nn.Module) -> AbstractContextManager[None]:
        return unsharded(model)

    def whole_weights(self, wrapped: nn.Module) -> dict[str, Tensor] | None:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights = get_model_state_dict(wrapped, options=options)
        if dist.get_rank() > 0:
            return None
        return {name: value.contiguous() for name, value in weights.items() if isinstance(value, Tensor)}

    def local_tensors(self, model: nn.Module) -> Iterator[Tensor]:
        yield from (parameter.detach().to_local() for parameter in model.parameters())  # type: ignore[attr-defined]
