"""LoRA adapters, by peft, on linear layers of a model's blocks: where they are, and their first values.

A linear layer `q_proj` becomes `q_proj.base_layer` with `q_proj.lora_A.default` and `q_proj.lora_B.default` beside it.
Weights come under the names of the model without adapters, wherever they come from, and are renamed on their way; so
the frozen ones are exactly those of the same recipe without `lora`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from zerofit.config.errors import UserError
from zerofit.config.model import Lora
from zerofit.models.initialise import untouched_random_state
from zerofit.models.trained import TrainedModel
from zerofit.plan.seeds import seed_of

BASE = ".base_layer."
ADAPTER = ".lora_"
"""What names of adapters' weights have."""
DOWN, UP = ".lora_A.default.weight", ".lora_B.default.weight"


def target_layers(model: TrainedModel, lora: Lora) -> dict[str, tuple[int, int]]:
    """Linear layers of the blocks whose whole name `lora.targets` finds: name -> (inputs, outputs).

    `model` has no adapters yet; its weights are not looked at. Raises UserError where none is found.
    """
    layers = {name: _size(module) for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))}
    layers = {name: size for name, size in layers.items() if name.startswith(f"{model.blocks_name}.")}
    found = {name: size for name, size in layers.items() if re.search(lora.targets, name)}
    if not found:
        # backbone.layers.0.self_attn.q_proj -> self_attn.q_proj: blocks are alike
        there = dict.fromkeys(name.removeprefix(f"{model.blocks_name}.").partition(".")[2] for name in layers)
        raise UserError(
            f"model.lora.targets: {lora.targets} finds no linear layer of the blocks ({model.blocks_name}.0, ...), "
            f"which have {', '.join(there) or 'none'}"
        )
    return found


def add_adapters(model: TrainedModel, lora: Lora, layers: Iterable[str]) -> None:
    """Put adapters, without values, on the layers of these names; the engine's placement decides how they are held."""
    from peft import LoraConfig, inject_adapter_in_model  # a second of import, for runs that have adapters alone

    prefix = f"{model.blocks_name}."
    names = [name.removeprefix(prefix) for name in layers]
    transposed = {isinstance(model.blocks.get_submodule(name), Conv1D) for name in names}
    assert len(transposed) == 1, "a family has linear layers of one kind"
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # declared int, and only ever divided by the rank
        lora_dropout=lora.dropout,
        target_modules="|".join(map(re.escape, names)),  # a regular expression for whole names
        fan_in_fan_out=transposed.pop(),
        init_lora_weights=False,
    )
    # Into the blocks and not the backbone: peft rewrites targets of some families that it knows by their config.
    inject_adapter_in_model(config, model.blocks)


def check_adapters_train(model: nn.Module) -> None:
    """Raise UserError where the rules freeze every B: it starts at zero, so the adapters would do nothing."""
    if not any(name.endswith(UP) and parameter.requires_grad for name, parameter in model.named_parameters()):
        raise UserError(
            r"model.trainable: its rules freeze the adapters of model.lora, which would do nothing; add the rule "
            r"\.lora_, or leave model.lora out"
        )


def with_adapters(
    weights: Iterable[tuple[str, Tensor]],
    layers: dict[str, tuple[int, int]],
    rank: int,
    seed: int,
    device: torch.device,
) -> Iterator[tuple[str, Tensor]]:
    """(name in the model with adapters on `layers`, value): the weights of that without, then fresh adapters.

    A [rank, inputs] is Kaiming-uniform as in nn.Linear, B [outputs, rank] is zero (Hu et al. 2022; peft's default), so
    the first logits are those of the model without adapters. Each is a function of (seed, name) alone.
    """
    for name, value in weights:
        layer, _, leaf = name.rpartition(".")
        yield (f"{layer}{BASE}{leaf}" if layer in layers else name), value
    for layer, (inputs, outputs) in layers.items():
        down = torch.empty(rank, inputs, device=device)
        with untouched_random_state(device):
            torch.manual_seed(seed_of(seed, layer + DOWN))
            nn.init.kaiming_uniform_(down, a=5**0.5)
        yield layer + DOWN, down
        yield layer + UP, torch.zeros(outputs, rank, device=device)


def _size(module: nn.Linear | Conv1D) -> tuple[int, int]:
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return module.nx, module.nf
