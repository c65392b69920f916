"""Evaluate a checkpoint of an image classifier, with or without DeepSpeed: it reads the whole weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zerofit.config.data import Data
from zerofit.data.contents import SplitName
from zerofit.data.images import Images, open_for_evaluation, open_split
from zerofit.models.build import build_model
from zerofit.plan.spec import RunSpec
from zerofit.tasks.counting import count
from zerofit.tasks.loop import this_device
from zerofit.train.engine import WEIGHTS
from zerofit.train.strategy import evaluation_engine

PLACE = {"source", "path", "name", "image_column", "label_column"}
"""What says which images they are; the other fields say how they are read."""


def evaluate(spec: RunSpec, checkpoint: Path, data: Data | None) -> dict[str, Any]:
    """Figures of `checkpoint` over the test split of `data` (null: the run's own). Collective.

    Where there is none it is another split, which `split` names.
    Raises UserError where `data` has images of a class that is none of the run's.
    """
    split, images = _images(spec, data)
    device = this_device(spec)
    engine = evaluation_engine(spec, device)
    model = build_model(spec, engine.placement(), engine.compute_dtype, weights=checkpoint / WEIGHTS)
    model.eval()
    with engine.autocast():
        return {"split": split, **count(model, spec, data or spec.recipe.images, images, device)}


def _images(spec: RunSpec, data: Data | None) -> tuple[SplitName, Images]:
    """Of the run's own data, even where `data` reads it otherwise, what was not trained on; of other data, its best."""
    own = spec.recipe.images
    if data is not None and data.model_dump(include=PLACE) != own.model_dump(include=PLACE):
        return open_for_evaluation(data, spec.images.classes, spec.images.image_size)
    split: SplitName = "test" if spec.images.test else "validation"
    reading = (data or own).model_copy(update={"validation": own.validation, "limit": own.limit})
    return split, open_split(reading, spec.images, split, spec.recipe.train.seed)
