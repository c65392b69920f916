"""What lies at a path that `init_from` names: which kind of weights, and a reader of each tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from zerofit.config.errors import UserError
from zerofit.models.pretrained import INDEX, WHOLE, Reader, safetensors_in, safetensors_of
from zerofit.models.torch_files import load, tensors_of
from zerofit.models.zero_files import LATEST, tag_directory, zero_weights

PICKLES = (".pth", ".pt", ".bin", ".ckpt")
FIELD = "init_from"
Kind = Literal["safetensors", "safetensors directory", "torch file", "deepspeed"]


def kind_of(path: Path) -> Kind:
    """Which weights these are, by names of files alone. Raises UserError where they are none that can be read.

    Of a directory that holds safetensors and DeepSpeed's files, as Trainer's checkpoints do, the safetensors are taken.
    """
    if path.is_dir():
        if (path / WHOLE).is_file() or (path / INDEX).is_file():
            return "safetensors directory"
        if tag_directory(path) is not None:
            return "deepspeed"
        raise UserError(_nothing_in(path))
    if not path.exists():
        raise UserError(f"{FIELD}: {path} does not exist")
    if path.suffix == ".safetensors":
        return "safetensors"
    if path.suffix in PICKLES:
        return "torch file"
    raise UserError(f"{FIELD}: {path} is of no known kind: give .safetensors, {', '.join(PICKLES)}, or a directory")


def stored_weights(path: Path, trust: bool) -> dict[str, Reader]:
    """Readers of the tensors at `path`, by the names that they have there. Raises UserError."""
    kind = kind_of(path)
    if kind == "safetensors directory":
        return safetensors_in(path, FIELD)
    if kind == "safetensors":
        return safetensors_of(path, FIELD)
    if kind == "torch file":
        return tensors_of(path, load(path, trust=trust))
    tag = tag_directory(path)
    assert tag is not None, "kind_of has seen it"
    return zero_weights(tag, trust)


def _nothing_in(directory: Path) -> str:
    names = sorted(path.name for path in directory.iterdir())
    there = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "nothing"
    hint = ""
    for path in sorted(directory.iterdir(), reverse=True):  # of stages, and of steps, the last
        if path.suffix in PICKLES or (path / "run.json").is_file() or tag_directory(path) is not None:
            hint = f"; did you mean {path}?"
            break
    looked = f"{WHOLE}, {INDEX}, {LATEST}, *_model_states.pt"
    return f"{FIELD}: {directory} holds no weights: looked for {looked}; there is {there}{hint}"
