"""Pretrained weights of a part of a model: those of its image encoder, and of its point encoder."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from torch import Size, Tensor, nn
from transformers import PreTrainedModel

from zerofit.config.errors import UserError
from zerofit.models.pretrained import locate, safetensors_in, safetensors_of, translate

VISION_FIELD, POINTS_FIELD = "model.vision.pretrained", "model.points.pretrained"


def vision_weights(
    encoder: PreTrainedModel, name: str, prefix: str, idle: Collection[str]
) -> Iterator[tuple[str, Tensor]]:
    """(`prefix` and name, value) of what the directory, or the hub's model, `name` has of `encoder`.

    Raises UserError, also where it lacks something that is not `idle`.
    """
    directory = locate(name, field=VISION_FIELD)
    shapes = {one: place.shape for one, place in encoder.state_dict().items()}
    found = translate(encoder, safetensors_in(directory, VISION_FIELD))
    given = set(idle)
    for one, value in found.weights(encoder):
        _check(VISION_FIELD, directory, one, value.shape, shapes)
        yield prefix + one, value
        given.add(prefix + one)
    missing = [one for one in shapes if prefix + one not in given]
    if missing:
        raise UserError(f"{VISION_FIELD}: {directory} lacks weights of {type(encoder).__name__}: {missing[0]}")


def point_weights(encoder: nn.Module, path: Path, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """The same out of a safetensors file, whose names are the encoder's, with or without `prefix`. Raises UserError."""
    path = path.expanduser()
    if not path.is_file():
        raise UserError(f"{POINTS_FIELD}: {path} is no file; give the safetensors file of a point encoder")
    stored = safetensors_of(path, POINTS_FIELD)
    if any(name.startswith(prefix) for name in stored):  # of a whole model
        stored = {name.removeprefix(prefix): read for name, read in stored.items() if name.startswith(prefix)}
    shapes = {name: place.shape for name, place in encoder.state_dict().items()}
    for name in shapes:
        if name not in stored:
            raise UserError(f"{POINTS_FIELD}: {path} lacks {name}, which the recipe's point encoder has")
        value = stored[name]()
        _check(POINTS_FIELD, path, name, value.shape, shapes)
        yield prefix + name, value


def _check(field: str, path: Path, name: str, shape: Size, shapes: Mapping[str, Size]) -> None:
    if shape != shapes[name]:
        raise UserError(
            f"{field}: {path}: {name} has shape {tuple(shape)} there, but {tuple(shapes[name])} in the recipe's "
            "encoder: give the sizes that it was made with"
        )
