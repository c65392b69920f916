"""The transformers config of a run's backbone, from the plan's shape or from a pretrained model's config.json."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from zerofit.config.errors import UserError, did_you_mean
from zerofit.plan.spec import ImageFacts, RunSpec

ATTENTION = {"auto": None, "eager": "eager", "sdpa": "sdpa", "flash": "flash_attention_2"}
"""None lets transformers choose: sdpa, or eager for the few families that have no sdpa."""
CONVERTED = {"rope_theta", "rope_scaling", "patch_size"}
"""Fields that config classes take without listing them; `patch_size` is patch_lm's own."""


def make_config(spec: RunSpec, directory: Path | None) -> PreTrainedConfig:
    """The config of the backbone: `directory`'s where it is pretrained, else the plan's shape.

    Raises UserError for unknown fields, impossible values, an unknown model_type, and flash attention where the
    package or the precision does not allow it.
    """
    if directory is not None:
        config = config_of(directory)
    else:
        assert spec.shape is not None, "a plan has a shape or a pretrained model"
        config = config_from_fields(spec.shape)
    set_dropout(config, spec.recipe.model.dropout)
    attention = spec.recipe.model.attention
    if attention == "flash":
        _check_flash(spec)
    config._attn_implementation = ATTENTION[attention]
    if isinstance(spec.data, ImageFacts):
        config.id2label = dict(enumerate(spec.data.classes))
        config.label2id = {name: label for label, name in enumerate(spec.data.classes)}
    return config


def config_from_fields(shape: dict[str, Any], field: str = "model.shape") -> PreTrainedConfig:
    """The config that the fields of `shape` (with model_type) describe. Raises UserError, which begins with `field`."""
    kind = shape["model_type"]
    try:
        default = AutoConfig.for_model(kind)
    except ValueError:
        raise UserError(f"{field}: model_type {kind!r} is not known to transformers") from None
    known = {*default.to_dict(), *type(default).attribute_map, *CONVERTED}
    for name in shape:
        if name not in known:
            raise UserError(f"{field}: {name} is no field of a {kind} config{did_you_mean(name, known)}")
    try:
        config: PreTrainedConfig = AutoConfig.for_model(**shape)
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise UserError(f"{field}: not a {kind} config: {' '.join(str(error).split())}") from None
    return config


def config_of(directory: Path) -> PreTrainedConfig:
    """The config.json of a pretrained model's directory. Raises UserError."""
    file = directory / "config.json"
    if not file.is_file():
        raise UserError(f"model.pretrained: {directory} has no config.json: not a model saved by save_pretrained")
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"model.pretrained: {file}: {' '.join(str(error).split())[:300]}") from None
    return config_of_fields(fields, f"model.pretrained: {file}")


def config_of_fields(fields: Any, where: str) -> PreTrainedConfig:
    """The config that the fields of a config.json, with whatever else is in them, say. Raises UserError."""
    try:
        kind = fields.get("model_type")
        if kind not in CONFIG_MAPPING:
            raise UserError(
                f"{where}: model_type {kind!r} is not known to transformers (code that lies beside the weights is "
                "never run)"
            )
        config: PreTrainedConfig = CONFIG_MAPPING[kind].from_dict(fields)
    except (StrictDataclassError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{where}: {' '.join(str(error).split())[:300]}") from None
    if "quantization_config" in fields:
        raise UserError(f"{where}: its weights are quantised, which cannot be fine-tuned whole")
    return config


def set_dropout(config: PreTrainedConfig, probability: float) -> None:
    """Set every dropout probability of `config`: the fields whose name contains `dropout` or ends in `_pdrop`."""
    for name, value in config.to_dict().items():
        if ("dropout" in name or name.endswith("_pdrop")) and type(value) in (int, float):
            setattr(config, name, probability)


def patches_per_image(image_size: int, patch_size: int) -> int:
    """Patches of patch_size x patch_size pixels in a square image. Raises UserError unless they tile it."""
    if image_size % patch_size:
        fitting = [size for size in range(1, image_size + 1) if image_size % size == 0]
        near = sorted(sorted(fitting, key=lambda size: abs(size - patch_size))[:4])
        raise UserError(
            f"model.patch_size: {patch_size} does not divide the image's {image_size} pixels; use for example "
            f"{', '.join(map(str, near))}, or another model.image_size"
        )
    return (image_size // patch_size) ** 2


def _check_flash(spec: RunSpec) -> None:
    if importlib.util.find_spec("flash_attn") is None:
        raise UserError("model.attention: flash needs the package flash-attn, which is not installed; use sdpa")
    if spec.hardware.device != "cuda" or spec.precision == "fp32":
        raise UserError(
            f"model.attention: flash runs in bf16 or fp16 on a GPU, not in {spec.precision} on "
            f"{spec.hardware.device}; use sdpa"
        )
