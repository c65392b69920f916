"""The types that a run's numbers are held and computed in, looked at before its first step.

A library that casts by itself would not be seen on the card that it was made for: TRL casts adapters over 4-bit weights
to bf16, which cards before Ampere cannot multiply.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from zerofit.models.quantised import packed_layers, scale_tensors
from zerofit.models.trained import TrainedModel
from zerofit.train.engine import Engine, WrongEngine


class WrongDtype(WrongEngine):
    """Something is held, or would be computed, in another type than the plan says."""


def check_dtypes(engine: Engine, model: TrainedModel, wrapped: nn.Module, optimizer: Any) -> None:
    """Raise WrongDtype unless all is as planned; `model`, `wrapped` and `optimizer` as prepared for training.

    What is trained has float32 masters: the weights themselves, or DeepSpeed's copies of them.
    """
    compute = engine.compute_dtype
    _expect(model.compute_dtype, compute, "the model computes")
    _expect(engine.autocast_dtype(), compute, "forward passes compute")
    for name, parameter in model.named_parameters():
        trained = parameter.requires_grad
        held = engine.held_dtype if trained else model.frozen_dtype or engine.held_dtype
        _expect(parameter.dtype, held, f"{name}, which is {'trained' if trained else 'frozen'}, is held")
    for name, layer in packed_layers(model):
        assert layer.scales is not None, "weights are written before training"
        _expect(layer.compute_dtype, compute, f"{name}, in 4 bits, is computed with")
        _expect(layer.scales.dtype, compute, f"{name}, in 4 bits, is unpacked")
    for master in engine.masters(wrapped, optimizer):
        _expect(master.dtype, torch.float32, "the optimizer works on weights")
    if compute != torch.bfloat16:
        for name, tensor in tensors_of(model):
            if tensor.dtype == torch.bfloat16:
                raise WrongDtype(f"{name} is bf16 in a run that computes in {_short(compute)}")


def tensors_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every parameter, buffer and scale."""
    yield from model.named_parameters()
    yield from model.named_buffers()
    for number, tensor in enumerate(scale_tensors(model)):
        yield f"scale {number}", tensor


def _expect(found: torch.dtype, wanted: torch.dtype, what: str) -> None:
    if found != wanted:
        raise WrongDtype(f"{what} in {_short(found)}, not in {_short(wanted)}")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
