"""Files of `torch.save`, whose tensors stay on the drive until they are used.

They are pickles, and a pickle can run any code. torch's restricted unpickler (`weights_only=True`) makes tensors and
plain values alone; what needs more is refused by name, unless the user trusts the file. DeepSpeed's optimizer files
name a few of its own classes beside the weights: for those stands a class that does nothing, so that they are read
where DeepSpeed is not installed, and no code of it runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import safe_globals

from zerofit.config.errors import UserError
from zerofit.models.pretrained import Reader

ZIP = b"PK\x03\x04"
WRAPPERS = ("model", "state_dict", "module")
"""Keys under which training scripts keep the weights, beside optimizer and epoch."""
PARALLEL = "module."
"""What DistributedDataParallel puts before every name."""


class Ignored:
    """Stands for a class whose values nobody here reads."""

    def __new__(cls, *_: Any) -> Ignored:
        """Whatever it is made of."""
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass


DEEPSPEED = (
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",  # the scale of the loss: numbers
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
    "deepspeed.runtime.zero.config.ZeroStageEnum",  # 0 to 3
    "deepspeed.utils.tensor_fragment.fragment_address",  # where a parameter lies in a flat tensor: two numbers
)


def load(path: Path, *, trust: bool) -> Any:
    """What `torch.save` wrote to `path`, on the CPU. Raises UserError, in one line.

    With `trust` the pickle may run what it wants.
    """
    with path.open("rb") as file:
        mapped = file.read(len(ZIP)) == ZIP  # older torch wrote a plain pickle, which cannot be mapped
    try:
        with safe_globals([(Ignored, name) for name in DEEPSPEED] if not trust else []):
            return torch.load(path, map_location="cpu", mmap=mapped, weights_only=not trust)
    except Exception as error:  # a broken pickle, and one that is trusted, can raise anything
        raise UserError(_refusal(path, error, trust)) from None


def tensors_of(path: Path, loaded: Any) -> dict[str, Reader]:
    """Readers of the state dict in what `path` held: itself, or under one of `WRAPPERS`. Raises UserError."""
    what = "it"
    for key in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            what, loaded = f"its {key}", loaded[key]
            break
    if not isinstance(loaded, dict):
        raise UserError(f"init_from: {path} holds a {type(loaded).__name__}, not a state dict (name -> tensor)")
    tensors = {key: value for key, value in loaded.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        keys = ", ".join(map(str, list(loaded)[:5])) or "nothing"
        raise UserError(f"init_from: {path} holds no state dict: {what} has no tensors, but {keys}")
    return readers(tensors)


def readers(tensors: Mapping[str, Tensor]) -> dict[str, Reader]:
    """Readers of tensors that are at hand; the prefix `module.`, where all names have it, is taken off."""
    strip = all(name.startswith(PARALLEL) for name in tensors)
    return {
        name.removeprefix(PARALLEL) if strip else name: partial(Tensor.detach, value) for name, value in tensors.items()
    }


def _refusal(path: Path, error: Exception, trust: bool) -> str:
    said = str(error)
    needed = re.search(r"GLOBAL ([\w.]+)", said)
    if needed is not None and not trust:
        return (
            f"init_from: {path} is a pickle that needs {needed[1]}, and could run any code; "
            "if you trust whoever made it: --trust"
        )
    lines = said.rpartition("WeightsUnpickler error:")[2].split("Check the documentation")[0].split("\n")
    reason = next((line.strip() for line in lines if line.strip() and "Weights only load failed" not in line), "")
    return f"init_from: {path} is broken, or no file of torch.save: {reason[:200] or type(error).__name__}"
