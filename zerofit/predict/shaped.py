"""A run's spec as it is played: its model's shape is said, and nothing is asked of the hub."""

from __future__ import annotations

from pathlib import Path

from zerofit.config.errors import UserError
from zerofit.plan.shapes import known_fields
from zerofit.plan.spec import RunSpec


def shaped(spec: RunSpec) -> RunSpec:
    """`spec` with the shape of its pretrained model, without compilation, and with an attention that torch has.

    Raises UserError for a model whose shape is not at hand.
    """
    model = spec.recipe.model
    shape = spec.shape
    if shape is None and config_directory(spec) is None:
        shape = known_fields(model)
        if shape is None:
            raise UserError(
                f"model.pretrained: the shape of {model.pretrained} is not known here, and its config.json is not at "
                "hand: name a local directory that has one, or give model.shape"
            )
    attention = "auto" if model.attention == "flash" else model.attention
    recipe = spec.recipe.model_copy(update={"model": model.model_copy(update={"attention": attention})})
    strategy = spec.strategy.model_copy(update={"compile": False})
    return spec.model_copy(update={"shape": shape, "recipe": recipe, "strategy": strategy})


def config_directory(spec: RunSpec) -> Path | None:
    """Where the config.json of a pretrained model lies, on this machine."""
    name = spec.recipe.model.pretrained
    path = None if name is None else Path(name).expanduser()
    return path if path is not None and (path / "config.json").is_file() else None
