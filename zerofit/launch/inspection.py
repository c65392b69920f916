"""`zerofit convert DIR --inspect`: what a directory is, as a table, and what it lacks."""

from __future__ import annotations

import os
from pathlib import Path

from zerofit.config.errors import UserError
from zerofit.launch import reference, rundir, workarounds
from zerofit.plan.job import is_job

NAMED = 20
"""Missing files that are listed; of more, the number."""


def inspect(asked: Path, *, trust: bool = False) -> int:
    """Print what RUN, RUN@STEP, a directory or a file is. Returns 0, or 2 where anything is missing or wrong.

    Raises UserError where it is nothing that is known.
    """
    path, of = _checkpoint(asked)
    workarounds.quiet()
    from zerofit.checkpoint import inspecting

    try:
        found = inspecting.inspect(path, trust=trust)
    except UserError as error:
        raise UserError(str(error).removeprefix("init_from: ")) from None
    rows = [("what", found.what), ("path", os.path.relpath(path)), *found.rows]
    rows = [(name, f"{value}{of}" if name == "step" else value) for name, value in rows]
    rows.append(("complete", "no" if found.missing or found.faults else "yes (contents: zerofit checkpoint verify)"))
    if not found.missing and not found.faults and not (path / "manifest.json").is_file():
        rows[-1] = ("complete", "yes")
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:{width}}  {value}" for name, value in rows))
    for name in found.missing[:NAMED]:
        print(f"missing: {name}")
    if len(found.missing) > NAMED:
        print(f"missing: {len(found.missing) - NAMED} more")
    for fault in found.faults:
        print(f"wrong: {fault}")
    return 2 if found.missing or found.faults else 0


def _checkpoint(asked: Path) -> tuple[Path, str]:
    """Where the checkpoint lies, and of how many steps its run has, in words. It may be damaged. Raises UserError."""
    from zerofit.checkpoint.manifest import step_name, steps

    run, step = reference.split(asked)
    if not reference.is_run(run) and not is_job(run):
        path = asked.expanduser().absolute()
        if not path.exists():
            raise UserError(f"{asked} does not exist: give RUN, RUN@STEP, or a checkpoint's directory or file")
        return path, ""
    spec = rundir.load(run)
    there = steps(spec.run_dir / "checkpoints")
    if not there:
        raise UserError(f"{run} has no checkpoint yet")
    if step is not None and step not in there:
        raise UserError(f"{asked}: {run} has no checkpoint of step {step} (there are: {', '.join(map(str, there))})")
    path = there[max(there)] if step is None else spec.run_dir / "checkpoints" / step_name(step)
    return path, f" of {spec.batches.total_steps}"
