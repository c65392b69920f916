"""A recipe's images as (pixels, labels), to look at in a notebook, and what they are, for a run to read them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from torch import Tensor
from torch.utils.data import DataLoader

from zerofit.config.data import Data
from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.config.section import Section
from zerofit.config.strategy import AUTO
from zerofit.data.augment import Augmenter
from zerofit.data.images import describe, open_split
from zerofit.data.loader import Loader, eval_loader, train_loader
from zerofit.data.order import EvalOrder, TrainOrder
from zerofit.plan.batch import make_batches
from zerofit.plan.spec import ImageFacts

Pair = tuple[Tensor, Tensor]
SOURCES_BY_CLASS = {
    "CIFAR10": "cifar",
    "CIFAR100": "cifar",
    "MNIST": "mnist",
    "FashionMNIST": "mnist",
    "Food101": "food101",
    "Dataset": "hub",
}
"""Nearest source of data by the name of the class that others read it with; `folder` for the rest."""


class Description(Section):
    """What a loader reads: all that a run needs to read the same images in its own processes."""

    data: Data
    """The recipe's section."""
    facts: ImageFacts
    """What the data was found to hold; its image_size is that of the batches."""
    batch_size: int
    """Images in a batch."""
    seed: int
    """Decides order, augmentation, and what `data.validation` and `data.limit` draw."""


class ImageLoader(Loader):
    """A DataLoader of (pixels float32 [B, 3, S, S] normalised, labels int64 [B]). It reads in this process."""

    def __init__(
        self, inner: Loader, split: Literal["train", "test"], description: Description, convert: Callable[..., Pair]
    ) -> None:
        super().__init__(
            inner.dataset, batch_sampler=inner.batch_sampler, collate_fn=inner.collate_fn, generator=inner.generator
        )
        self.split, self.description, self.convert = split, description, convert
        self.epoch = 0

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in label order."""
        return self.description.facts.classes

    def __iter__(self) -> Iterator[Pair]:  # type: ignore[override]
        if isinstance(self.batch_sampler, TrainOrder):
            self.batch_sampler.seek(self.epoch)
            self.epoch += 1
        for batch in super().__iter__():
            yield self.convert(batch)


def image_loaders(recipe: Recipe) -> tuple[ImageLoader, ImageLoader]:
    """Training images in the order of a run on one rank, each pass the next epoch; and each test image once.

    Augmented as a run would, but for mixup and CutMix, which mix labels too. The test images are those of validation
    where the data has no test split. Raises UserError for data that cannot be used, and for less than a batch of it.
    """
    data, seed = recipe.images, recipe.train.seed
    facts = describe(data, recipe.image_model.image_size, seed)
    assert recipe.train.micro_batch != AUTO, "create_data_loaders gives a number"
    if facts.train < recipe.train.micro_batch:
        raise UserError(
            f"create_data_loaders(batch_size={recipe.train.micro_batch}): there are {facts.train} training samples, so "
            f"no batch is possible: use at most {facts.train}"
        )
    batches = make_batches(recipe, facts, ranks=1)
    description = Description(data=data, facts=facts, batch_size=batches.micro, seed=seed)
    augment = Augmenter(
        data.augment.model_copy(update={"mixup": 0.0, "cutmix": 0.0}),
        image_size=facts.image_size,
        classes=len(facts.classes),
        seed=seed,
        mean=data.mean,
        std=data.std,
    )
    normalise = Augmenter.plain(mean=data.mean, std=data.std)

    def valid(batch: dict[str, Tensor]) -> Pair:
        keep = batch["valid"]
        return normalise(batch["images"][keep]), batch["labels"][keep]

    train = open_split(data, facts, "train", seed)
    test = open_split(data, facts, "test" if facts.test else "validation", seed)
    return (
        ImageLoader(train_loader(train, TrainOrder(len(train), batches, seed, rank=0)), "train", description, augment),
        ImageLoader(
            eval_loader(test, EvalOrder(len(test), batches.evaluate_micro, rank=0, ranks=1)), "test", description, valid
        ),
    )


def descriptions(train: ImageLoader | None, test: ImageLoader | None) -> tuple[Description, Description]:
    """What a pair of loaders reads. Raises UserError for other loaders, for different data, and for a swapped pair."""
    ours, theirs = _description("train", train), _description("test", test)
    fields = [("image_size", ours.facts.image_size, theirs.facts.image_size), ("seed", ours.seed, theirs.seed)]
    fields += [(name, getattr(ours.data, name), getattr(theirs.data, name)) for name in Data.model_fields]
    differ = [f"{name} {one!r} and {other!r}" for name, one, other in fields if one != other]
    if differ:
        raise UserError(
            f"train_loader and test_loader are of different data ({'; '.join(differ)}): take both from one call of "
            "create_data_loaders"
        )
    return ours, theirs


def _description(split: str, loader: ImageLoader | None) -> Description:
    if not isinstance(loader, ImageLoader):
        raise UserError(_foreign(f"{split}_loader", loader))
    if loader.split != split:
        raise UserError(
            f"{split}_loader is the loader of the {loader.split} images: create_data_loaders returns train_loader, "
            "test_loader, in this order"
        )
    return loader.description


def _foreign(name: str, loader: object) -> str:
    """One line that says what to write instead of somebody else's loader."""
    source, options = "folder", ""
    if isinstance(loader, DataLoader):
        source = SOURCES_BY_CLASS.get(type(loader.dataset).__name__, source)
        options = f", batch_size={loader.batch_size or 32}"
        options += f", workers={loader.num_workers}" if loader.num_workers else ""
    fault = "is missing"
    if loader is not None:
        kind = type(loader)
        fault = f"is a {kind.__module__}.{kind.__qualname__}, which cannot be given to the processes that train"
    return (
        f"{name} {fault}: write train_loader, test_loader = "
        f"zerofit.create_data_loaders({source!r}, path='...'{options})"
    )
