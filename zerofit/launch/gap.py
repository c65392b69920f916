"""`zerofit probe RECIPE --gap`: the same probe online, as published, and on cached features, and what that changes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from zerofit.config.errors import UserError
from zerofit.config.load import load_recipe
from zerofit.launch import rundir
from zerofit.launch.environment import outer_world
from zerofit.launch.start import train
from zerofit.report import table

ONLINE = (
    "probe.features=online",
    *("probe.views=1", "probe.lr_scales=[1.0]", "probe.batch_norms=null", "probe.cache=null"),  # for cached alone
)


def probe(
    source: str, overrides: Sequence[str] = (), *, gap: bool = False, nproc: int | None = None, debug: bool = False
) -> int:
    """Run the probe that a recipe says; with `gap` on cached features and then online. Returns the exit code.

    The cached run comes first: it is over soon, and so are its mistakes. Raises UserError.
    """
    recipe = load_recipe(source, overrides)
    if recipe.task != "probe":
        raise UserError(f"{source} is of task {recipe.task}, not a probe: use zerofit train {source}")
    if not gap:
        return train(source, overrides, nproc=nproc, debug=debug)
    if outer_world(os.environ) is not None:
        raise UserError("--gap is two runs, and an outer launcher's processes live for one: run it without torchrun")
    assert recipe.name is not None
    base = _free(f"{recipe.name}-gap", recipe.run_dir)
    for kind, changes in (("cached", ("probe.features=cached",)), ("online", ONLINE)):
        code = train(source, [*overrides, *changes, f"run_dir={base / kind}"], nproc=nproc, debug=debug)
        if code != 0:
            return code
    print(table.gap(base / "cached", base / "online"))
    return 0


def _free(name: str, run_dir: Path | None) -> Path:
    """A directory for both runs that does not exist. Raises UserError where the one asked for does."""
    for path in rundir.candidates(name, run_dir):
        if not path.exists():
            return path
        if run_dir is not None:
            break
    raise UserError(f"{run_dir} exists: name another run_dir, or leave it out")
