"""What a recipe's data is taken to hold where it is not there: enough to plan by, and never enough to train by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zerofit.config.data import Data
from zerofit.config.located import HUB_ID, located
from zerofit.config.model import CadMllm, LanguageSection
from zerofit.config.schema import LANGUAGE, Recipe
from zerofit.plan.anatomy import encoder_fields, slots
from zerofit.plan.decoder import context_of
from zerofit.plan.shapes import known_fields
from zerofit.plan.slots import size_of
from zerofit.plan.spec import CadFacts, ImageFacts, TextFacts

SAMPLES = 10_000
"""Training samples where nothing says how many."""
HELD_OUT = 1_000
"""Samples to validate and to test on, likewise."""
EMBEDDED = ("digits", "arithmetic", "parts")
"""Sources that are always there."""
TOKENIZERS = ("bytes", "problems", "parts")
"""Tokenizers that are always there (data/tokenizer.py)."""
HUB = "hf:"
"""What stands before a data set of the hub, in a path of text."""


@dataclass(frozen=True)
class Published:
    """A set of images as it is published."""

    classes: int
    train: int
    held_out: int
    size: int
    """Pixels per side of its images, or of the longer one of the first."""


SETS = {
    "cifar-100": Published(100, 50_000, 10_000, 32),
    "cifar-10": Published(10, 50_000, 10_000, 32),
    "cifar100": Published(100, 50_000, 10_000, 32),
    "cifar10": Published(10, 50_000, 10_000, 32),
    "food-101": Published(101, 75_750, 25_250, 512),
    "food101": Published(101, 75_750, 25_250, 512),
    "tiny-imagenet": Published(200, 100_000, 10_000, 64),
    "imagenet-1k": Published(1000, 1_281_167, 50_000, 500),
    "mnist": Published(10, 60_000, 10_000, 28),
}
"""By what their paths and hub ids have in them."""
UNKNOWN = Published(1000, SAMPLES, HELD_OUT, 224)


def missing(recipe: Recipe) -> str | None:
    """Why the recipe's data is not asked, in a few words; None: all is here, or was downloaded before.

    The hub is not asked. Clouds and images of embedded parts take minutes to make, which a plan does not.
    """
    why = _absent(recipe)
    if why is not None:
        return f"data not found ({why})"
    if recipe.data.source == "parts" and (recipe.cad.shows("points") or recipe.cad.shows("image")):
        return "data not made (a plan draws no clouds and images)"
    return None


def _absent(recipe: Recipe) -> str | None:
    for field, path in _paths(recipe):
        if path.startswith(HUB) or (field == "data.path" and recipe.data.source == "hub"):
            name = path.removeprefix(HUB)
            if not Path(path).exists() and not _downloaded_set(name):
                return f"{field}: {name} has not been downloaded"
        elif not Path(path).expanduser().exists():
            return f"{field}: {path} does not exist"
    for field, name, wanted in _names(recipe):
        on_hub = HUB_ID.fullmatch(name) and not Path(name).expanduser().is_dir()
        if on_hub and located(name, field, list(wanted), offline=True) is None:
            return f"{field}: {name} has not been downloaded"
    return None


def assumed_facts(recipe: Recipe) -> ImageFacts | TextFacts:
    """What the data is taken to hold: sizes that the recipe names, counts of known sets, samples as long as allowed.

    Raises UserError for an image encoder whose patches do not tile its images.
    """
    if isinstance(recipe.data, Data):
        return _images(recipe)
    text = _text(recipe)
    return text if recipe.task in LANGUAGE else _cad(recipe, text)


def said(recipe: Recipe, facts: ImageFacts | TextFacts, why: str) -> str:
    """One line on what was assumed; `why` is what `missing` gave."""
    if isinstance(facts, ImageFacts):
        size = recipe.image_model.image_size or facts.image_size
        what = f"{facts.train:,} images of {size} pixels in {len(facts.classes)} classes"
    else:
        unit = "prompts" if recipe.task == "grpo" else "samples"
        what = f"{unit} of {facts.longest:,} tokens (data.max_length), {facts.train:,} of them"
    return f"{why}: planned for {what}"


def _paths(recipe: Recipe) -> Iterator[tuple[str, str]]:
    if recipe.data.source in EMBEDDED:
        return
    fields = ("path", "validation_path", "test_path") if recipe.task in LANGUAGE else ("path",)
    for field in fields:
        path = dict(recipe.data)[field]
        if path is not None:
            yield f"data.{field}", path


def _names(recipe: Recipe) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Fields that may name a model of the hub, of which `describe` needs files."""
    model = recipe.model
    if not isinstance(model, LanguageSection):
        return
    name = model.tokenizer or model.pretrained
    if name is not None and name not in TOKENIZERS:
        yield ("model.tokenizer" if model.tokenizer else "model.pretrained"), name, ("tokenizer.json",)
    if isinstance(model, CadMllm) and model.vision is not None and model.vision.pretrained is not None:
        yield "model.vision.pretrained", model.vision.pretrained, ("config.json",)


def _downloaded_set(name: str) -> bool:
    """Whether the hub's data set, or what `datasets` made of it, lies in a cache."""
    from huggingface_hub import constants

    owner, _, bare = name.rpartition("/")
    made = f"{owner}___{bare}" if owner else bare
    hub = Path(constants.HF_HUB_CACHE, f"datasets--{name.replace('/', '--')}")
    return hub.is_dir() or Path(constants.HF_HOME, "datasets", made.lower()).is_dir()


def _images(recipe: Recipe) -> ImageFacts:
    data = recipe.images
    path = (data.path or "").lower()
    known = next((one for name, one in SETS.items() if name in path or name == data.source), UNKNOWN)
    count = data.classes or known.classes
    train = known.train if data.limit is None else min(data.limit, known.train)
    return ImageFacts(
        classes=tuple(str(number) for number in range(count)),
        train=max(train, recipe.train.global_batch),
        validation=known.held_out,
        test=known.held_out,
        validation_from="train" if data.validation > 0 else "test",
        image_size=recipe.image_model.image_size or known.size,
    )


def _text(recipe: Recipe) -> TextFacts:
    data, fields = recipe.data, known_fields(recipe.model) or {}
    assert not isinstance(data, Data)
    times = 1 if recipe.grpo is None else recipe.grpo.num_generations
    train = max(min(data.limit or SAMPLES, SAMPLES), -(-recipe.train.global_batch // times))
    longest = min(data.max_length, context_of(fields) or data.max_length)
    vocabulary = fields.get("vocab_size")
    return TextFacts(
        train=train,
        validation=HELD_OUT,
        test=0,
        validation_from="train" if data.validation > 0 else "split",
        rows=train,
        tokens=train * longest,
        targets=train * longest,
        longest=longest,
        left_out=0,
        vocabulary=vocabulary if isinstance(vocabulary, int) else 1,
        pad=0,
        stops=(0,),
        samples=Path("assumed").absolute(),
    )


def _cad(recipe: Recipe, text: TextFacts) -> CadFacts:
    data, model = recipe.cad, recipe.cad_model
    slots(model)
    if data.source == "parts":
        counts = {"train": data.parts, "rows": data.parts, "test": data.test_parts, "validation": data.test_parts}
        text = text.model_copy(update=counts | {"tokens": data.parts * text.longest})
    shown = None if model.vision is None or not data.shows("image") else model.vision
    return CadFacts(
        **dict(text),
        clouds=sum(one.share for one in data.shares if one.inputs.points),
        images=data.images_on_average,
        points=data.points if data.shows("points") else None,
        image_size=None if shown is None else size_of(shown, encoder_fields(shown)),
    )
