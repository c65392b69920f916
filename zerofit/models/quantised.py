"""Linear layers whose frozen weights are held in 4 bits (QLoRA, Dettmers et al. 2023), by bitsandbytes' nf4.

The packed bytes are an ordinary parameter of the compute dtype (what transformers calls `bnb_4bit_quant_storage`), so
that every engine broadcasts, shards and gathers them as it does any weight; read as numbers they mean nothing. What
turns them back, a scale of 8 bits for each 64 weights and one of 32 bits for each 256 of those, is whole on every rank.
bitsandbytes' own Linear4bit is not used: its parameter loses its scales when it is sharded, and what it saves for
backward would keep the weights that ZeRO-3 has gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.pytorch_utils import Conv1D

from zerofit.config.errors import UserError
from zerofit.models.trained import TrainedModel

if TYPE_CHECKING:
    from bitsandbytes.functional import QuantState

BLOCK = 64
"""Weights that share a scale."""


class PackedLinear(nn.Linear):
    """x W^T + b, W in 4 bits, computed in `compute_dtype`; without values until `take`."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool, compute_dtype: torch.dtype) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.compute_dtype = inputs, outputs, compute_dtype
        self.bytes = -(-inputs * outputs // 2)
        self.elements = -(-self.bytes // compute_dtype.itemsize)
        self.weight = nn.Parameter(torch.empty(self.elements, dtype=compute_dtype), requires_grad=False)
        self.register_parameter("bias", nn.Parameter(torch.empty(outputs)) if bias else None)
        # No buffers: DDP would send them before every forward.
        self.scales: QuantState | None = None

    def take(self, weight: Tensor) -> Tensor:
        """Keep the scales of the whole `weight`, on its device, and give its packed bytes, to be put in `self.weight`.

        Weights of lower precision are scaled in float32: no range is lost, and fp16 runs see no bf16.
        """
        from bitsandbytes.functional import quantize_4bit  # an extra, for runs that have such layers alone

        assert weight.shape == (self.out_features, self.in_features), weight.shape
        packed, self.scales = quantize_4bit(
            weight.float(), blocksize=BLOCK, compress_statistics=True, quant_type="nf4", quant_storage=torch.uint8
        )
        self.scales.dtype = self.compute_dtype
        padding = self.elements * self.compute_dtype.itemsize - self.bytes
        return nn.functional.pad(packed.flatten(), (0, padding)).view(self.compute_dtype)

    def packed(self) -> tuple[Tensor, QuantState]:
        """The bytes of the weight, which is whole at the moment, and its scales."""
        assert self.scales is not None, "no weight was taken"
        return self.weight.detach().view(torch.uint8)[: self.bytes].view(-1, 1), self.scales

    def dequantised(self) -> Tensor:
        """The weight as it is computed with."""
        from bitsandbytes.functional import dequantize_4bit

        whole: Tensor = dequantize_4bit(*self.packed())
        return whole

    def forward(self, input: Tensor) -> Tensor:
        """In the compute dtype, as under autocast."""
        bias = None if self.bias is None else self.bias.to(self.compute_dtype)
        product: Tensor = Product.apply(input.to(self.compute_dtype), bias, self)
        return product

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """As `nn.Module._apply`, but no cast reaches the packed bytes."""
        weight = self.weight

        def apply(tensor: Tensor) -> Tensor:
            after = fn(tensor)
            return tensor.to(after.device) if tensor is weight and after.dtype != tensor.dtype else after

        super()._apply(apply, recurse)
        return self


class Product(torch.autograd.Function):
    """bitsandbytes' product; backward asks the layer for its weight again, which an engine may drop in between."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, layer: PackedLinear) -> Tensor:
        from bitsandbytes import matmul_4bit

        ctx.layer = layer
        packed, scales = layer.packed()
        product: Tensor = matmul_4bit(x, packed, quant_state=scales, bias=bias)
        return product

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        of_input, of_bias, _ = ctx.needs_input_grad
        return (
            gradient @ ctx.layer.dequantised().to(gradient.dtype) if of_input else None,
            gradient.flatten(0, -2).sum(0) if of_bias else None,
            None,
        )


def linear_layers(model: TrainedModel) -> list[str]:
    """Names of what is quantised: the linear layers of the blocks of `model`, which is still without adapters.

    Raises UserError where there are none that can be.
    """
    prefix = f"{model.blocks_name}."
    names = [name for name, module in model.named_modules() if type(module) is nn.Linear and name.startswith(prefix)]
    if not names:
        conv = any(isinstance(module, Conv1D) for module in model.blocks.modules())
        why = "keeps its weights as [inputs, outputs]" if conv else "has no linear layers in its blocks"
        raise UserError(
            f"model.quantize: {type(model.family).__name__} {why}, which nf4 is not made for; leave model.quantize out"
        )
    return names


def pack(model: TrainedModel, names: Iterable[str], compute_dtype: torch.dtype) -> None:
    """Put packed layers, without values, in the place of the linear ones of these names."""
    for name in names:
        owner, _, leaf = name.rpartition(".")
        plain = model.get_submodule(name)
        assert isinstance(plain, nn.Linear)
        layer = PackedLinear(
            plain.in_features, plain.out_features, bias=plain.bias is not None, compute_dtype=compute_dtype
        )
        setattr(model.get_submodule(owner), leaf, layer)


def packed_layers(model: nn.Module) -> Iterator[tuple[str, PackedLinear]]:
    """(name of its weight, layer) of each."""
    for name, module in model.named_modules():
        if isinstance(module, PackedLinear):
            yield f"{name}.weight", module


def settle(model: TrainedModel, compute_dtype: torch.dtype) -> None:
    """What else quantisation asks of a model with adapters. Raises UserError where a rule trains packed weights.

    Other frozen weights are held in the compute dtype, too: an embedding and a head in float32 would outweigh all else.

    Adapters compute in the dtype of what comes in: autocast casts their float32 weights, and peft need not cast first.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer  # a second of import, for runs that have adapters alone

    model.frozen_dtype = compute_dtype
    for name, layer in packed_layers(model):
        if layer.weight.requires_grad:
            raise UserError(
                f"model.trainable: a rule trains {name}, which model.quantize holds in 4 bits; freeze it, or leave "
                "model.quantize out"
            )
    adapted: list[Any] = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for module in adapted:
        module.cast_input_dtype_enabled = False


def scale_tensors(model: nn.Module) -> Iterator[Tensor]:
    """The tensors of all scales."""
    for _, layer in packed_layers(model):
        scales = layer.scales
        if scales is not None:
            yield from (scales.absmax, scales.code, scales.offset, scales.state2.absmax, scales.state2.code)
