"""`probe:` in a recipe: how good the features of a frozen backbone are, by a published protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from zerofit.config.ranges import BelowOne, Count, Positive
from zerofit.config.section import Section


class Probe(Section):
    """The task probe."""

    preset: str | None = None
    """Name of a published protocol (`zerofit/recipes/presets/`), whose fields hold where the recipe gives none."""
    features: Literal["online", "cached"] = "online"
    """online: the backbone runs on every batch, as published. cached: it runs once, heads train on what it gave."""
    batch_norm: bool = False
    """BatchNorm1d without affine parameters before the head (MAE)."""
    head_std: Positive = 0.01
    """Standard deviation of the fresh head's weights (normal, mean 0); biases start at 0."""
    views: Count = 1
    """cached: how many augmented views of each training image are kept, used in turn, one an epoch; 1 is the view of
    evaluation, not augmented."""
    lr_scales: tuple[Positive, ...] = Field(default=(1.0,), min_length=1)
    """cached: factors on the learning rate, a head each, trained together."""
    batch_norms: tuple[bool, ...] | None = Field(default=None, min_length=1)
    """cached: heads with and without BatchNorm; null: as batch_norm says."""
    held_out: BelowOne = 0.1
    """cached: fraction of the training images on which the best of several heads is chosen, never on test."""
    cache: Path | None = None
    """cached: where features are kept; null: $ZEROFIT_CACHE/features, by default ~/.cache/zerofit/features."""

    @model_validator(mode="after")
    def _possible(self) -> Probe:
        heads = len(self.lr_scales) * len(self.batch_norms or (self.batch_norm,))
        if self.features == "online":
            for name in ("views", "lr_scales", "batch_norms", "cache"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} is for cached features alone; set features: cached, or leave it out")
        elif heads > 1 and self.held_out == 0:
            raise ValueError(f"held_out 0 leaves nothing to choose among {heads} heads on; give a fraction, e.g. 0.1")
        return self
