"""`strategy.deepspeed`: a user's DeepSpeed settings, laid over the generated ones.

The recipe is the one place for what it has fields for; a setting that says otherwise is refused, never obeyed or
dropped in silence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zerofit.config.errors import UserError

Config = dict[str, Any]

OWNED = {
    "train_batch_size": "train.global_batch",
    "train_micro_batch_size_per_gpu": "train.micro_batch",
    "gradient_accumulation_steps": "train.global_batch, which is micro_batch x accumulation x ranks",
    "gradient_clipping": "optimizer.clip_grad",
    "bf16.enabled": "strategy.precision",
    "fp16.enabled": "strategy.precision",
    "torch_autocast.enabled": "strategy.precision",
    "data_types.param_dtype": "strategy.precision",
    "zero_optimization.stage": "strategy.name",
    "zero_optimization.offload_optimizer.device": "strategy.offload.optimizer",
    "zero_optimization.offload_param.device": "strategy.offload.params",
    "zero_optimization.offload_optimizer.nvme_path": "strategy.offload.nvme_path",
    "zero_optimization.offload_param.nvme_path": "strategy.offload.nvme_path",
}
"""Settings that follow from the recipe, and the field to change instead."""

REFUSED = {
    "optimizer": "optimizer",
    "scheduler": "optimizer.schedule and optimizer.warmup",
    "bfloat16": "strategy.precision",
    "amp": "strategy.precision",
    "zero_optimization.cpu_offload": "strategy.offload.optimizer",
    "zero_optimization.cpu_offload_param": "strategy.offload.params",
}
"""Settings that are never taken, and the field that says it."""


def overlay(generated: Config, user: Mapping[str, Any] | str) -> Config:
    """`generated` with the settings of `user` (a mapping, or the path of a JSON file) in place of its own.

    Mappings are merged, and "auto" takes the generated value. Raises UserError for a contradiction of the recipe, an
    "auto" that zerofit has no value for, and a file that is missing or holds no JSON object.
    """
    if isinstance(user, str):
        return _merge(generated, _read(user), "", f"strategy.deepspeed: {user}: ")
    return _merge(generated, user, "", "strategy.deepspeed: ")


def _merge(generated: Config, user: Mapping[str, Any], prefix: str, where: str) -> Config:
    merged = dict(generated)
    for key, value in user.items():
        path = f"{prefix}{key}"
        if path in REFUSED:
            raise UserError(f"{where}{path} is not taken from DeepSpeed settings: say it in {REFUSED[path]}")
        if value == "auto":
            if key not in generated:
                raise UserError(f'{where}{path} is "auto", which has no value here: give one, or leave the key out')
        elif isinstance(generated.get(key), dict):
            if not isinstance(value, Mapping):
                raise UserError(f"{where}{path} must be a mapping, not {value!r}")
            merged[key] = _merge(generated[key], value, f"{path}.", where)
        elif path in OWNED and key in generated and value != generated[key]:
            raise UserError(
                f"{where}{path} is {value!r}, but by the recipe it is {generated[key]!r}: change {OWNED[path]}"
            )
        else:
            merged[key] = value
    return merged


def _read(path: str) -> Config:
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"strategy.deepspeed: cannot read {path}: {reason}") from None
    try:
        settings = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        line = text.split("\n")[error.lineno - 1]
        reason = "JSON has no comments" if re.search(r"//|/\*|#", line) else error.msg
        raise UserError(f"strategy.deepspeed: {path}:{error.lineno}: not JSON: {reason}") from None
    except ValueError as error:
        raise UserError(f"strategy.deepspeed: {path}: {error}") from None
    if not isinstance(settings, dict):
        raise UserError(f"strategy.deepspeed: {path} must hold a JSON object, not {type(settings).__name__}")
    return settings


def _unique(pairs: list[tuple[str, Any]]) -> Config:
    settings = dict(pairs)
    if len(settings) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key given twice: {next(name for name in names if names.count(name) > 1)}")
    return settings
