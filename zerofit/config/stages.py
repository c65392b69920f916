"""`stages:` in a recipe: each is laid over the recipe's other fields, the shared part, and makes one whole recipe.

Mapping by mapping; a list, a value, and one field of an exclusive pair replace what the shared part says. A stage that
names a preset takes the published protocol before the shared part's, which is meant for the other stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from zerofit.config.errors import UserError
from zerofit.config.explain import Origin, explain, show
from zerofit.config.lay import lay
from zerofit.config.overrides import Override, apply_overrides
from zerofit.config.presets import with_preset
from zerofit.config.schema import Recipe
from zerofit.config.yaml_lines import Document

Raw = dict[str, Any]

OF_THE_JOB = ("name", "description", "run_dir")
"""Fields of the shared part that say something of the whole job, not of each stage."""
TASK_OF = {"probe": "probe"}
"""Sections that one task alone has: the shared part's goes to that task's stages."""
PROTOCOL = {
    "model": ("trainable",),
    "data": ("augment",),
    "train": ("epochs", "max_steps", "label_smoothing"),
}
"""What a preset settles, besides the optimizer: nothing of it is left of the shared part under one."""


@dataclass(frozen=True)
class Job:
    """What a recipe file asks for: one run, or one a stage."""

    name: str
    """Name of the directory under `runs/`."""
    description: str
    """One line for `zerofit recipes`."""
    run_dir: Path | None
    """The job's directory; null makes `runs/<name>`, with a number where that exists."""
    stages: tuple[Recipe, ...]
    """A whole recipe each, in order."""
    staged: bool
    """Whether the file has `stages:`; without, there is one, and the job's directory is its run directory."""

    @property
    def directories(self) -> tuple[str, ...]:
        """Name of each stage's run directory inside the job's: 01-finetune, 02-probe."""
        return tuple(f"{number:02d}-{stage.name}" for number, stage in enumerate(self.stages, 1))


def make_job(document: Document, label: str, overrides: Sequence[Override], name: str) -> Job:
    """The job of a recipe with `stages:`; `label` is what messages call the file, `name` the job's where it gives none.

    Raises UserError: one line for each fault.
    """
    shared, listed = dict(document.value), _listed(document, label)
    del shared["stages"]
    _check_overrides(overrides, len(listed))
    tasks = [_task(shared, own, overrides, index) for index, own in enumerate(listed)]
    faults, raws, recipes = [], [], []
    for index, (own, task) in enumerate(zip(listed, tasks, strict=True)):
        below = {field: value for field, value in shared.items() if _reaches(field, index, task)}
        above = _of_stage(overrides, index, task)
        where = f"{label}:{document.line(('stages', index, 'probe'))}: stages.{index}"
        raws.append({"name": task, **_whole(below, own, above, where)})
        try:
            recipes.append(Recipe.model_validate(raws[-1]))
        except ValidationError as error:
            faults += explain(error, Origin(label, document, above, index, tuple(shared.keys() - below.keys())))
    faults = faults or _useless_sections(shared, overrides, tasks, document, label)
    faults = faults or _unsaved(recipes, document, label)
    if faults:
        raise UserError("\n".join(dict.fromkeys(faults)))  # a fault of the shared part is every stage's
    own = apply_overrides(
        {field: shared[field] for field in OF_THE_JOB if field in shared},
        [override for override in overrides if override.place[0] in OF_THE_JOB],
    )
    try:
        head = Recipe.model_validate({**raws[0], "name": name, **{k: v for k, v in own.items() if v is not None}})
    except ValidationError as error:
        raise UserError("\n".join(explain(error, Origin(label, document, overrides)))) from None
    assert head.name is not None
    return Job(head.name, head.description, head.run_dir, tuple(recipes), staged=True)


def _unsaved(recipes: Sequence[Recipe], document: Document, label: str) -> list[str]:
    """Faults of stages that leave nothing to the next one, which starts from their last checkpoint."""
    return [
        f"{label}:{document.line(('stages', index))}: stages.{index}: checkpoint.at_end: the next stage starts from "
        "the checkpoint of this one's end; leave it true"
        for index, (stage, after) in enumerate(zip(recipes, recipes[1:], strict=False))
        if not stage.checkpoint.at_end and after.init_from is None
    ]


def _whole(shared: Raw, own: Raw, overrides: Sequence[Override], where: str) -> Raw:
    """A stage's fields: the shared part < the preset that the stage names < the stage's own < the command line."""
    asked = apply_overrides(lay(shared, own), [override for override in overrides if override.place[0] == "probe"])
    probe = asked.get("probe")
    name = probe.get("preset") if isinstance(probe, dict) else None
    if isinstance(name, str):
        protocol = with_preset({"probe": {"preset": name}}, where)
        probe = {"probe": shared["probe"]} if "probe" in shared else {}
        shared = lay(lay(_without_protocol(shared), protocol), probe)
    return apply_overrides(lay(shared, own), overrides)


def _without_protocol(shared: Raw) -> Raw:
    kept = {section: value for section, value in shared.items() if section != "optimizer"}
    for section, fields in PROTOCOL.items():
        if isinstance(kept.get(section), dict):
            kept[section] = {field: value for field, value in kept[section].items() if field not in fields}
    return kept


def _listed(document: Document, label: str) -> list[Raw]:
    """The stages' own mappings. Raises UserError where there is none, or one is none."""
    stages = document.value["stages"]
    where = f"{label}:{document.line(('stages',))}: stages"
    if not isinstance(stages, list) or not stages:
        raise UserError(f"{where}: must be a list of stages, each a mapping of fields, not {show(stages)}")
    for index, stage in enumerate(stages):
        where = f"{label}:{document.line(('stages', index))}: stages.{index}"
        if not isinstance(stage, dict):
            raise UserError(f"{where}: must be a mapping of fields, not {show(stage)}")
        for field, reason in NOT_OF_A_STAGE.items():
            if field in stage:
                raise UserError(f"{label}:{document.line(('stages', index, field))}: stages.{index}.{field}: {reason}")
    return stages


NOT_OF_A_STAGE = {
    "stages": "a stage has no stages of its own",
    "run_dir": "a stage's directory lies in the job's: give run_dir above the stages, and a stage a name",
}


def _check_overrides(overrides: Sequence[Override], stages: int) -> None:
    """Raise UserError for an override of no stage that there is."""
    for override in overrides:
        if override.place[0] != "stages":
            continue
        if len(override.place) < 3:
            raise UserError(f"{override.where}: change a field of one stage: stages.0.train.epochs=2")
        index, field = override.place[1:3]
        if not index.isdecimal() or int(index) >= stages:
            raise UserError(f"{override.where}: stages has entries 0 to {stages - 1}, not {index}")
        if field in NOT_OF_A_STAGE:
            raise UserError(f"{override.where}: {NOT_OF_A_STAGE[field]}")


def _task(shared: Raw, own: Raw, overrides: Sequence[Override], index: int) -> Any:
    """A stage's task as it is written, which may be none that there is."""
    places = (("task",), ("stages", str(index), "task"))
    asked = [override.value for override in overrides if override.place in places]
    default = Recipe.model_fields["task"].default
    return asked[-1] if asked else own.get("task", shared.get("task", default))


def _reaches(field: str, index: int, task: Any) -> bool:
    """Whether a field that is given for all stages goes to this one."""
    if field in OF_THE_JOB:
        return False
    if field == "init_from":
        return index == 0  # the others begin where the one before has ended
    return bool(TASK_OF.get(field, task) == task)


def _of_stage(overrides: Sequence[Override], index: int, task: Any) -> list[Override]:
    """The overrides that reach a stage, in order, as its recipe's."""
    found = []
    for override in overrides:
        if override.place[0] != "stages":
            found += [override] if _reaches(override.place[0], index, task) else []
        elif int(override.place[1]) == index:
            found.append(replace(override, place=override.place[2:]))
    return found


def _useless_sections(
    shared: Raw, overrides: Sequence[Override], tasks: Sequence[Any], document: Document, label: str
) -> list[str]:
    """A line for each section of a task that no stage has."""
    lines = []
    for section, task in TASK_OF.items():
        if task not in tasks:
            reason = f"settings of the task {task}, which no stage has"
            lines += [f"{one.where}: {reason}" for one in overrides if one.place[0] == section]
            lines += [f"{label}:{document.line((section,))}: {section}: {reason}"] if shared.get(section) else []
    return lines
