"""Image data sets: what they hold (`describe`) and their images (`open_split`, `open_for_evaluation`).

A new source is one file with one function `open_x(Data) -> Contents`, and one line in SOURCES.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from zerofit.config.data import Data
from zerofit.config.errors import UserError
from zerofit.data.cifar import open_cifar
from zerofit.data.contents import Contents, Labels, Split, SplitName
from zerofit.data.digits import open_digits
from zerofit.data.folder import open_folder
from zerofit.data.food101 import open_food101
from zerofit.data.hub import open_hub
from zerofit.data.mnist import open_mnist
from zerofit.plan.spec import ImageFacts

SOURCES: dict[str, Callable[[Data], Contents]] = {
    "digits": open_digits,
    "folder": open_folder,
    "cifar": open_cifar,
    "food101": open_food101,
    "mnist": open_mnist,
    "hub": open_hub,
}
IGNORED = -100
"""Label of an image that could not be read and is left out: losses and metrics do not count it."""
HELD_OUT, LIMITED = 1, 2  # which draw of samples: each has its own random numbers


class Images(Dataset[tuple[Tensor, int]]):
    """Some of a split's images: item i is (uint8 [3, size, size], label).

    `labels` [n] is the label of each of them, readable or not; they are the split's own unless others are given.
    An image that cannot be read raises UserError with its name; with `skip` it is black and labelled IGNORED.
    """

    def __init__(
        self, split: Split, items: NDArray[np.int64], size: int, skip: bool, labels: Labels | None = None
    ) -> None:
        self.split, self.items, self.size, self.skip = split, items, size, skip
        self.labels = split.labels[items] if labels is None else labels
        assert self.labels.shape == items.shape

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        item = int(self.items[index])
        try:
            return self.split.square(item, self.size), int(self.labels[index])
        except Exception as error:  # broken bytes make a decoder raise anything
            if self.skip:
                return torch.zeros(3, self.size, self.size, dtype=torch.uint8), IGNORED
            raise _unreadable(self.split.name(item), error) from error

    def name(self, index: int) -> str:
        """What tells a user which image this is."""
        return self.split.name(int(self.items[index]))


def describe(data: Data, image_size: int | None, seed: int) -> ImageFacts:
    """Classes and sizes of the splits; decodes one image at most.

    Raises UserError: nothing there, a class without images, other than `data.classes` classes, nothing to train on or
    to validate on.
    """
    contents = SOURCES[data.source](data)
    found = len(contents.classes)
    if data.classes not in (None, found):
        raise UserError(
            f"data.classes: the recipe expects {data.classes} classes, but {contents.where} holds {found} "
            f"({_shortened(contents.classes)})"
        )
    origin = _validation_from(data, contents)
    train, items = _select(data, contents, "train", seed)
    return ImageFacts(
        classes=contents.classes,
        train=len(items),
        validation=len(_select(data, contents, "validation", seed)[1]),
        test=len(contents.open("test")) if contents.has("test") else 0,
        validation_from=origin,
        image_size=image_size or _longer_side(train, items, data.on_bad_item == "skip"),
    )


def open_split(data: Data, facts: ImageFacts, split: SplitName, seed: int) -> Images:
    """The images of a split. Raises UserError where the data is no longer what `facts` describe."""
    contents = SOURCES[data.source](data)
    if contents.classes != facts.classes:
        raise UserError(
            f"data.path: {contents.where} holds {len(contents.classes)} classes ({_shortened(contents.classes)}), "
            f"not the {len(facts.classes)} that the run was planned for ({_shortened(facts.classes)})"
        )
    rows, items = _select(data, contents, split, seed)
    planned = {"train": facts.train, "validation": facts.validation, "test": facts.test}[split]
    if len(items) != planned:
        raise UserError(
            f"data.path: {contents.where} holds {len(items)} {split} samples, not the {planned} planned for"
        )
    return Images(rows, items, facts.image_size, data.on_bad_item == "skip")


def open_for_evaluation(data: Data, classes: tuple[str, ...], image_size: int) -> tuple[SplitName, Images]:
    """Images that a run of `classes` never planned for: the split taken, and its images by the run's label numbers.

    The split is test, else validation, else train, and always the whole of it: `data.validation` and `data.limit` are
    about training, and so is `data.classes`. Classes are matched by name; some of the run's are enough.

    Raises UserError where an image is of another class, or where there is no labelled image.
    """
    contents = SOURCES[data.source](data)
    choices: tuple[SplitName, ...] = ("test", "validation", "train")
    split = next((name for name in choices if contents.has(name) and len(contents.open(name))), None)
    if split is None:
        raise UserError(f"data.path: {contents.where} holds no images with labels; evaluation needs some")
    rows = contents.open(split)
    known = {name: label for label, name in enumerate(classes)}
    numbering = np.array([known.get(name, IGNORED) for name in contents.classes], dtype=np.int64)
    labels = numbering[rows.labels]
    if (labels == IGNORED).any():
        unknown = contents.classes[int(rows.labels[labels == IGNORED].min())]
        raise UserError(
            f"data.path: {contents.where} has images of class {unknown} (split {split}), which is none of the run's "
            f"{len(classes)} ({_shortened(classes)}); remove them, or name the class as the run does"
        )
    return split, Images(rows, np.arange(len(rows)), image_size, data.on_bad_item == "skip", labels)


def _validation_from(data: Data, contents: Contents) -> Literal["split", "train", "test"]:
    if contents.has("validation"):
        return "split"
    if data.validation > 0:
        return "train"
    if contents.has("test"):
        return "test"
    raise UserError(
        f"data.validation: {contents.where} has neither a validation nor a test split; "
        "set the fraction of train to hold out, for example data.validation=0.1"
    )


def _select(data: Data, contents: Contents, split: SplitName, seed: int) -> tuple[Split, NDArray[np.int64]]:
    """A split, and which of its images belong to it: train gives some to validation, and obeys `data.limit`."""
    origin = _validation_from(data, contents)
    if split == "validation" and origin == "test":
        split = "test"
    if split == "test" or (split == "validation" and origin == "split"):
        whole = contents.open(split)
        return whole, np.arange(len(whole))
    if not contents.has("train"):
        raise UserError(f"data.path: {contents.where} has no split train; it can be evaluated on, not trained on")
    train = contents.open("train")
    items = np.arange(len(train))
    if origin == "train":
        held = draw(train.labels, max(1, round(data.validation * len(train))), seed, HELD_OUT)
        if split == "validation":
            return train, held
        items = np.setdiff1d(items, held)
    if not len(items):
        raise UserError(f"data.validation: {data.validation} leaves none of the {len(train)} training samples")
    if data.limit is not None and data.limit < len(items):
        items = items[draw(train.labels[items], data.limit, seed, LIMITED)]
    return train, items


def draw(labels: Labels, count: int, seed: int, purpose: int) -> NDArray[np.int64]:
    """`count` of the samples, sorted, drawn at random so that each class keeps its share (to within one sample)."""
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose,)))
    shuffled = random.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    return np.sort(by_class[((np.arange(count) + 0.5) * len(labels) / count).astype(np.int64)])


def _longer_side(split: Split, items: NDArray[np.int64], skip: bool) -> int:
    """Pixels of the first readable image's longer side."""
    for item in items:
        try:
            return max(split.image(int(item)).size)
        except Exception as error:
            if not skip:
                raise _unreadable(split.name(int(item)), error) from error
    raise UserError(f"data.path: none of the {len(items)} training images can be read")


def _unreadable(name: str, error: Exception) -> UserError:
    if isinstance(error, UnidentifiedImageError):  # its message is the address of a buffer
        reason = "of no known format"
    else:
        reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{name}: not a readable image ({reason}); mend or remove it, or set data.on_bad_item=skip")


def _shortened(names: tuple[str, ...]) -> str:
    return ", ".join(names) if len(names) <= 10 else f"{', '.join(names[:8])}, ... {names[-1]}"
