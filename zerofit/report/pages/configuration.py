"""What a run was: its plan, data, machine, versions and recipe, and the commands that do it again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from zerofit.plan.choice import Choice
from zerofit.plan.files import DEEPSPEED_FILE
from zerofit.plan.grpo_advice import advice
from zerofit.plan.spec import CadFacts, ImageFacts, RunSpec, TextFacts, origin_of
from zerofit.report.pages import language
from zerofit.report.pages.files import mapping
from zerofit.report.pages.parts import Code, Facts, Notes, Part, Section, Table
from zerofit.report.pages.units import count, fixed, number, percent
from zerofit.report.rows import offload_of


def configuration(directory: Path, spec: RunSpec) -> Section:
    """Everything that was resolved."""
    parts: list[Part] = [_plan(spec), _data(spec), _machine(spec), _versions(spec)]
    said = advice(spec)
    if said:
        parts.append(Notes("Memory, as the plan has it", said))
    if spec.choice is not None:
        parts += _choice(spec.choice)
    parts.append(Code("Recipe, resolved", as_yaml(spec.recipe.model_dump(mode="json")), "resolved.yaml", folded=True))
    given = mapping(directory / DEEPSPEED_FILE)
    if given:
        text = json.dumps(given, indent=2)
        parts.append(Code("What DeepSpeed was given", text, DEEPSPEED_FILE, folded=True))
    return Section("configuration", "Configuration", parts)


def reproduce(directory: Path, spec: RunSpec, exit_: str | None) -> Section:
    """The recipe as it was given, overrides included, and the commands."""
    name = spec.recipe.name or "recipe"
    file = f"{name}.yaml"
    shown = here(directory)
    more = f" --resume {spec.origin}" if spec.origin_step is not None else ""
    chosen = "" if spec.choice is None else f" {words_of(spec)}"
    commands = [f"zerofit train {file}{more}{chosen} --nproc {spec.batches.ranks}"]
    again = [f"zerofit eval {shown}", f"zerofit checkpoint list {shown}", f"zerofit report {shown}"]
    if exit_ != "finished":
        again.insert(0, f"zerofit train --resume {shown}")
    packages = [f"{name}=={version.partition('+')[0]}" for name, version in spec.versions.items() if name != "python"]
    parts = [
        Code(f"Save the recipe as {file}", as_yaml(given(spec)), file),
        Code("Train it again", "\n".join(commands)),
        Code("Go on with this run", "\n".join(again)),
        Code(
            f"With the same libraries (Python {spec.versions.get('python', '')})", f"pip install {' '.join(packages)}"
        ),
    ]
    return Section("reproduce", "Reproduce", parts)


def words_of(spec: RunSpec) -> str:
    """What was chosen, as it is said on the command line."""
    strategy = f"strategy={spec.strategy.name}{offload_of(spec.strategy)}"
    if spec.recipe.strategy.name is None:
        return f"train.micro_batch={spec.batches.micro}"  # its file says the rest
    recomputed = f"strategy.activation_checkpointing={spec.strategy.activation_checkpointing}"
    return f"{strategy} {recomputed} train.micro_batch={spec.batches.micro}"


def given(spec: RunSpec) -> dict[str, Any]:
    """The recipe without what is at its default, nor where it went: its data and weights lie where they lay then."""
    return spec.recipe.model_dump(mode="json", exclude_defaults=True, exclude={"run_dir"})


def here(directory: Path) -> str:
    """A directory as commands name it: from here where it lies below, else whole."""
    shown = os.path.relpath(directory)
    return str(directory.absolute()) if shown.startswith("..") else shown


def _plan(spec: RunSpec) -> Facts:
    recipe, sizes = spec.recipe, spec.batches
    epochs = sizes.total_steps / sizes.steps_per_epoch
    product = f"micro-batch {sizes.micro} × accumulation {sizes.accumulation} × {sizes.ranks} ranks"
    rows = [
        ("task", recipe.task),
        ("strategy", strategy(spec)),
        ("ranks", count(sizes.ranks)),
        (
            "global batch",
            f"{sizes.global_batch:,} = {product}",
        ),
        *language.generations(spec),
        ("steps", f"{sizes.total_steps:,} ({number(epochs)} epochs of {sizes.steps_per_epoch:,})"),
        ("optimizer", recipe.optimizer.name),
        ("learning rate", f"{spec.lr:g}, {recipe.optimizer.schedule}, {sizes.warmup_steps:,} steps of warm-up"),
        ("precision", spec.precision),
        ("weights from", origin_of(spec)),
        ("validation", _every(sizes.evaluate_steps)),
        ("checkpoints", _every(sizes.checkpoint_steps)),
        ("seed", str(recipe.train.seed)),
    ]
    return Facts("Plan", rows)


def _choice(choice: Choice) -> list[Part]:
    """What the recipe leaves to the planner, and what that weighed."""
    notes = Notes("Chosen by the planner, for what the recipe leaves as auto", [choice.why])
    if not choice.table:
        return [notes]
    rows = [
        (
            row.strategy,
            f"{row.micro_batch} x {row.accumulation}",
            row.activation_checkpointing,
            "" if row.needed_gib is None else fixed(row.needed_gib),
            "" if row.samples_s is None else fixed(row.samples_s),
            "a step played through" if row.exact else "formulas",
            row.reason or row.verdict or "",
        )
        for row in choice.table
    ]
    head = ("strategy", "micro-batch", "checkpointing", "needed, GiB", "samples/s", "by", "verdict")
    strong = [place for place, row in enumerate(choice.table) if row == choice.chosen]
    return [notes, Table("What was weighed", head, rows, words=(0, 1, 2, 5, 6), strong=strong)]


def _every(steps: int | None) -> str:
    return "at the end alone" if steps is None else f"every {steps:,} steps"


def strategy(spec: RunSpec) -> str:
    """zero3 and what is offloaded, as the command line has it."""
    offload = spec.strategy.offload
    where = [f"{what} on {place}" for what, place in offload if what in ("optimizer", "params") and place]
    return ", ".join([spec.strategy.name, *where])


def _data(spec: RunSpec) -> Facts:
    data, what = spec.data, "samples" if spec.grpo is None else "prompts"
    rows = [
        ("source", spec.recipe.data.source),
        *([("path", str(spec.recipe.data.path))] if spec.recipe.data.path else []),
        ("training", f"{data.train:,} {what}"),
        ("validation", f"{data.validation:,} {what}, from {data.validation_from}"),
        ("test", f"{data.test:,} {what}" if data.test else "none"),
        *(_of_images(data) if isinstance(data, ImageFacts) else _of_text(data)),
        *(_of_cad(spec, data) if isinstance(data, CadFacts) else []),
    ]
    return Facts("Data", rows)


def _of_images(data: ImageFacts) -> list[tuple[str, str]]:
    classes = data.classes
    names = ", ".join(classes) if len(classes) <= 20 else f"{', '.join(classes[:12])}, … {classes[-1]}"
    return [("image size", f"{data.image_size} px"), ("classes", f"{len(classes):,}: {names}")]


def _of_text(data: TextFacts) -> list[tuple[str, str]]:
    learnt = f", of which {data.targets:,} are learnt" if data.targets else ""
    return [
        ("rows", f"{data.rows:,}, and {data.left_out:,} left out"),
        ("tokens", f"{data.tokens:,}{learnt}"),
        ("longest", f"{data.longest:,} tokens"),
        ("vocabulary", f"{data.vocabulary:,}"),
    ]


def _of_cad(spec: RunSpec, data: CadFacts) -> list[tuple[str, str]]:
    seen = ", ".join(f"{one.inputs.name} {percent(one.share)}" for one in spec.recipe.cad.shares)
    clouds = [] if data.points is None else [("clouds", f"{data.points:,} points each")]
    images = [] if data.image_size is None else [("images", _sides(spec, data.image_size))]
    return [("rows see", seen), *clouds, *images]


def _sides(spec: RunSpec, size: int) -> str:
    views, (least, most) = spec.recipe.cad.views, spec.recipe.cad.views_at_once
    shown = f"{most}" if least == most else f"{least} to {most}"
    return f"{size} px, from {views} {'side' if views == 1 else 'sides'}, {shown} at once"


def _machine(spec: RunSpec) -> Facts:
    machine = spec.hardware
    capability = [("compute capability", ".".join(map(str, machine.capability)))] if machine.capability else []
    rows = [
        ("device", f"{machine.count} × {machine.name}" if machine.device == "cuda" else machine.name),
        ("memory", f"{machine.memory_gib:,.1f} GiB" + (" each" if machine.device == "cuda" else "")),
        *capability,
        ("CPU cores", count(machine.cpus)),
    ]
    return Facts("Hardware", rows)


def _versions(spec: RunSpec) -> Facts:
    revision = [("git revision", spec.git)] if spec.git else []
    return Facts("Versions", [*spec.versions.items(), *revision])


class _Dumper(yaml.SafeDumper):
    """Lists on one line, as recipes have them."""


_Dumper.add_representer(list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, True))


def as_yaml(value: Mapping[str, Any]) -> str:
    """As a recipe is written."""
    text: str = yaml.dump(dict(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text
