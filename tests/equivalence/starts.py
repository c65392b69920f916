"""Several runs in one start of the rank processes: each start imports DeepSpeed, which takes as long as ten runs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from cases import CPU, plan

from zerofit.config.schema import Recipe
from zerofit.launch.environment import prepare
from zerofit.launch.local import run_ranks
from zerofit.plan.files import write_spec
from zerofit.plan.spec import Hardware, RunSpec


@dataclass(frozen=True)
class Work:
    """What worker.py is to do with one run directory."""

    run: str
    """The run directory."""
    whole: bool = False
    """Take all of the task's way, checkpoints included."""
    resume: str | None = None
    """Go on from this checkpoint."""
    ask: str | None = None
    """Rank 1 is asked to stop when it comes to this phase; only with `whole`."""
    swap: bool = False
    """Put plain DDP in fsdp2's place."""
    resave: bool = False
    """Where the state of another engine was taken over, save it as it is, before the first step."""
    uneven: bool = False
    """Train the model of uneven.py; only with `whole`."""
    rewrite: str | None = None
    """Write this checkpoint as the run's own engine would, and no more."""
    recorded: bool = False
    """Rollouts are those of recorded.py; only with `whole`."""
    synthetic: bool = False
    """The task cad is that of cad_task.py; only with `whole`."""
    fused: bool = False
    """AdamW is fused, as on CUDA."""
    collectives: bool = False
    """Each rank leaves RUN/collectives-RANK.json, what it sent in which order; only with `whole`."""
    mutations: tuple[str, ...] = ()
    """Break the optimizer in these ways (mutations.py)."""


def run_together(works: Sequence[Work], world: int, directory: Path) -> None:
    """Do the works in `world` fresh processes, in order. Fails with the first failing rank's traceback.

    ZeRO-3 is to come last: it replaces F.linear for the rest of the process.
    """
    directory.mkdir(parents=True, exist_ok=True)
    jobs = directory / "works.json"
    jobs.write_text(json.dumps([asdict(work) for work in works]))
    run_script("worker.py", jobs, world=world)


def run_script(name: str, argument: Path, world: int, hardware: Hardware = CPU) -> None:
    """Run a script of this directory on `world` ranks; logs go beside its argument. Fails as its first failing rank."""
    environ = dict(os.environ)
    prepare(environ, hardware, local_size=world)
    environ["OMP_NUM_THREADS"] = "1"  # the same sums on every machine
    script = Path(__file__).with_name(name)
    outcome = run_ranks([sys.executable, str(script), str(argument)], world, argument.parent / "logs", environ)
    if outcome.failure is not None:
        raise AssertionError(f"rank {outcome.failure.rank} failed:\n{outcome.failure.traceback}")
    assert outcome.code == 0, outcome


def asked_for(request: pytest.FixtureRequest) -> set[str]:
    """The `name`s of the tests of the asking module that are to run."""
    here = [item for item in request.session.items if item.path == request.path and "name" in item.fixturenames]
    return {item.callspec.params["name"] for item in here}  # type: ignore[attr-defined]  # they are parametrised


def train_some(
    recipes: Mapping[str, Recipe], resumed: Collection[str], step: int, directory: Path, *, recorded: bool = False
) -> dict[str, RunSpec]:
    """Train these recipes on two ranks, with their checkpoints, in one start: name -> run.

    Of `resumed` there is a second run, called `NAME-resumed`, from the first one's checkpoint of `step` on.
    """
    specs = {name: plan(made, 2, directory / name) for name, made in recipes.items()}
    works: list[tuple[RunSpec, Path | None]] = [(spec, None) for spec in specs.values()]
    for name in [name for name in resumed if name in recipes]:
        again = specs[f"{name}-resumed"] = plan(recipes[name], 2, directory / f"{name}-resumed")
        works.append((again, specs[name].run_dir / "checkpoints" / f"step-{step:06d}"))
    for spec in specs.values():
        write_spec(spec)
    works.sort(key=lambda work: work[0].recipe.strategy.name == "zero3")
    run_together(
        [Work(str(spec.run_dir), whole=True, recorded=recorded, resume=from_ and str(from_)) for spec, from_ in works],
        2,
        directory / "start",
    )
    return specs


def train_together(specs: Sequence[RunSpec], world: int, directory: Path, swapped: Sequence[RunSpec] = ()) -> None:
    """Write each run.json and train the runs without checkpoints: first the swapped ones, last those under ZeRO-3."""
    for spec in (*swapped, *specs):
        write_spec(spec)
    ordered = sorted(specs, key=lambda spec: spec.strategy.name == "zero3")
    works = [Work(str(spec.run_dir), swap=True) for spec in swapped] + [Work(str(spec.run_dir)) for spec in ordered]
    run_together(works, world, directory)


def outcome_of(spec: RunSpec) -> dict[str, Any]:
    """outcome.json of a run."""
    return json.loads((spec.run_dir / "outcome.json").read_text())


def column(spec: RunSpec, name: str) -> list[float]:
    """A figure of metrics.jsonl, for each step."""
    records = [json.loads(line) for line in (spec.run_dir / "metrics.jsonl").read_text().splitlines()]
    return [record[name] for record in records if name in record]
