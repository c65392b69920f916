"""Which engine a GRPO run's completions come from: what `grpo.rollout.engine: auto` becomes, and what cannot be."""

from __future__ import annotations

import importlib.util
from typing import Literal

from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.plan.spec import Hardware, RunSpec

RolloutEngine = Literal["graph", "hf", "vllm"]


def vllm_is_installed() -> bool:
    """Without importing it, which takes long."""
    return importlib.util.find_spec("vllm") is not None


def resolve_engine(recipe: Recipe, hardware: Hardware) -> RolloutEngine | None:
    """The engine; None for another task than grpo. Raises UserError where vllm is asked for and cannot be had.

    auto is vllm where it is installed, there is a GPU, the whole model is trained and tokens are drawn, else graph: TRL
    hands vllm the weights under the model's own names, which adapters in its blocks change.
    """
    if recipe.grpo is None:
        return None
    asked = recipe.grpo.rollout.engine
    installed = vllm_is_installed()
    adapted = recipe.model.lora is not None
    if asked == "auto":
        able = installed and hardware.device == "cuda" and not adapted and recipe.grpo.sampling.temperature > 0
        return "vllm" if able else "graph"
    if asked == "vllm":
        if adapted:
            raise UserError("grpo.rollout.engine: vllm takes no adapters (model.lora) here; use graph")
        if not recipe.grpo.sampling.temperature:
            raise UserError(
                "grpo.rollout.engine: vllm takes no grpo.sampling.temperature of 0 here, since TRL divides by it; "
                "use graph, or a temperature above 0"
            )
        if not installed:
            raise UserError("grpo.rollout.engine: vllm is not installed: pip install 'zerofit[vllm]', or use graph")
    return asked


def corrects(spec: RunSpec) -> bool:
    """Whether TRL weighs each completion by how likely the trained model finds it, against what vLLM said.

    Not where top_k or top_p cut: TRL has vLLM tell probabilities after cuts (`processed_logprobs`), which the model's
    forward does not know. Of a whole completion the ratio would be next to nothing, and so would its gradient.
    """
    grpo = spec.recipe.grpo
    cuts = grpo is not None and (grpo.sampling.top_k > 0 or grpo.sampling.top_p < 1)
    return spec.rollout_engine == "vllm" and not cuts
