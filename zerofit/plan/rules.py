"""Which rules decide what is trained: the recipe's, or its task's."""

from __future__ import annotations

from zerofit.config.model import DEFAULT_RULES, CadMllm, LanguageSection, Rule
from zerofit.config.schema import Recipe

HEAD = (Rule(pattern=r"^head\."),)
# The second: what is not of an image classifier's backbone.
ADAPTERS = (Rule(pattern=r"\.lora_"), Rule(pattern=r"^(?!backbone\.)"))
ENCODERS = Rule(pattern=r"^(?!language\.|vision\.)")
"""What a CAD-MLLM has besides its language model and its image encoder: projectors, and the point encoder."""
REST = Rule(pattern=r".", freeze=True)


def rules_of(recipe: Recipe) -> tuple[Rule, ...]:
    """The rules that decide: the recipe's, or its task's; in a probe and under LoRA what they leave out is frozen."""
    given = recipe.model.trainable
    if recipe.task == "probe":
        return (*(given or HEAD), REST)
    if recipe.model.lora is not None:
        return (*(given or _adapters(recipe)), REST)
    return given or DEFAULT_RULES


def _adapters(recipe: Recipe) -> tuple[Rule, ...]:
    model = recipe.model
    if isinstance(model, CadMllm) and (model.vision is not None or model.points is not None):
        return (*ADAPTERS[:1], ENCODERS)
    return ADAPTERS[:1] if isinstance(model, LanguageSection) else ADAPTERS
