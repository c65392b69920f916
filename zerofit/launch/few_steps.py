"""A recipe for a few optimizer steps and nothing besides: for comparing strategies, and for measuring them."""

from __future__ import annotations

from typing import Any

from zerofit.config.schema import Recipe


def for_steps(recipe: Recipe, steps: int, **more: Any) -> Recipe:
    """`recipe` for so many steps, each in metrics.jsonl, without a checkpoint, an evaluation or another tracker.

    `more` are sections that are to be others, too.
    """
    never = {"every_steps": None, "every_epochs": None, "at_end": False}
    nothing = {**never, "at_start": False, "problems": None, "shapes": None}
    changes = {
        "train": recipe.train.model_copy(update={"epochs": None, "max_steps": steps}),
        "checkpoint": recipe.checkpoint.model_copy(update=never),
        "evaluate": recipe.evaluate.model_copy(update=nothing),
        "track": recipe.track.model_copy(update={"every": 1, "to": ()}),
        "profile": None,
    }
    return recipe.model_copy(update={**changes, **more})
