"""`data:` in a recipe: images, their classes, and how they are augmented."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from zerofit.config.ranges import NO_BOOL, AboveZero, BelowOne, Count, Fraction, NonNegative, Number, Positive, Whole
from zerofit.config.section import Section


class Augment(Section):
    """Augmentation of training batches, on the device (kornia): a function of (seed, epoch, sample) alone."""

    crop_scale: tuple[AboveZero, AboveZero] | None = None
    """Random resized crop: range of the crop's area as fractions of the image, for example [0.5, 1.0]."""
    crop_ratio: tuple[Positive, Positive] = (0.75, 4.0 / 3.0)
    """Range of the crop's width / height."""
    flip: Fraction = 0.0
    """Probability of a horizontal flip."""
    randaugment: tuple[Count, Annotated[int, Field(ge=0, le=30), NO_BOOL]] | None = None
    """RandAugment: [number of operations, magnitude 0..30]."""
    mixup: NonNegative = 0.0
    """Alpha of mixup's Beta distribution; 0 is off."""
    cutmix: NonNegative = 0.0
    """Alpha of CutMix's Beta distribution; 0 is off. With both, each sample draws one of the two."""

    @model_validator(mode="after")
    def _ordered(self) -> Augment:
        for name in ("crop_scale", "crop_ratio"):
            pair = getattr(self, name)
            if pair is not None and pair[0] > pair[1]:
                raise ValueError(f"{name} must be [smaller, larger], not {list(pair)}")
        return self


class Data(Section):
    """Images and their classes."""

    source: Literal["digits", "folder", "cifar", "food101", "mnist", "hub"]
    """digits (embedded), folder (one per class; Tiny-ImageNet), cifar (10/100, binary or python), food101 (as
    unpacked), mnist (idx), hub (`datasets`)."""
    path: str | None = None
    """Directory, archive, or hub id; digits takes none."""
    name: str | None = None
    """Configuration of a hub data set."""
    image_column: str | None = None
    """Hub data set's image column; null finds the one of type Image."""
    label_column: str | None = None
    """Hub data set's label column; null finds the one of type ClassLabel. CIFAR-100: `fine` (default) or `coarse`."""
    classes: Count | None = None
    """Expected number of classes; it is read from the data, and a contradiction is an error."""
    validation: BelowOne = 0.0
    """Fraction of train held out for validation where the data has no validation split; 0: the test split."""
    limit: Count | None = None
    """Use only this many training samples (drawn with `train.seed`)."""
    mean: tuple[Number, Number, Number] = (0.5, 0.5, 0.5)
    """Subtracted per channel from pixels in 0..1."""
    std: tuple[Positive, Positive, Positive] = (0.5, 0.5, 0.5)
    """Divides per channel after the mean."""
    workers: Whole = 0
    """Data loader processes per rank."""
    on_bad_item: Literal["fail", "skip"] = "fail"
    """An unreadable image stops the run with its name, or is left out (and counted)."""
    augment: Augment = Augment()
    """Augmentation of training batches."""

    @model_validator(mode="after")
    def _path(self) -> Data:
        if (self.source == "digits") != (self.path is None):
            raise ValueError(
                "digits is embedded and takes no path" if self.path is not None else f"{self.source} needs a path"
            )
        return self
