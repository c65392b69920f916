"""Linear probing: how well a head does on a frozen backbone, by a published protocol (`probe.preset`).

online: as published, the backbone runs on every augmented batch; the same loop as `classify`, with other rules.
cached: the backbone runs once, and a grid of heads is trained on what it gave, in seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerofit.config.errors import UserError
from zerofit.config.model import Rule
from zerofit.config.schema import Recipe
from zerofit.data.images import describe
from zerofit.plan.rules import HEAD
from zerofit.plan.spec import ImageFacts, RunSpec

if TYPE_CHECKING:
    from zerofit.tasks.loop import Work

HEAD_ALONE = tuple(Rule(pattern=pattern) for pattern in (HEAD[0].pattern, "^head", "head"))
"""Rules that train the head and nothing else, at the optimizer's own rate and decay."""


class Probe:
    """The task `probe`."""

    def describe(self, recipe: Recipe) -> ImageFacts:
        """Classes and sizes of the recipe's images. Raises UserError where they or the settings cannot be used."""
        assert recipe.probe is not None, "the schema gives every probe its settings"
        if recipe.probe.features == "cached":
            check_cached(recipe)
        return describe(recipe.images, recipe.image_model.image_size, recipe.train.seed)

    def restore(self, spec: RunSpec) -> None:
        """Nothing is stored."""

    def train(self, spec: RunSpec, resume: Path | None) -> dict[str, Any]:
        """Train as `probe.features` says; returns result.json's body. Collective."""
        assert spec.recipe.probe is not None
        if spec.recipe.probe.features == "cached":
            from zerofit.tasks.cached import train_cached

            return train_cached(spec)
        from zerofit.tasks.loop import train

        return train(spec, resume)

    def work(self) -> Work:
        """What it puts into the loop, online."""
        from zerofit.tasks.online import ImageWork

        return ImageWork()


def check_cached(recipe: Recipe) -> None:
    """Raise UserError where features that are computed once cannot serve the recipe."""
    assert recipe.probe is not None
    rules: tuple[Rule, ...] = recipe.model.trainable or HEAD
    if any(rule not in HEAD_ALONE for rule in rules):
        given = ", ".join(rule.pattern for rule in rules)
        raise UserError(
            "probe.features: cached features come from a model that is frozen but for the head, and model.trainable "
            f"has the rules {given}; use features: online, or model.trainable=[head]"
        )
    for section, at_end in (("checkpoint", recipe.checkpoint.at_end), ("evaluate", recipe.evaluate.at_end)):
        if not at_end:
            raise UserError(f"{section}.at_end: a probe on cached features saves and tests its head; leave it true")
    augment = recipe.images.augment
    if augment.mixup or augment.cutmix:
        raise UserError("probe.features: cached features are of single images; set augment.mixup and cutmix to 0")
    if recipe.probe.views > 1 and (augment.crop_scale, augment.flip, augment.randaugment) == (None, 0.0, None):
        raise UserError(
            f"probe.views: {recipe.probe.views} views of an image are all the same without augmentation; "
            "set views to 1, or data.augment"
        )
