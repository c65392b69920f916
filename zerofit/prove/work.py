"""Whether runs did the same work, so that their figures may stand side by side."""

from __future__ import annotations

from zerofit.config.changes import changed_fields
from zerofit.config.errors import UserError
from zerofit.plan.auto import settled
from zerofit.plan.spec import RunSpec

OF_THE_RUN = ("name", "description", "strategy", "checkpoint", "evaluate", "track", "profile", "run_dir")
"""What a comparison is about, and what changes no step."""
NOTED = ("optimizer", "train.epochs", "train.max_steps", "train.micro_batch", "data.path", "data.workers", "init_from")
"""Another one is said, and compared all the same: the work of a step stays what it is."""


def differences(first: RunSpec, other: RunSpec) -> list[str]:
    """In what the work of `other` differs from that of `first`, for a note.

    Raises UserError where it is other work: another model, other data, another global batch or seed.
    """
    changed = [line for line in changed_fields(settled(first), settled(other)) if not _is_of(line, OF_THE_RUN)]
    fatal = [line for line in changed if not _is_of(line, NOTED)]
    if not fatal and first.data != other.data:
        fatal = ["data: the same recipe found other samples or classes"]
    if fatal:
        more = f" (and {len(fatal) - 1} more)" if len(fatal) > 1 else ""
        raise UserError(f"{first.run_dir.name} and {other.run_dir.name} are not of the same work: {fatal[0]}{more}")
    notes = [line for line in changed if _is_of(line, NOTED)]
    if first.precision != other.precision:
        notes.append(f"precision: {first.precision} -> {other.precision}")
    if (first.hardware.device, first.hardware.name) != (other.hardware.device, other.hardware.name):
        notes.append(f"hardware: {first.hardware.name} -> {other.hardware.name}")
    return [f"{other.run_dir.name} has other settings than {first.run_dir.name}: {line}" for line in notes]


def _is_of(line: str, fields: tuple[str, ...]) -> bool:
    """Whether a line `train.seed: 0 -> 1` is of one of these fields, or of a part of one."""
    field = line.partition(":")[0]
    return any(field == one or field.startswith(f"{one}.") for one in fields)
