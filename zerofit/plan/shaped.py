"""A run whose models are given by their shape, whatever their weights: what they weigh does not depend on these."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zerofit.config.model import CadMllm, LanguageSection, Model
from zerofit.plan.anatomy import fields_of, offline
from zerofit.plan.spec import RunSpec

ABOUT = ("_name_or_path", "auto_map", "torch_dtype", "dtype", "transformers_version", "architectures")
"""Fields of a config.json that are no sizes."""


def shaped(spec: RunSpec) -> RunSpec:
    """The same run with a model of the same shape, which needs no file.

    Weights that came from somewhere still do: `origin`, which nobody reads, is then what was pretrained. Raises
    Unpredicted where the shape is not at hand.
    """
    model: Model = spec.recipe.model
    if isinstance(model, CadMllm):
        model = offline(model)
    shape, origin = spec.shape, spec.origin
    if origin is None and model.pretrained is not None:
        origin = Path(model.pretrained)
    if model.pretrained is not None:
        shape = {name: value for name, value in fields_of(model).items() if name not in ABOUT}
        changes: dict[str, Any] = {"pretrained": None, "shape": shape}
        if isinstance(model, LanguageSection):
            changes["tokenizer"] = model.tokenizer or "bytes"  # which is not asked: the facts have what it knows
        model = model.model_copy(update=changes)
    recipe = spec.recipe.model_copy(update={"model": model})
    return spec.model_copy(update={"recipe": recipe, "shape": shape, "origin": origin})
