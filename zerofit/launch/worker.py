"""One rank: `python -m zerofit.launch.worker RUN ...` reads run.json, which says everything, and runs the task."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NoReturn

from zerofit.config import patience
from zerofit.config.data import Data
from zerofit.config.section import Section
from zerofit.evaluate.request import Pending
from zerofit.launch import failure, lifeline, ops_cache, rundir
from zerofit.launch.environment import World, outer_world
from zerofit.launch.listener import Listener
from zerofit.launch.watchdog import Watchdog
from zerofit.plan.hardware import cpu
from zerofit.plan.on_cpu import on_cpu
from zerofit.plan.spec import Hardware, RunSpec
from zerofit.train.pulse import PULSE, Stopped

Device = Literal["cpu", "cuda"]
REWRITTEN = "converted.json"
"""In a run that `zerofit convert --to STRATEGY` has made: out of what."""


class Evaluation(Section):
    """What is to be evaluated, and with what: the beginning of evaluations/N.json."""

    checkpoint: Path
    """Absolute path."""
    data: Data | None
    """Other data than the run's."""
    hardware: Hardware
    """What there is now."""
    ranks: int
    """World size now."""


def main() -> None:
    """Run as a process that `run_ranks` has started."""
    lifeline.watch()
    world = outer_world(os.environ)
    assert world is not None, "started without a launcher"
    arguments = parse()
    failure.guard(world.rank, arguments.logs, lambda: _work_in_group(arguments, world))
    failure.finish()


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The worker's arguments, of this process by default."""
    parser = argparse.ArgumentParser("zerofit.launch.worker", description=__doc__)
    parser.add_argument("run", type=Path, help="the run directory")
    parser.add_argument("--logs", type=Path, required=True, help="where rank-N.error.json goes")
    parser.add_argument("--resume", type=Path, metavar="CHECKPOINT", help="train on from this checkpoint")
    parser.add_argument("--rewrite", type=Path, metavar="CHECKPOINT", help="write this checkpoint as the run's own")
    parser.add_argument("--evaluate", type=Path, metavar="FILE", help="evaluate what this evaluations/N.json asks for")
    parser.add_argument("--answer", action="store_true", help="RUN is an evaluation of a language model: its share")
    parser.add_argument("--shapes", action="store_true", help="RUN is an evaluation on CAD models: its share")
    return parser.parse_args(words)


def _work_in_group(arguments: argparse.Namespace, world: World) -> None:
    from zerofit.launch import group

    device, do = duty(arguments, world)
    group.join(world, device)

    def end(how: int | failure.Failure) -> None:
        if isinstance(how, int):
            failure.leave(128 + how)
        with suppress(OSError):  # a full drive, say
            failure.write(arguments.logs, how)
        failure.leave(how.code)

    if arguments.rewrite is None:  # else nothing is to be saved on a signal: it ends the rank
        listen(arguments, device, world, end, again=False)
    try:
        do()
    except Stopped:
        leave_stopped()
    group.leave()


def duty(arguments: argparse.Namespace, world: World) -> tuple[Device, Callable[[], None]]:
    """The device that is planned for, and what is to be done in a group that has been joined; that raises Stopped."""
    if arguments.answer or arguments.shapes:
        from zerofit.evaluate.request import read_request
        from zerofit.evaluate.shape_request import read_request as read_shapes

        request: Pending = (read_shapes if arguments.shapes else read_request)(arguments.run)
        return request.hardware.device, lambda: _share(arguments, world)
    spec, evaluation = read(arguments)
    return spec.hardware.device, lambda: work(arguments, spec, evaluation, world)


def listen(
    arguments: argparse.Namespace,
    device: Device,
    world: World,
    end: Callable[[int | failure.Failure], None],
    *,
    again: bool,
) -> None:
    """Take signals and hangs in hand, from the first step on; `end` gets the signal that ends the rank, or the hang."""
    limit, nccl = patience.watchdog(os.environ), device == "cuda"
    watchdog = Watchdog(world, arguments.logs, limit, end, nccl=nccl)
    PULSE.attach(Listener(watchdog, end, patience.grace(os.environ), again=again))


def leave_stopped() -> NoReturn:
    """End a rank that has stopped as all have. Collective: a launcher that sees one end may kill the others."""
    import torch.distributed as dist

    from zerofit.launch import group

    assert PULSE.listener is not None
    PULSE.listener.deafen()
    dist.barrier()
    group.leave()
    failure.finish(failure.INTERRUPTED)


def read(arguments: argparse.Namespace) -> tuple[RunSpec, Evaluation | None]:
    """The run's spec; with --evaluate as it is on the hardware of now, and what is asked for.

    With --rewrite as it is on this machine's CPU.
    """
    spec = rundir.load(arguments.run)
    if arguments.rewrite is not None:
        return on_cpu(spec, cpu()), None
    if arguments.evaluate is None:
        return spec, None
    evaluation = Evaluation.model_validate_json(arguments.evaluate.read_text(encoding="utf-8"))
    elsewhere = evaluation.hardware.device != spec.hardware.device
    now = {
        "hardware": evaluation.hardware,
        "batches": spec.batches.model_copy(update={"ranks": evaluation.ranks}),
        "deepspeed": None,  # evaluation reads whole weights: DeepSpeed need not even be installed
        "precision": "fp32" if elsewhere and evaluation.hardware.device == "cpu" else spec.precision,
    }
    return spec.model_copy(update=now), evaluation


def work(arguments: argparse.Namespace, spec: RunSpec, evaluation: Evaluation | None, world: World) -> None:
    """Run the task in a group that has been joined; rank 0 writes the result file. Raises Stopped."""

    def body() -> dict[str, Any]:
        from zerofit.launch import group

        group.limit(spec.recipe.hardware.memory_cap, spec.hardware.device)
        prepare_engine(spec)
        return _body(arguments, spec, evaluation)

    _recorded(body, _result_file(arguments, spec), world)


def _share(arguments: argparse.Namespace, world: World) -> None:
    """A rank's share of an evaluation of a language model, or on CAD models. Raises Stopped."""

    def body() -> dict[str, Any]:
        from zerofit.launch import workarounds

        workarounds.quiet()  # before what it quiets is imported
        from zerofit.evaluate import reasoning, shapes

        (shapes if arguments.shapes else reasoning).evaluate(arguments.run)
        return {}

    _recorded(body, arguments.run / "result.json", world)


def _recorded(body: Callable[[], dict[str, Any]], file: Path, world: World) -> None:
    """Do it; rank 0 writes what it gives, and how it ended, to the result file. Raises Stopped."""
    started = time.monotonic()
    figures, stopped = {}, None
    try:
        figures = body()
    except Stopped as error:
        stopped = error
    if world.rank == 0:
        end = {"exit": "finished" if stopped is None else "interrupted", "wall_s": round(time.monotonic() - started, 3)}
        rundir.add_result(file, **figures, **end)
    if stopped is not None:
        raise stopped


def _result_file(arguments: argparse.Namespace, spec: RunSpec) -> Path:
    if arguments.rewrite is not None:
        return spec.run_dir / REWRITTEN
    return arguments.evaluate or spec.run_dir / "result.json"


def _body(arguments: argparse.Namespace, spec: RunSpec, evaluation: Evaluation | None) -> dict[str, Any]:
    """What the task gives for the result file."""
    if arguments.rewrite is not None:
        from zerofit.tasks.rewriting import rewrite

        rewrite(rundir.load(arguments.run), spec, arguments.rewrite)
        return {}
    if evaluation is None:
        from zerofit.tasks import TASKS

        return beside_prediction(spec, TASKS[spec.recipe.task].train(spec, arguments.resume))
    from zerofit.evaluate.evaluators import EVALUATORS

    return {"test": EVALUATORS[spec.recipe.task](spec, evaluation.checkpoint, evaluation.data)}


def beside_prediction(spec: RunSpec, figures: dict[str, Any]) -> dict[str, Any]:
    """A training's figures, with what was predicted of its memory beside what it took, where something was."""
    measured = figures.get("peak_alloc_gib")
    if spec.prediction is None or not measured:
        return figures
    return {**figures, "prediction": spec.prediction.against(measured)}


def prepare_engine(spec: RunSpec) -> None:
    """What depends on the engine, before the libraries that read it are imported."""
    from zerofit.launch import workarounds

    workarounds.quiet()
    if spec.deepspeed is not None:
        cache = Path(os.environ["TORCH_EXTENSIONS_DIR"])
        for lock in ops_cache.clear_stale_locks(cache):
            print(f"removed the lock of a build that was killed: {lock}")
        ops_cache.hold(cache)
        workarounds.apply()
    elif spec.hardware.device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = (
            "true"  # accelerate runs several ranks on CPU only when told; it hides DeepSpeed
        )


if __name__ == "__main__":
    main()
