"""Which engine a GRPO run's completions come from: what `grpo.rollout.engine: auto` becomes, and what cannot be."""

from __future__ import annotations

import importlib.util
from typing import Literal

from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.plan.spec import Hardware

RolloutEngine = Literal["graph", "hf", "vllm"]


def vllm_is_installed() -> bool:
    """Without importing it, which takes long."""
    return importlib.util.find_spec("vllm") is not None


def resolve_engine(recipe: Recipe, hardware: Hardware) -> RolloutEngine | None:
    """The engine; None for another task than grpo. Raises UserError where vllm is asked for and cannot be had.

    auto is vllm where it is installed, there is a GPU and the whole model is trained, else graph: TRL hands vllm the
    weights under the model's own names, which adapters in its blocks change.
    """
    if recipe.grpo is None:
        return None
    asked = recipe.grpo.rollout.engine
    installed = vllm_is_installed()
    adapted = recipe.model.lora is not None
    if asked == "auto":
        return "vllm" if installed and hardware.device == "cuda" and not adapted else "graph"
    if asked == "vllm":
        if adapted:
            raise UserError("grpo.rollout.engine: vllm takes no adapters (model.lora) here; use graph")
        if hardware.device != "cuda":
            raise UserError("grpo.rollout.engine: vllm needs a GPU; use graph")
        if not installed:
            raise UserError("grpo.rollout.engine: vllm is not installed: pip install 'zerofit[vllm]', or use graph")
    return asked
