"""Evaluate a checkpoint of an image classifier, with or without DeepSpeed: it reads the whole weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from zerofit.config.schema import Data
from zerofit.models.build import build_model
from zerofit.plan.spec import RunSpec
from zerofit.tasks import TASKS
from zerofit.tasks.classify import this_device
from zerofit.tasks.counting import count
from zerofit.train.strategy import WEIGHTS, Replicated, evaluation_engine


def evaluate(spec: RunSpec, checkpoint: Path, data: Data | None) -> dict[str, Any]:
    """Figures of `checkpoint` over the test split of `data` (null: the run's own). Collective.

    Raises UserError where `data` has other classes than the run's.
    """
    facts = spec.data
    if data is not None:
        recipe = spec.recipe.model_copy(update={"data": data.model_copy(update={"classes": len(facts.classes)})})
        facts = TASKS[spec.recipe.task].describe(recipe).model_copy(update={"image_size": spec.data.image_size})
    device = this_device(spec)
    engine = evaluation_engine(spec, device)
    model = build_model(spec, engine.placement(), engine.compute_dtype, weights=checkpoint / WEIGHTS)
    model.eval()
    low = isinstance(engine, Replicated) and engine.compute_dtype != torch.float32
    with torch.autocast(device.type, engine.compute_dtype, enabled=low):
        split: Literal["test", "validation"] = "test" if facts.test else "validation"
        return {"split": split, **count(model, spec, data or spec.recipe.data, facts, split, device)}
