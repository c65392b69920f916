"""Adapters in checkpoints from elsewhere, under peft's names, merged into the weights that they lie beside."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from torch import Tensor

from zerofit.checkpoint.outside import shown
from zerofit.config.errors import UserError
from zerofit.config.limited import read_limited
from zerofit.models.adapters import BASE, DOWN, UP
from zerofit.models.pretrained import Reader

CONFIG = "adapter_config.json"
WRAPPER = "base_model.model."
"""What peft puts before every name."""
TRAINED, ORIGINAL = ".modules_to_save.default.", ".original_module."
"""A module that was trained whole, and what it was before."""
UNKNOWN = ("use_dora", "alpha_pattern", "rank_pattern", "lora_bias", "alora_invocation_tokens")
"""Settings under which a merge is another sum."""


def merged(weights: Mapping[str, Reader], directory: Path) -> dict[str, Reader]:
    """`weights` by the names of the model without adapters; each is merged in float32 when it is read.

    Scale and layout are those of the adapter_config.json in `directory`. Raises UserError where there is none, or where
    adapters are of a kind that is not known here.
    """
    scale, rooted, transposed = _settings(directory)
    found: dict[str, Reader] = {}
    for name, read in weights.items():
        plain = name.removeprefix(WRAPPER)
        if ORIGINAL in plain or name.endswith((UP, DOWN)):
            continue
        if ".lora_" in plain:
            raise UserError(f"--merge-lora: {shown(name)} is no adapter of a linear layer called default")
        layer, base, leaf = name.partition(BASE)
        if base and leaf == "weight":
            if layer + UP not in weights or layer + DOWN not in weights:
                raise UserError(f"--merge-lora: {shown(layer)} has no {(UP if layer + DOWN in weights else DOWN)[1:]}")
            read = partial(_sum, read, weights[layer + UP], weights[layer + DOWN], (scale, rooted), transposed)
        found[plain.replace(BASE, ".").replace(TRAINED, ".")] = read
    if not any(name.endswith(UP) for name in weights):
        raise UserError("--merge-lora: it holds no adapters under peft's names (lora_B.default.weight); leave it out")
    return found


def _settings(directory: Path) -> tuple[float, bool, bool]:
    """alpha, whether it is divided by the root of the rank, and whether weights are [inputs, outputs]."""
    path = directory / CONFIG
    try:
        fields = json.loads(read_limited(path))
        odd = [name for name in UNKNOWN if fields.get(name)]
        settings = float(fields["lora_alpha"]), bool(fields.get("use_rslora")), bool(fields.get("fan_in_fan_out"))
    except FileNotFoundError:
        raise UserError(f"--merge-lora needs peft's {CONFIG} in {directory}: copy it there") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"--merge-lora: {path} is no {CONFIG} of peft's LoRA: it has no lora_alpha") from None
    if odd:
        raise UserError(f"--merge-lora: {path} has {odd[0]}, which is not known here: merge with peft")
    return settings


def _sum(base: Reader, up: Reader, down: Reader, scale: tuple[float, bool], transposed: bool) -> Tensor:
    """W + scale B A in float32."""
    alpha, rooted = scale
    narrow = down().float()
    delta = up().float() @ narrow
    delta *= alpha / (math.sqrt(len(narrow)) if rooted else len(narrow))
    if transposed:
        delta = delta.T
    delta += base()
    return delta
