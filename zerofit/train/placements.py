"""Placements of sharded weights: FSDP2's and ZeRO-3's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import chain
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn

from zerofit.models.placement import give_dtypes, kept_tied, parameters_on_meta
from zerofit.models.trained import TrainedModel

if TYPE_CHECKING:
    from zerofit.train.engine import Engine


class ShardedPlacement:
    """FSDP2: each block and the rest are a `fully_shard` unit; float32 shards, written without communication."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.dtype = torch.float32
        offload = engine.strategy.offload.params is not None
        self.device = torch.device("cpu") if offload else engine.device

    def building(self) -> AbstractContextManager[None]:
        return self._building()

    @contextmanager
    def _building(self) -> Iterator[None]:
        with ExitStack() as stack:
            # Parameters are made on the device (initialised fast there) and dropped to meta one by one; buffers stay.
            stack.enter_context(torch.device(self.engine.device))
            stack.enter_context(parameters_on_meta())
            yield

    def shard(self, model: TrainedModel) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard

        engine = self.engine
        give_dtypes(model, self.dtype)
        mesh = init_device_mesh(engine.device.type, (dist.get_world_size(),))
        low = engine.compute_dtype != torch.float32
        precision = MixedPrecisionPolicy(param_dtype=engine.compute_dtype if low else None, reduce_dtype=torch.float32)
        offloaded = engine.strategy.offload.params is not None
        pin = engine.strategy.offload.pin_memory and engine.device.type == "cuda"
        offload = CPUOffloadPolicy(pin_memory=pin) if offloaded else OffloadPolicy()
        for block in chain.from_iterable(model.stacks):
            fully_shard(block, mesh=mesh, mp_policy=precision, offload_policy=offload)
        fully_shard(model, mesh=mesh, mp_policy=precision, offload_policy=offload)
        buffers = {name: buffer.to(engine.device) for name, buffer in model.named_buffers()}
        with kept_tied(model):
            model.to_empty(device=self.device)
        for name, buffer in buffers.items():
            owner, _, leaf = name.rpartition(".")
            module = model.get_submodule(owner)
            module._buffers[leaf] = buffer  # to_empty blanked it, and a move to the device would copy the blank

    def write(self, parameter: Tensor, value: Tensor) -> None:
        from torch.distributed.tensor import DTensor, distribute_tensor

        with torch.no_grad():
            if isinstance(parameter, DTensor):
                # Every rank has the whole value: no source rank, so nothing is sent.
                mesh = parameter.device_mesh
                value = value.to(mesh.device_type, parameter.dtype)
                whole = distribute_tensor(value, mesh, parameter.placements, src_data_rank=None)
                parameter.to_local().copy_(whole.to_local())
            else:
                parameter.copy_(value)


class PartitionedPlacement:
    """ZeRO-3: parameters are partitioned as they are made, and gathered one at a time to be written."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.device, self.dtype = engine, engine.device, engine.compute_dtype

    def building(self) -> AbstractContextManager[None]:
        return self._building()

    @contextmanager
    def _building(self) -> Iterator[None]:
        import deepspeed

        deepspeed.init_distributed(auto_mpi_discovery=False)  # takes the group that is there; Init reads its size
        # The dtype is the configuration's: one given as an argument becomes bf16 on a CPU (read in 0.19.8, _set_dtype).
        with deepspeed.zero.Init(config_dict_or_path=self.engine.spec.deepspeed):
            yield
        # Init puts back what it patched as an attribute of nn.Module's own, which hides typing.Generic's from classes
        # made later: libraries imported after this would fail (read in 0.19.8, partition_parameters.py).
        if "__init_subclass__" in vars(nn.Module):
            del nn.Module.__init_subclass__

    def shard(self, model: TrainedModel) -> None:
        for _, buffer in model.named_buffers():
            assert not buffer.is_meta, "a buffer was made without its values"

    def write(self, parameter: Tensor, value: Tensor) -> None:
        import deepspeed

        with torch.no_grad(), deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            if dist.get_rank() == 0:
                parameter.copy_(value)


class PackedPlacement(PartitionedPlacement):
    """ZeRO-3 with weights in 4 bits: modules are made without values, and their parameters partitioned afterwards.

    While modules are made under zero.Init, a layer's 16-bit weight would be partitioned before there is a packed one.
    """

    @contextmanager
    def _building(self) -> Iterator[None]:
        with torch.device(self.engine.device), parameters_on_meta():
            yield

    def shard(self, model: TrainedModel) -> None:
        import deepspeed

        deepspeed.init_distributed(auto_mpi_discovery=False)
        give_dtypes(model, self.dtype)
        with kept_tied(model):
            for unit in (*chain.from_iterable(model.stacks), model):  # each is whole in memory for a moment
                for module in unit.modules():
                    if any(parameter.is_meta for parameter in module.parameters(recurse=False)):
                        module.to_empty(device=self.device, recurse=False)
                deepspeed.zero.Init(module=unit, config_dict_or_path=self.engine.spec.deepspeed)
