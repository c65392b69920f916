"""DeepSpeed's settings as users have them: a JSON file or a mapping, and the strategy that they are where they are all.

What decides a strategy is read here (`whole_strategy`); the rest, and whether they agree with the recipe, is compared
where they are laid over the generated settings (deepspeed_user.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zerofit.config.errors import UserError
from zerofit.config.limited import read_limited
from zerofit.plan.file_words import Said, Word, is_count

Config = dict[str, Any]

NAMES = {1: "zero1", 2: "zero2", 3: "zero3"}
"""Strategies by ZeRO stage; zero3 with quantised weights is zeropp."""
LOW = ("bf16", "fp16")


def read_deepspeed(given: Mapping[str, Any] | str, where: str = "strategy.deepspeed: ") -> tuple[Config, str]:
    """The settings, and how messages on them begin: after `where` comes the file's path.

    Raises UserError where a file cannot be read or holds no JSON object.
    """
    if isinstance(given, str):
        return _read(given, where), f"{where}{given}: "
    return dict(given), where


def whole_strategy(settings: Mapping[str, Any], where: str) -> Said:
    """What settings that are the whole strategy say of its fields. Raises UserError where they make none."""
    zero = settings.get("zero_optimization")
    if not isinstance(zero, Mapping):
        raise UserError(f"{where}zero_optimization must be a mapping with stage 1, 2 or 3, not {zero!r}")
    stage = zero.get("stage", 0)
    if stage == 0 and not isinstance(stage, bool):
        raise UserError(
            f"{where}zero_optimization.stage is 0, which is DeepSpeed without ZeRO: zerofit runs that as plain ddp; "
            "use strategy: ddp"
        )
    if not is_count(stage) or stage not in NAMES:
        raise UserError(f"{where}zero_optimization.stage is {stage!r}: it takes 1, 2 or 3")
    name, key = NAMES[stage], "zero_optimization.stage"
    if stage == 3 and zero.get("zero_quantized_weights") is True:
        name, key = "zeropp", "zero_optimization.zero_quantized_weights"
    said: Said = {"name": Word(key, stage, name)}
    offload = _offload(zero, where)
    said["offload"] = Word("zero_optimization.offload_optimizer", offload, offload)
    precision = _precision(settings)
    return said if precision is None else {**said, "precision": precision}


def _offload(zero: Mapping[str, Any], where: str) -> Config:
    """The recipe's `offload`."""
    places: dict[str, str | None] = {}
    paths: dict[str, str] = {}
    pins: list[bool] = []
    for ours, key in (("optimizer", "offload_optimizer"), ("params", "offload_param")):
        block = zero.get(key)
        if block is None:
            block = {}
        if not isinstance(block, Mapping):
            raise UserError(f"{where}zero_optimization.{key} must be a mapping, not {block!r}")
        device = block.get("device", "none")
        if device not in ("none", "auto", "cpu", "nvme"):
            raise UserError(f"{where}zero_optimization.{key}.device is {device!r}: it takes none, cpu or nvme")
        places[ours] = None if device in ("none", "auto") else device
        if device == "nvme" and isinstance(block.get("nvme_path"), str):
            paths[key] = block["nvme_path"]
        if places[ours] is not None and isinstance(block.get("pin_memory"), bool):
            pins.append(block["pin_memory"])
    if len(set(paths.values())) > 1:
        both = " and ".join(f"{key}.nvme_path is {path!r}" for key, path in paths.items())
        raise UserError(f"{where}zero_optimization: {both}: zerofit has one directory for both; give the same")
    return {**places, "nvme_path": next(iter(paths.values()), None), "pin_memory": all(pins)}


def _precision(settings: Mapping[str, Any]) -> Word | None:
    """float32 only where both of the others are switched off: a section that is left out is the script's to decide."""
    enabled = {name: _enabled(settings.get(name)) for name in LOW}
    on = [name for name, value in enabled.items() if value is True]
    if len(on) == 1:
        return Word(f"{on[0]}.enabled", True, on[0])
    if all(value is False for value in enabled.values()):
        return Word("bf16.enabled and fp16.enabled", False, "fp32")
    return None


def _enabled(section: Any) -> Any:
    return section.get("enabled") if isinstance(section, Mapping) else None


def _read(path: str, where: str) -> Config:
    try:
        text = read_limited(Path(path).expanduser()).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"{where}cannot read {path}: {reason}") from None
    try:
        settings = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        line = text.split("\n")[error.lineno - 1]
        reason = "JSON has no comments" if re.search(r"//|/\*|#", line) else error.msg
        raise UserError(f"{where}{path}:{error.lineno}: not JSON: {reason}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}{path}: {error}") from None
    if not isinstance(settings, dict):
        raise UserError(f"{where}{path} must hold a JSON object, not {type(settings).__name__}")
    return settings


def _unique(pairs: list[tuple[str, Any]]) -> Config:
    settings = dict(pairs)
    if len(settings) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key given twice: {next(name for name in names if names.count(name) > 1)}")
    return settings
