"""Which rules decide what is trained: the recipe's, or its task's."""

from __future__ import annotations

from zerofit.config.model import DEFAULT_RULES, Rule
from zerofit.config.schema import Recipe

HEAD = (Rule(pattern=r"^head\."),)
# The second: what is not of an image classifier's backbone.
ADAPTERS = (Rule(pattern=r"\.lora_"), Rule(pattern=r"^(?!backbone\.)"))
REST = Rule(pattern=r".", freeze=True)


def rules_of(recipe: Recipe) -> tuple[Rule, ...]:
    """The rules that decide: the recipe's, or its task's; in a probe and under LoRA what they leave out is frozen."""
    given = recipe.model.trainable
    if recipe.task == "probe":
        return (*(given or HEAD), REST)
    if recipe.model.lora is not None:
        return (*(given or (ADAPTERS[:1] if recipe.model.kind == "causal_lm" else ADAPTERS)), REST)
    return given or DEFAULT_RULES
