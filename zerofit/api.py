"""The Python API, for notebooks: the model, the data and the training of a recipe, from plain arguments.

Each call makes the recipe that `zerofit train` would be given and goes the same way; training runs in processes of its
own, so that a notebook needs no `if __name__ == "__main__"` and keeps its GPU memory. See docs/python-api.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from zerofit.config.arguments import Argument, argument, recipe_of
from zerofit.config.data import Augment, Data
from zerofit.config.environ import kept_environment
from zerofit.config.errors import UserError, did_you_mean
from zerofit.config.schema import Recipe
from zerofit.data.pairs import ImageLoader, descriptions, image_loaders
from zerofit.launch import pages
from zerofit.launch.alternatives import short_of
from zerofit.launch.dispatch import Launch, dispatch
from zerofit.launch.environment import outer_world
from zerofit.launch.failure import INTERRUPTED
from zerofit.launch.start import begin
from zerofit.models.build import build_classifier
from zerofit.models.classifier import ImageClassifier
from zerofit.models.config import config_of
from zerofit.models.placement import WholePlacement
from zerofit.models.pretrained import locate
from zerofit.plan.build import make_plan
from zerofit.plan.files import read_spec
from zerofit.plan.hardware import detect
from zerofit.plan.shapes import SHAPES
from zerofit.plan.spec import Hardware, ImageFacts
from zerofit.prove.compare import STEPS, STRATEGIES, compare_strategies
from zerofit.report.comparison import COMPARE_FILE
from zerofit.report.figures import figures, profile

ALIASES = {"fsdp": "fsdp2"}
LEARNING_RATE = 3e-4
IMAGE_SIZE = 224
PLACEHOLDERS: dict[str, Any] = {
    "model": {"kind": "vit", "shape": "vit-base"},
    "data": {"source": "digits"},
    "train": {"epochs": 1, "micro_batch": 1, "global_batch": 1},
    "optimizer": {"lr": LEARNING_RATE},
    "strategy": {"name": "single"},
}
"""What a recipe must say and a function does not ask for; nothing that is made there depends on it."""
ARGUMENT_OF = {
    "data": "create_data_loaders(...)",
    "model.image_size": "create_data_loaders(..., image_size=...)",
    "train.micro_batch": "create_data_loaders(..., batch_size=...)",
    "train.seed": "create_data_loaders(..., seed=...)",
    "model": "model_name=...",
    "model.shape": "model_name=...",
    "model.pretrained": "model_name=...",
    "strategy": "method=...",
    "strategy.name": "method=...",
    "train.epochs": "num_epochs=...",
    "optimizer.lr": "learning_rate=...",
}
"""Fields that `run_training_experiment` is told otherwise."""


@kept_environment()
def load_vit_model(
    model_name: str,
    num_labels: int,
    enable_gradient_checkpointing: bool = False,
    image_size: int | None = None,
    *,
    seed: int = 0,
    **model_fields: Any,
) -> ImageClassifier:
    """The model with which a run of this name and seed begins, whole, in float32 on the CPU.

    `model_name` is a shape (`vit-base`, or a decoder's: `qwen3-0.6b`), a directory or a hub id (`owner/name`);
    `image_size` is the pretrained model's unless given, else 224; `model_fields` are more fields of the recipe's
    `model`: patch_size=4. Takes pixels [B, 3, S, S], gives logits [B, num_labels]. Raises UserError.
    """
    call = "load_vit_model"
    model, size = _model(call, model_name)
    given = [
        argument(call, "model_name", "model", model),
        argument(call, "num_labels", "data.classes", num_labels),
        argument(call, "image_size", "model.image_size", image_size),
        argument(call, "seed", "train.seed", seed),
        *(argument(call, name, f"model.{name}", value) for name, value in model_fields.items()),
    ]
    if enable_gradient_checkpointing:
        place = "strategy.activation_checkpointing"
        given.append(argument(call, "enable_gradient_checkpointing", place, "full"))
    recipe = recipe_of(call, PLACEHOLDERS, given)
    if recipe.images.classes is None:
        raise UserError(f"{call}(num_labels=None): takes the number of classes")
    facts = ImageFacts(
        classes=tuple(str(label) for label in range(recipe.images.classes)),
        train=1,
        validation=1,
        test=1,
        validation_from="test",
        image_size=recipe.image_model.image_size or size,
    )
    # Fresh weights are drawn where a run draws them: CPU and GPU draw different numbers.
    spec = make_plan(recipe, facts=facts, hardware=detect(), ranks=1, run_dir=Path("runs"))
    if spec.hardware.device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"PyTorch {torch.__version__} cannot use this machine's {spec.hardware.name}: "
            "install a PyTorch that fits the driver, or set ZEROFIT_DEVICE=cpu"
        )
    return build_classifier(spec, WholePlacement(torch.device("cpu"), torch.float32), torch.float32)


@kept_environment()
def create_data_loaders(
    source: str = "digits",
    path: str | Path | None = None,
    *,
    batch_size: int = 32,
    image_size: int | None = None,
    workers: int = 0,
    augment: Augment | Mapping[str, Any] | None = None,
    validation: float = 0.0,
    limit: int | None = None,
    seed: int = 0,
    **data_fields: Any,
) -> tuple[ImageLoader, ImageLoader]:
    """Loaders of the training and the test images: (pixels float32 [B, 3, S, S] normalised, labels int64 [B]).

    `batch_size` is per rank in training (`train.micro_batch`); `image_size` the first image's longer side unless given;
    `workers` loader processes per rank in training (these loaders read in this process); the others are fields of the
    recipe's `data`, as are `data_fields`. What they read goes to `run_training_experiment` as a description, not as
    objects. Raises UserError.
    """
    call = "create_data_loaders"
    given = {"path": path, "workers": workers, "augment": augment, "validation": validation, "limit": limit}
    usual = {name: field.default for name, field in Data.model_fields.items()}
    said = {name: value for name, value in given.items() if value is not None and value != usual[name]} | data_fields
    recipe = recipe_of(
        call,
        PLACEHOLDERS,
        [
            argument(call, "source", "data.source", source),
            *(argument(call, name, f"data.{name}", value) for name, value in said.items()),
            argument(call, "batch_size", "train.micro_batch", batch_size),
            argument(call, "batch_size", "train.global_batch", batch_size),
            argument(call, "image_size", "model.image_size", image_size),
            argument(call, "seed", "train.seed", seed),
        ],
    )
    return image_loaders(recipe)


@kept_environment()
def run_training_experiment(
    method: str = "zero3",
    model_name: str = "vit-base",
    train_loader: ImageLoader | None = None,
    test_loader: ImageLoader | None = None,
    world_size: int = 2,
    num_epochs: float | None = 1,
    enable_profiling: bool = False,
    learning_rate: float | None = None,
    run_dir: str | Path | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Train on `world_size` ranks as `zerofit train` does, test, and return the figures.

    `method` is a strategy (`zero3`, `ddp`, `zero2+offload_optimizer`), or `auto`, the fastest that fits; the loaders
    are those of `create_data_loaders`; an optimizer step takes batch_size x world_size samples; `learning_rate` is 3e-4
    unless given; `fields` are more fields of the recipe: `**{"optimizer.weight_decay": 0.1}`. Without `num_epochs`,
    give train.max_steps.

    Returns accuracy, top5, loss, peak_memory_gib, samples_per_second, wall_seconds, steps, run_dir, history (the lines
    of metrics.jsonl), strategy and world_size; with `enable_profiling` also profile (`zerofit.report.figures.profile`).
    Raises UserError where the recipe is refused, RuntimeError with the log's path where a rank crashed.
    """
    call = "run_training_experiment"
    train, test = descriptions(train_loader, test_loader)
    if type(world_size) is not int or world_size < 1:
        raise UserError(f"{call}(world_size={world_size!r}): must be a whole number of ranks, at least 1")
    if outer_world(os.environ) is not None:
        raise UserError(
            f"{call} starts its ranks itself, but RANK and WORLD_SIZE (or Slurm's variables) say that this process "
            "is a rank already: start it without a launcher, or use `zerofit train`"
        )
    name, plus, additions = str(method).partition("+")
    strategy = ALIASES.get(name, name) + plus + additions
    model, _ = _model(call, model_name)
    given = [
        argument(call, "method", "strategy", strategy),
        argument(call, "model_name", "model", model),
        argument(call, "train_loader", "model.image_size", train.facts.image_size),
        argument(call, "train_loader", "data", train.data),
        argument(call, "train_loader", "train.seed", train.seed),
        argument(call, "train_loader", "train.micro_batch", train.batch_size),
        *_optional(call, "num_epochs", "train.epochs", num_epochs),
        *_optional(call, "learning_rate", "optimizer.lr", learning_rate),
        *_optional(call, "run_dir", "run_dir", run_dir),
        *(_field(call, field, value) for field, value in fields.items()),
    ]
    base: dict[str, Any] = {
        "train": {"global_batch": train.batch_size * world_size},
        "optimizer": {"lr": LEARNING_RATE},
        "evaluate": {} if test.batch_size == train.batch_size else {"micro_batch": test.batch_size},
    }
    recipe = recipe_of(call, base, given)
    if recipe.name is None:
        recipe = recipe.model_copy(update={"name": f"{recipe.images.source}-{recipe.strategy.name}"})
    launch = _run(recipe, world_size)
    used = read_spec(launch.run_dir).strategy
    result = figures(launch.run_dir) | {"strategy": short_of(used), "world_size": world_size}
    if enable_profiling:
        result["profile"] = profile(launch.run_dir, recipe.train.global_batch)
    return result


@kept_environment()
def compare(
    recipe: str | Path,
    strategies: Sequence[str] = tuple(STRATEGIES.split(",")),
    *,
    gpus: Sequence[int] | None = None,
    steps: int = STEPS,
    max_batch: bool = False,
    enable_profiling: bool = True,
    output: str | Path | None = None,
    **fields: Any,
) -> list[dict[str, Any]]:
    """Run the same work of a recipe (its name or file) under each strategy, as `zerofit compare` does; its rows.

    `gpus` are numbers of ranks; `fields` are fields of the recipe to change: `**{"train.micro_batch": 8}`. A row is a
    dict as in compare.json (docs/compare.md); a strategy that could not run is one whose `status` is not `ok`.
    Raises UserError where the recipe is refused altogether.
    """
    code, directory = compare_strategies(
        str(recipe),
        [f"{field}={json.dumps(value)}" for field, value in fields.items()],
        strategies=",".join(strategies),
        gpus=None if gpus is None else ",".join(map(str, gpus)),
        steps=steps,
        max_batch=max_batch,
        profile=enable_profiling,
        output=None if output is None else Path(output),
    )
    if code not in (0, 1):
        raise KeyboardInterrupt
    rows: list[dict[str, Any]] = json.loads((directory / COMPARE_FILE).read_text(encoding="utf-8"))["rows"]
    return rows


def _make_page(launch: Launch) -> None:
    pages.make(launch.run_dir)


def _run(recipe: Recipe, world_size: int) -> Launch:
    """Train in processes of their own, to the end. Raises as `run_training_experiment` does."""
    started: list[Launch] = []

    def plan(hardware: Hardware, ranks: int | None) -> Launch:
        started.append(begin(recipe, hardware, ranks))
        return started[0]

    code = dispatch(plan, nproc=world_size, debug=False, show=_make_page)
    launch = started[0]
    if code in (INTERRUPTED, 130):
        raise KeyboardInterrupt
    if code != 0:
        raise RuntimeError(_how_it_ended(launch, code))
    return launch


def _how_it_ended(launch: Launch, code: int) -> str:
    end = json.loads(launch.result.read_text(encoding="utf-8")) if launch.result.exists() else {}
    if "rank" in end:
        log = launch.logs / f"rank-{end['rank']}.log"
        return f"rank {end['rank']} failed: {end['error']}; its log: {log}"
    return f"the run in {launch.run_dir} ended with exit code {code}; its logs: {launch.logs}"


def _model(call: str, name: str) -> tuple[dict[str, Any], int]:
    """The fields of a recipe's `model` that `name` stands for, and the image size that it was made for."""
    if not isinstance(name, str | Path):
        raise UserError(
            f"{call}: model_name is a {type(name).__name__}, and takes the name of a shape (vit-base), a directory or "
            "a hub id (owner/name)"
        )
    name = str(name)
    if name in SHAPES:
        return {"kind": _kind(SHAPES[name]["model_type"]), "shape": name}, IMAGE_SIZE
    if "/" not in name and not Path(name).expanduser().is_dir():
        raise UserError(
            f"{call}(model_name={name!r}): is no shape, no directory here and no hub id (owner/name)"
            f"{did_you_mean(name, SHAPES)} (shapes: {', '.join(SHAPES)})"
        )
    config = config_of(locate(name, weights=False)).to_dict()
    size = config.get("image_size")
    return {"kind": _kind(config["model_type"]), "pretrained": name}, size if isinstance(size, int) else IMAGE_SIZE


def _kind(model_type: str) -> str:
    return "vit" if model_type == "vit" else "patch_lm"


def _optional(call: str, name: str, field: str, value: Any) -> list[Argument]:
    return [] if value is None else [argument(call, name, field, value)]


def _field(call: str, field: str, value: Any) -> Argument:
    """A field of the recipe. Raises UserError for one that has an argument of its own."""
    instead = ARGUMENT_OF.get("data" if field.startswith("data.") else field)
    if instead is not None:
        raise UserError(f"{call}({field}={value!r}): give it as {instead}")
    return argument(call, field, field, value)
