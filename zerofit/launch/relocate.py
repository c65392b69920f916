"""`zerofit convert SOURCE --to STRATEGY --world N`: training state for another strategy, or another number of ranks.

Of a run comes a new run beside it, whose one checkpoint the target's own engine has written, on ranks of this
machine's CPU: `zerofit train --resume` goes on with it as if it had been trained so. Of another program's DeepSpeed
checkpoint comes one that this program loads (relocate_zero.py). The source is only read.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zerofit.checkpoint.commit import read_best, record_best
from zerofit.checkpoint.manifest import newest, read_manifest, step_of
from zerofit.config.errors import UserError, did_you_mean
from zerofit.config.schema import Recipe
from zerofit.config.strategy import AUTO, STRATEGIES, ZERO_STAGE
from zerofit.launch import reference, rundir
from zerofit.launch.dispatch import Launch, dispatch
from zerofit.launch.environment import outer_world
from zerofit.launch.recipe import override
from zerofit.launch.relocate_zero import is_deepspeed, relocate_zero
from zerofit.launch.replan import EARLIER, how, replan
from zerofit.launch.worker import REWRITTEN
from zerofit.plan.auto import nearest_micro, settled
from zerofit.plan.files import DEEPSPEED_FILE, RUN_FILE, write_spec
from zerofit.plan.hardware import cpu
from zerofit.plan.spec import RunSpec

METRICS = "metrics.jsonl"


def relocate(source: Path, strategy: str, world: int | None, output: Path | None, *, debug: bool = False) -> int:
    """Write the checkpoint that `source` names for `strategy` on `world` ranks (null: as many as before).

    `source` is RUN (its newest whole checkpoint), RUN@STEP or RUN/checkpoints/step-000500; `output` (null: beside the
    run, RUN-zero3-x4) is there whole or not at all. Returns the exit code. Raises UserError.
    """
    _check(strategy, world)
    run, step = reference.split(source)
    if step is None and not reference.is_run(run) and is_deepspeed(run):
        return relocate_zero(run, strategy, world, output, debug=debug)
    if step is None and (run / "state.json").is_file():
        raise UserError(
            f"{run} is in the canonical form, which no recipe comes with; any strategy goes on from it: "
            f"zerofit train RECIPE strategy={strategy} --resume {run}"
        )
    before = rundir.load(run)
    checkpoint = _checkpoint(before.run_dir, run, step)
    step, facts = step_of(checkpoint) or 0, read_manifest(checkpoint).facts
    spec = _planned(run, before, strategy, world)
    ranks = spec.batches.ranks
    if (facts["strategy"], facts["world_size"]) == (strategy, ranks):
        raise UserError(
            f"{run}@{step} was written by {how(strategy, ranks)} already: there is nothing to do; go on with: "
            f"zerofit train --resume {run}@{step} strategy={strategy} --nproc {ranks}"
        )
    output = (output or before.run_dir.with_name(f"{before.run_dir.name}-{strategy}-x{ranks}")).expanduser().absolute()
    check_free(output, before.run_dir)
    spec = _in(output, spec)
    part = output.with_name(f".{output.name}.part")
    lock = begin(part)
    try:
        _lay_out(part, spec, before, step, {"from": str(checkpoint), "written_by": facts})
        launch = Launch(
            run_dir=output,
            arguments=(str(part), "--rewrite", str(checkpoint)),
            logs=part / "logs" / "convert",
            result=part / REWRITTEN,
            ranks=ranks,
            headline=f"writing {os.path.relpath(checkpoint)} for {how(strategy, ranks)}, on the CPU",
        )
        code = dispatch(lambda *_: launch, nproc=None, debug=debug, show=lambda _: None, hardware=cpu())
        if code == 0:
            _keep_best(before.run_dir, part, step)
            os.rename(part, output)
            print(_done(run, step, facts, before, spec))
    finally:
        shutil.rmtree(part, ignore_errors=True)
        os.close(lock)
    return code


def check_free(output: Path, source: Path) -> None:
    """Raise UserError where `output` holds something, or lies within `source`, which is not to change."""
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(f"{output} exists: name a new directory to convert to, with --output")
    if source in output.parents:
        raise UserError(f"--output {output} lies within {source}, which is only read: name a directory elsewhere")


def _check(strategy: str, world: int | None) -> None:
    """What is wrong with the words alone, or with where they are said. Raises UserError."""
    able = [name for name in STRATEGIES if name != "zeropp"]
    if strategy == "zeropp":
        raise UserError(
            "--to zeropp: its quantisation exists as CUDA kernels alone, and checkpoints are converted on the CPU; use "
            "zero3, and then on GPUs: zerofit train --resume RUN strategy=zeropp"
        )
    if strategy not in able:
        raise UserError(f"--to {strategy}: there are {', '.join(able)}{did_you_mean(strategy, able)}")
    if world is not None and world < 1:
        raise UserError(f"--world {world}: there is at least one rank")
    if outer_world(os.environ) is not None:
        raise UserError("zerofit convert starts its own ranks: leave torchrun, deepspeed, accelerate or srun out")


def _checkpoint(run_dir: Path, run: Path, step: int | None) -> Path:
    """The one that is asked for, or the newest whole one. Raises UserError."""
    if step is not None:
        return reference.exact(run_dir, step, lambda one: f"{run}@{one}")
    checkpoint = newest(run_dir / "checkpoints", reference.tell)
    if checkpoint is None:
        raise UserError(f"{run} has no complete checkpoint")
    return checkpoint


def _planned(run: Path, before: RunSpec, strategy: str, world: int | None) -> RunSpec:
    """The run under the target; GPUs that it was planned for need not be here. Raises UserError."""
    recipe = before.recipe
    ranks = world or (1 if strategy == "single" else before.batches.ranks)
    asked = recipe
    if strategy != before.strategy.name:
        named = settled(before).model_copy(update={"train": recipe.train})
        asked = override(named, _words(named, strategy))
    hardware = before.hardware
    if hardware.device == "cuda":
        hardware = hardware.model_copy(update={"count": max(hardware.count, ranks)})
    spec = replan(run, before, _fitting(asked, ranks), hardware, ranks)
    if spec.precision == "fp16" and strategy in ZERO_STAGE:
        raise UserError(
            f"--to {strategy}: {run} trains in fp16, which DeepSpeed does not hold on a CPU; on its GPUs this takes "
            f"it over: zerofit train --resume {run} strategy={strategy} --nproc {ranks}"
        )
    if "nvme" in (spec.strategy.offload.optimizer, spec.strategy.offload.params):
        raise UserError(f"--to {strategy}: {run} offloads to NVMe, whose files DeepSpeed writes where they are alone")
    return spec


def _words(recipe: Recipe, strategy: str) -> list[str]:
    """Overrides that name the strategy, and drop what it cannot have."""
    words = [f"strategy={strategy}"]
    if recipe.strategy.deepspeed is not None and strategy not in ZERO_STAGE:
        words.append("strategy.deepspeed=null")
    if recipe.strategy.compile and ZERO_STAGE.get(strategy) == 3:
        words.append("strategy.compile=false")
    return words


def _fitting(recipe: Recipe, ranks: int) -> Recipe:
    """With the largest micro-batch up to the recipe's of which `ranks` ranks make the global batch, if there is one."""
    train = recipe.train
    if train.micro_batch == AUTO:
        return recipe  # `replan` sees to it
    micro = nearest_micro(recipe, ranks, train.micro_batch)
    return recipe.model_copy(update={"train": train.model_copy(update={"micro_batch": micro})})


def _in(output: Path, spec: RunSpec) -> RunSpec:
    """`spec` with another directory; the name stays, so that it goes on with the same recipe."""
    recipe = spec.recipe
    if recipe.run_dir is not None:
        recipe = recipe.model_copy(update={"run_dir": output})
    return spec.model_copy(update={"run_dir": output, "recipe": recipe})


def begin(part: Path) -> int:
    """Make the directory that becomes the output, empty; returns what holds it. Raises UserError."""
    try:
        part.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{part.parent} cannot be written: {error.strerror}") from None
    lock = rundir.claim(part)
    rundir.remove(part, ())  # of a conversion that was killed
    return lock


def _lay_out(part: Path, spec: RunSpec, before: RunSpec, step: int, made: Mapping[str, Any]) -> None:
    """All of the new run but its checkpoint."""
    write_spec(spec.model_copy(update={"run_dir": part}))
    rundir.write_json(part / RUN_FILE, spec.model_dump(mode="json"))  # as it lies in the end
    if spec.deepspeed is None:
        (part / DEEPSPEED_FILE).unlink(missing_ok=True)
    rundir.write_json(part / REWRITTEN, {"step": step, **made})
    old = before.run_dir
    if (old / METRICS).exists():
        shutil.copyfile(old / METRICS, part / METRICS)  # the rank that writes drops later steps
    kept = part / EARLIER
    kept.mkdir()
    then = old / RUN_FILE
    for plan in sorted((old / EARLIER).glob("run-*.json"), reverse=True):
        if int(plan.stem.removeprefix("run-")) < step:
            shutil.copyfile(plan, kept / plan.name)
        else:
            then = plan  # it was followed up to the step that names it
    shutil.copyfile(then, kept / f"run-{step:06d}.json")


def _keep_best(old: Path, part: Path, step: int) -> None:
    """Of the checkpoint that was carried over it can still be said that it is the best so far."""
    try:
        best = read_best(old / "checkpoints")
    except UserError:
        return
    if best is not None and best.step == step:
        record_best(part / "checkpoints", best)


def _done(run: Path, step: int, facts: Mapping[str, Any], before: RunSpec, spec: RunSpec) -> str:
    """What was done, and the next command."""
    output = os.path.relpath(spec.run_dir)
    was, now = how(facts["strategy"], facts["world_size"]), how(spec.strategy.name, spec.batches.ranks)
    micro, fewer = before.batches.micro, spec.batches.micro
    said = "" if micro == fewer else f", with train.micro_batch {fewer} instead of {micro}"
    finished = step >= spec.batches.total_steps
    then = (
        f"its steps are all done; see: zerofit eval {output}"
        if finished
        else f"go on with: zerofit train --resume {output}"
    )
    return f"{run}@{step}, written by {was}, is now {output} for {now}{said}; {then}"
