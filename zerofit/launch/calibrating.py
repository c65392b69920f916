"""`zerofit doctor --calibrate`: measures what this machine's devices do, and keeps it for the planner."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from zerofit.config.errors import UserError
from zerofit.config.load import load_job
from zerofit.launch import environment, rundir
from zerofit.launch.asked import HERE
from zerofit.launch.local import run_ranks
from zerofit.launch.planning import staged_plan
from zerofit.launch.rates_worker import ASK, FOUND, Ask
from zerofit.plan.anatomy import anatomy_of
from zerofit.plan.blocks import encoder_block
from zerofit.plan.calibration import Calibration, Links
from zerofit.plan.calibration_file import default_root, store
from zerofit.plan.decoder import decoder_of
from zerofit.plan.hardware import detect, driver_version, uuids
from zerofit.plan.precision import AMPERE
from zerofit.plan.prediction import Unpredicted
from zerofit.plan.shapes import SHAPES
from zerofit.plan.spec import Hardware, RunSpec
from zerofit.plan.versions import versions

Shape = tuple[int, int, int]
"""Tokens, inputs, outputs."""
TOKENS = {"cuda": (512, 4096, 16384), "cpu": (64, 256)}
"""Of the products of common models."""
COMMON = {"cuda": ("qwen3-8b", "vit-huge"), "cpu": ("vit-small",)}
ATTENTION = {
    "cuda": ((64, 16, 257, 80), (4, 32, 1024, 128), (1, 32, 8192, 128)),
    "cpu": ((2, 6, 197, 64),),
}
"""(batch, heads, tokens, width): ViT-Huge at 224 pixels, and Qwen3-8B."""
MOST_TOKENS = 65_536
"""Of a recipe's product: more say no more, and may find no room."""
KEPT = ("torch", "transformers", "deepspeed")
"""Libraries whose versions are kept with what was measured."""


def calibrate(
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    *,
    quietly: bool = False,
    hardware: Hardware | None = None,
    ranks: int | None = None,
) -> tuple[Calibration, Path]:
    """Measure this machine (or `hardware` of it), also at the shapes of a recipe; what was found, and where it is kept.

    On `ranks` ranks, by default one for each GPU and two on a CPU. Progress goes to the terminal, with `quietly` past
    standard output. Raises UserError.
    """
    if environment.outer_world(os.environ) is not None:
        raise UserError("--calibrate starts ranks of its own: run it without an outer launcher")
    hardware = hardware or detect()
    own = [] if recipe is None else shapes_of(recipe, overrides)
    root = default_root(os.environ)
    if ranks is None:
        ranks = hardware.count if hardware.device == "cuda" else min(2, hardware.cpus)
    found = _measured(_ask(hardware, own, root), hardware, ranks, quietly)
    today = date.today()
    links = found.pop("links", None)
    measured = Calibration(
        name=hardware.name,
        device=hardware.device,
        memory_gib=hardware.memory_gib,
        measured=today,
        versions=_versions(),
        links={} if links is None else {ranks: Links(measured=today, **links)},
        **found,
    )
    return measured, store(measured, root)


def shapes_of(source: str, overrides: Sequence[str] = ()) -> list[Shape]:
    """The linear layers of the blocks of a recipe's models, at the tokens of its micro-batches. Raises UserError."""
    job = load_job(source, overrides)
    specs = [staged_plan(one, HERE, None, follows=one is not job.stages[0]).spec for one in job.stages]
    return list(dict.fromkeys(shape for spec in specs for shape in _layers(spec)))


def _layers(spec: RunSpec) -> Iterable[Shape]:
    try:
        anatomy = anatomy_of(spec)
    except Unpredicted as why:
        raise UserError(f"--calibrate: the layers of {spec.recipe.name} are not known: {why}") from None
    for part in anatomy.parts:
        tokens = min(MOST_TOKENS, part.tokens * spec.batches.micro)
        yield from ((tokens, *sizes) for sizes in part.stack.block.linears.values())


def common(device: str) -> list[Shape]:
    """The linear layers of common models' blocks, at a few numbers of tokens."""
    layers: list[tuple[int, int]] = []
    for name in COMMON[device]:
        decoder = decoder_of(SHAPES[name])
        linears = encoder_block(SHAPES[name]).linears if decoder is None else decoder.linears
        layers += linears.values()
    return [(tokens, *sizes) for tokens in TOKENS[device] for sizes in dict.fromkeys(layers)]


def _ask(hardware: Hardware, own: Sequence[Shape], root: Path) -> Ask:
    gpu = hardware.device == "cuda"
    new = hardware.capability is not None and hardware.capability >= AMPERE
    return Ask(
        device=hardware.device,
        uuids=tuple(uuids()) if gpu else (),
        precisions=("fp32",) if not gpu else ("bf16", "fp16", "fp32") if new else ("fp16", "fp32"),
        products=tuple(dict.fromkeys([*common(hardware.device), *own])),
        attention=ATTENTION[hardware.device],
        copied_mib=512 if gpu else 64,
        adam=50_000_000 if gpu else 2_000_000,
        disk=root,
        disk_mib=1024 if gpu else 64,
        messages_mib=(1, 16, 64, 256) if gpu else (0.25, 4),
        budget=0.12 if gpu else 0.04,
    )


def _measured(ask: Ask, hardware: Hardware, ranks: int, quietly: bool) -> dict[str, Any]:
    environ = dict(os.environ)
    environment.prepare(environ, hardware, ranks)
    # What is said of progress must not come among JSON.
    shown: AbstractContextManager[Any] = redirect_stdout(sys.stderr) if quietly else nullcontext()
    with TemporaryDirectory(prefix="zerofit-rates-") as name, shown:
        directory = Path(name)
        rundir.write_json(directory / ASK, ask.model_dump(mode="json"))
        command = [sys.executable, "-m", "zerofit.launch.rates_worker", name]
        outcome = run_ranks(command, ranks, directory / "logs", environ)
        if outcome.failure is not None:
            if not outcome.failure.user:
                print(outcome.failure.traceback, file=sys.stderr)
            raise UserError(f"--calibrate: rank {outcome.failure.rank}: {outcome.failure.message}")
        if outcome.code != 0:
            raise KeyboardInterrupt
        found: dict[str, Any] = json.loads((directory / FOUND).read_text(encoding="utf-8"))
        return found


def _versions() -> dict[str, str]:
    driver = driver_version()
    return {name: one for name, one in versions().items() if name in KEPT} | ({"driver": driver} if driver else {})
