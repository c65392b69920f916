"""The weights of a run, one after the other, without a model that holds them: names and rules come from one on meta."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor
from transformers.initialization import no_init_weights
from transformers.pytorch_utils import Conv1D

from zerofit.config.errors import UserError
from zerofit.models.adapters import ADAPTER, BASE, DOWN, UP, add_adapters, target_layers, with_adapters
from zerofit.models.build import KINDS, drawing_device, first_weights
from zerofit.models.config import make_config
from zerofit.models.frozen import WeightHash, check_frozen, trains_a_part
from zerofit.models.initialise import untouched_random_state
from zerofit.models.placement import other_names, parameters_on_meta
from zerofit.models.pretrained import Reader, locate
from zerofit.models.trainable import apply_rules
from zerofit.models.trained import TrainedModel
from zerofit.plan.rules import rules_of
from zerofit.plan.spec import RunSpec


@dataclass(frozen=True)
class Described:
    """A run's model without values."""

    spec: RunSpec
    plain: TrainedModel
    """Without adapters."""
    model: TrainedModel
    """With those that the run has, and its rules applied."""
    adapted: Mapping[str, tuple[int, int]]
    """Layers that have adapters: name -> (inputs, outputs)."""
    transposed: bool
    """Whether these keep their weight as [inputs, outputs] (GPT-2)."""


def describe_model(spec: RunSpec) -> Described:
    """The run's model, on meta. Raises UserError as `build_model` does."""
    spec = at_hand(spec)
    recipe = spec.recipe
    directory = None if recipe.model.pretrained is None else locate(recipe.model.pretrained, weights=False)
    adjust, kind = KINDS[recipe.model.kind]
    config = adjust(make_config(spec, directory), spec)
    with untouched_random_state(torch.device("cpu")), no_init_weights(), parameters_on_meta():
        skeleton, model = (kind(deepcopy(config), spec, torch.float32) for _ in range(2))
        adapted: dict[str, tuple[int, int]] = {}
        if recipe.model.lora is not None:
            adapted = target_layers(skeleton, recipe.model.lora)
            add_adapters(model, recipe.model.lora, adapted)
    apply_rules(model, rules_of(recipe), skeleton.idle)
    transposed = any(isinstance(skeleton.get_submodule(layer), Conv1D) for layer in adapted)
    return Described(spec, skeleton, model, adapted, transposed)


def names_of(described: Described, *, merged: bool) -> list[str]:
    """Parameters and stored buffers of the run's model; `merged`: of that without adapters."""
    return [*(described.plain if merged else described.model).state_dict()]


def all_weights(
    described: Described, held: Mapping[str, Reader], directory: Path, *, merged: bool
) -> Iterator[tuple[str, Reader]]:
    """(name, reader) of each of `names_of`: what a checkpoint holds, and for the rest what the run began with.

    `held` are the checkpoint's tensors, `directory` is where its frozen.json lies. Raises UserError at the end where
    the frozen weights are not those that it was trained on.
    """
    rest = dict.fromkeys(names_of(described, merged=False))
    if trains_a_part(described.spec.recipe):
        frozen = {name for name, parameter in described.model.named_parameters() if not parameter.requires_grad}
        fresh, total = dict(_adapters(described)), WeightHash()
        held = {**{name: partial(Tensor.detach, value) for name, value in fresh.items()}, **held}
        for name, value in chain(_origin(described), fresh.items()):
            if name in frozen:
                total.add(name, value)
            if name in rest and name not in held:
                yield from _named(described, name, value, held, merged)
                del rest[name]
        check_frozen(directory, total.hexdigest())
    for name in rest:
        if name not in held:
            raise UserError(f"{directory} lacks {name}: it is of another model than run.json says")
    for name in rest:
        if merged and ADAPTER in name:
            continue
        if merged and BASE in name:
            yield from _named(described, name, held[name](), held, merged)
        else:
            yield name, held[name]


def _named(
    described: Described, name: str, value: Tensor, held: Mapping[str, Reader], merged: bool
) -> Iterator[tuple[str, Reader]]:
    layer, base, leaf = name.partition(BASE)
    if merged and base:
        name = f"{layer}.{leaf}"
        if leaf == "weight":
            value = merge(described, layer, value, held)
    yield name, lambda: value


def merge(described: Described, layer: str, weight: Tensor, held: Mapping[str, Reader]) -> Tensor:
    """W + (alpha / rank) B A in float32, as peft's merge of a float32 model."""
    lora = described.spec.recipe.model.lora
    assert lora is not None
    delta = held[layer + UP]().float() @ held[layer + DOWN]().float()
    delta *= lora.alpha / lora.rank
    if described.transposed:
        delta = delta.T
    delta += weight
    return delta


def _origin(described: Described) -> Iterator[tuple[str, Tensor]]:
    """(name in the run's model, value) of every parameter that a run begins with, under all its names; no adapters."""
    spec = described.spec
    pretrained = spec.recipe.model.pretrained
    directory = None if pretrained is None else locate(pretrained, weights=spec.origin is None)
    aliases = other_names(described.plain)
    for first, value in first_weights(described.plain, spec, directory, drawing_device(spec)):
        for name in (first, *(alias for alias, of in aliases.items() if of == first)):
            layer, _, leaf = name.rpartition(".")
            yield (f"{layer}{BASE}{leaf}" if layer in described.adapted else name), value.cpu()


def _adapters(described: Described) -> Iterator[tuple[str, Tensor]]:
    """(name, value) of the adapters that a run begins with."""
    spec, lora = described.spec, described.spec.recipe.model.lora
    if lora is not None:
        layers, device = dict(described.adapted), drawing_device(spec)
        yield from with_adapters((), layers, lora.rank, spec.recipe.train.seed, device)


def at_hand(spec: RunSpec) -> RunSpec:
    """The run's model with whatever attention this machine has; its fresh weights are drawn where the run drew them."""
    model = spec.recipe.model.model_copy(update={"attention": "auto"})
    hardware = spec.hardware
    if not torch.cuda.is_available():
        hardware = hardware.model_copy(update={"device": "cpu"})
    recipe = spec.recipe.model_copy(update={"model": model})
    return spec.model_copy(update={"recipe": recipe, "hardware": hardware})
