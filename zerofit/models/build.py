"""Build a run's model: construct, shard, then write every weight, the same way under every strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.initialization import no_init_weights

from zerofit.config.errors import UserError
from zerofit.models.adapters import add_adapters, check_adapters_train, target_layers, with_adapters
from zerofit.models.cad_mllm import CadMllm
from zerofit.models.causal_lm import causal_lm_config, make_language_model
from zerofit.models.classifier import ImageClassifier
from zerofit.models.compiled import compile_blocks
from zerofit.models.config import make_config
from zerofit.models.frozen import WeightHash, check_frozen, hashed, leave_out_frozen, trains_a_part
from zerofit.models.initialise import fresh_weights, untouched_random_state
from zerofit.models.origin import origin_weights
from zerofit.models.patch_lm import PatchLMClassifier, patch_lm_config
from zerofit.models.placement import Placement, parameters_on_meta
from zerofit.models.pretrained import locate, pretrained_weights
from zerofit.models.quantised import linear_layers, pack, packed_layers, settle
from zerofit.models.recompute import apply_checkpointing
from zerofit.models.trainable import apply_rules
from zerofit.models.trained import TrainedModel, set_buffer
from zerofit.models.vit import VitClassifier, vit_config
from zerofit.plan.rules import rules_of
from zerofit.plan.spec import RunSpec

Adjust = Callable[[PreTrainedConfig, RunSpec], PreTrainedConfig]
Make = Callable[[PreTrainedConfig, RunSpec, torch.dtype], TrainedModel]
KINDS: dict[str, tuple[Adjust, Make]] = {
    "vit": (vit_config, VitClassifier),
    "patch_lm": (patch_lm_config, PatchLMClassifier),
    "causal_lm": (causal_lm_config, make_language_model),
    "cad_mllm": (causal_lm_config, CadMllm),
}
"""By `model.kind`: what fits the family's config to the run, and what makes the model, without values, of that."""


def build_model(
    spec: RunSpec, placement: Placement, compute_dtype: torch.dtype, weights: Path | None = None
) -> TrainedModel:
    """The model of `spec` with its weights, held as `placement` says, rules and recomputation applied. Collective.

    `weights` is a checkpoint's safetensors file, with every parameter or, in a run that trains a part, with that part;
    null: the recipe's origin of weights.

    Weights are in `placement.dtype`; the forward pass computes in `compute_dtype`. Besides the model, a process
    holds one parameter at a time. Raises UserError for whatever the recipe asks that the model cannot be.
    """
    model = spec.recipe.model
    directory = None if model.pretrained is None else locate(model.pretrained, weights=spec.origin is None)
    device = drawing_device(spec)
    with untouched_random_state(device), no_init_weights():
        outline = outlined(spec, directory, compute_dtype)
        built = constructed(outline, spec, placement, compute_dtype)
    skeleton, adapted = outline.skeleton, outline.adapted
    packed = dict(packed_layers(built))
    placement.shard(built)
    for name, buffer in skeleton.named_buffers():  # an engine may have blanked or rounded its own
        place = built.get_buffer(name).device
        set_buffer(built, name, buffer.to(placement.device if place.type == "meta" else place))
    buffers = dict(built.named_buffers())
    part = trains_a_part(spec.recipe)
    if weights is not None and not part:
        origin = _stored(skeleton, weights)
    else:
        origin = first_weights(skeleton, spec, directory, device)
    if model.lora is not None:
        origin = with_adapters(origin, adapted, model.lora.rank, spec.recipe.train.seed, device)
    total = WeightHash()
    if part:
        frozen = {name for name, parameter in built.named_parameters() if not parameter.requires_grad}
        origin = hashed(origin, frozen, total)
        if weights is not None:
            origin = _overlaid(origin, weights)
    for name, value in origin:
        if name in buffers:
            set_buffer(built, name, value.to(buffers[name]))
        elif name in packed:
            placement.write(built.get_parameter(name), packed[name].take(value.to(device)))
        else:
            placement.write(built.get_parameter(name), value)
    if part:
        built.frozen_hash = total.hexdigest()
        leave_out_frozen(built)
        if weights is not None:
            check_frozen(weights.parent, built.frozen_hash)
    return built


@dataclass(frozen=True)
class Outline:
    """What is known of a model before an engine holds anything of it."""

    config: PreTrainedConfig
    skeleton: TrainedModel
    """It knows names, shapes, buffers and initial values, and has no weights, however the engine holds its own."""
    adapted: dict[str, tuple[int, int]]
    """Layers that get adapters: name -> (inputs, outputs)."""
    quantised: list[str]
    """Layers that are held in 4 bits."""


def outlined(spec: RunSpec, directory: Path | None, compute_dtype: torch.dtype) -> Outline:
    """The outline of `spec`'s model, whose config lies in `directory` where it is pretrained. Raises UserError."""
    model = spec.recipe.model
    adjust, kind = KINDS[model.kind]
    config = adjust(make_config(spec, directory), spec)
    with parameters_on_meta():
        skeleton = kind(deepcopy(config), spec, compute_dtype)
    adapted = {} if model.lora is None else target_layers(skeleton, model.lora)
    return Outline(config, skeleton, adapted, linear_layers(skeleton) if spec.quantised else [])


def constructed(outline: Outline, spec: RunSpec, placement: Placement, compute_dtype: torch.dtype) -> TrainedModel:
    """The modules of the model, under `placement.building()`, with rules and recomputation applied. Raises UserError.

    `placement.shard` is then to give them their storage.
    """
    lora = spec.recipe.model.lora
    _, kind = KINDS[spec.recipe.model.kind]
    with placement.building():
        built = kind(deepcopy(outline.config), spec, compute_dtype)
        pack(built, outline.quantised, compute_dtype)
        if lora is not None:
            add_adapters(built, lora, outline.adapted)
    apply_rules(built, rules_of(spec.recipe), outline.skeleton.idle)
    if lora is not None:
        check_adapters_train(built)
    if outline.quantised:
        settle(built, compute_dtype)
    if spec.strategy.compile:
        compile_blocks(built)
    apply_checkpointing(built, spec.strategy.activation_checkpointing)
    return built


def build_classifier(
    spec: RunSpec, placement: Placement, compute_dtype: torch.dtype, weights: Path | None = None
) -> ImageClassifier:
    """`build_model` of a task on images."""
    model = build_model(spec, placement, compute_dtype, weights)
    assert isinstance(model, ImageClassifier)
    return model


def first_weights(
    skeleton: TrainedModel, spec: RunSpec, directory: Path | None, device: torch.device
) -> Iterator[tuple[str, Tensor]]:
    """(name, value) of every parameter once: the pretrained ones (and buffers) first, then the fresh ones."""
    left = dict.fromkeys(name for name, _ in skeleton.named_parameters())
    if spec.origin is not None:
        for name, value in origin_weights(skeleton, spec):
            yield name, value
            left.pop(name, None)
    elif directory is not None:
        shapes = {name: place.shape for name, place in skeleton.state_dict().items()}
        for key, value in pretrained_weights(skeleton.family, directory):
            name = skeleton.prefix + key
            yield name, skeleton.fit_pretrained(name, value, shapes[name])
            left.pop(name, None)
        missing = [name for name in left if name.startswith(skeleton.prefix)]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise UserError(
                f"model.pretrained: {directory} lacks weights of {type(skeleton.family).__name__}: "
                f"{', '.join(name.removeprefix(skeleton.prefix) for name in missing[:3])}{more}"
            )
    for part, source in skeleton.pretrained_parts(spec).items():
        if any(name.startswith(part) for name in left):
            for name, value in skeleton.part_weights(part, source):
                yield name, value
                left.pop(name, None)
    yield from fresh_weights(skeleton, left, spec.recipe.train.seed, device)


def _stored(skeleton: TrainedModel, weights: Path) -> Iterator[tuple[str, Tensor]]:
    """(name, value) of every parameter and stored buffer, out of a checkpoint's file. Raises UserError."""
    with safe_open(weights, framework="pt") as file:
        held = set(file.keys())
        for name in skeleton.state_dict():
            if name not in held:
                raise UserError(f"{weights} lacks {name}: it is of another model than run.json says")
            yield name, file.get_tensor(name)


def _overlaid(origin: Iterator[tuple[str, Tensor]], weights: Path) -> Iterator[tuple[str, Tensor]]:
    """(name, value): those of `origin` that the checkpoint's file does not hold, then those that it holds."""
    with safe_open(weights, framework="pt") as file:
        held = set(file.keys())
        for name, value in origin:
            if name not in held:
                yield name, value
        for name in sorted(held):
            yield name, file.get_tensor(name)


def drawing_device(spec: RunSpec) -> torch.device:
    """Where fresh weights are drawn: on this rank's GPU even if they are kept elsewhere, so that strategies agree."""
    if spec.hardware.device == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
