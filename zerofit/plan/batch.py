"""Sizes, lengths and rate: from samples and epochs, as the recipe says them, to micro-batches and optimizer steps."""

from __future__ import annotations

from math import lcm

from zerofit.config.errors import UserError
from zerofit.config.optimizer import Optimizer, Warmup
from zerofit.config.schema import Checkpoint, Evaluate, Recipe
from zerofit.config.strategy import AUTO
from zerofit.plan.spec import Batches, ImageFacts, TextFacts


def make_batches(recipe: Recipe, facts: ImageFacts | TextFacts, ranks: int, micro: int | None = None) -> Batches:
    """Sizes in samples, lengths in optimizer steps. `micro` is the micro-batch; null: the recipe's, which says one.

    An epoch is `train samples // global_batch` steps: the remainder is left out. A sample of the task grpo is a
    completion: num_generations of each prompt. Raises UserError where the global batch is no multiple of micro_batch x
    ranks, where the data hold less than one, and where warm-up outlasts the run.
    """
    train = recipe.train
    if micro is None:
        assert train.micro_batch != AUTO, "it has been chosen by now"
        micro = train.micro_batch
    accumulation = _accumulation(micro, train.global_batch, ranks)
    times = 1 if recipe.grpo is None else recipe.grpo.num_generations
    steps_per_epoch = facts.train * times // train.global_batch
    if steps_per_epoch == 0:
        raise UserError(_too_few(micro * ranks, train.global_batch, facts.train, times))
    lengths = [] if train.max_steps is None else [train.max_steps]
    if train.epochs is not None:
        lengths.append(max(1, round(train.epochs * steps_per_epoch)))
    total = min(lengths)
    return Batches(
        ranks=ranks,
        micro=micro,
        accumulation=accumulation,
        global_batch=train.global_batch,
        evaluate_micro=recipe.evaluate.micro_batch or micro,
        steps_per_epoch=steps_per_epoch,
        total_steps=total,
        warmup_steps=_warmup_steps(recipe.optimizer.warmup, steps_per_epoch, total),
        checkpoint_steps=_interval(recipe.checkpoint, steps_per_epoch, total),
        evaluate_steps=_interval(recipe.evaluate, steps_per_epoch, total),
    )


def peak_rate(optimizer: Optimizer, global_batch: int) -> float:
    """Learning rate after warm-up; from `blr` by the linear scaling rule (Goyal et al. 2017)."""
    if optimizer.lr is not None:
        return optimizer.lr
    assert optimizer.blr is not None, "the schema lets exactly one rate be given"
    return optimizer.blr * global_batch / 256


def _accumulation(micro: int, whole: int, ranks: int) -> int:
    at_once = micro * ranks
    accumulation, rest = divmod(whole, at_once)
    if rest:
        nearest = max(at_once, (whole + at_once // 2) // at_once * at_once)
        raise UserError(
            f"train.global_batch {whole} is not a multiple of micro_batch {micro} x {_ranks(ranks)} = {at_once}: "
            f"the nearest that is one is {nearest}"
        )
    return accumulation


def _too_few(at_once: int, whole: int, rows: int, times: int) -> str:
    samples, unit = rows * times, lcm(at_once, times)
    largest = samples // unit * unit
    remedy = f"use at most {largest}" if largest else f"lower train.micro_batch too (micro_batch x ranks is {at_once})"
    what = f"{rows} training samples" if times == 1 else f"{samples} completions of {rows} prompts x {times}"
    return f"train.global_batch {whole} is more than the {what}, so no step is possible: {remedy}"


def _warmup_steps(warmup: Warmup, steps_per_epoch: int, total: int) -> int:
    if warmup.steps is not None:
        said, steps = f"steps {warmup.steps}", warmup.steps
    elif warmup.epochs is not None:
        said, steps = f"epochs {warmup.epochs:g}", round(warmup.epochs * steps_per_epoch)
    else:
        assert warmup.fraction is not None, "the schema lets exactly one field be given"
        said, steps = f"fraction {warmup.fraction:g}", round(warmup.fraction * total)
    if steps > total:
        raise UserError(
            f"optimizer.warmup.{said} is {steps} steps, more than the run's {total}: the peak rate is never reached; "
            f"warm up for at most {total} steps or train longer"
        )
    return steps


def _interval(section: Checkpoint | Evaluate, steps_per_epoch: int, total: int) -> int | None:
    if section.every_steps is not None:
        return min(section.every_steps, total)
    if section.every_epochs is not None:
        return min(section.every_epochs * steps_per_epoch, total)
    return None


def _ranks(ranks: int) -> str:
    return f"{ranks} rank" if ranks == 1 else f"{ranks} ranks"
