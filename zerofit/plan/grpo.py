"""The sizes of a GRPO run: generations, their groups and how training uses them; wrong ones are told the nearest right.

Micro-batch and global batch count completions, as TRL's `per_device_train_batch_size` does. Checked against TRL 1.16's
trainer/grpo_config.py (`__post_init__`) and trainer/grpo_trainer.py (`_prepare_inputs`, `_get_train_sampler`).
"""

from __future__ import annotations

from math import gcd, lcm

from zerofit.config.errors import UserError
from zerofit.config.grpo import Grpo
from zerofit.config.model import Model
from zerofit.config.schema import Recipe
from zerofit.plan.decoder import context_of
from zerofit.plan.shapes import known_fields
from zerofit.plan.spec import Batches, GrpoSizes, ImageFacts, TextFacts


def make_sizes(recipe: Recipe, facts: ImageFacts | TextFacts, batches: Batches) -> GrpoSizes | None:
    """The sizes of the task grpo; None for another task.

    Raises UserError where a generation is no whole number of groups, where training would need one that no checkpoint
    keeps, and where a prompt and a completion are longer than the model's context.
    """
    grpo = recipe.grpo
    if grpo is None:
        return None
    assert isinstance(facts, TextFacts)
    steps = grpo.steps_per_generation or batches.accumulation
    _check_passes(grpo, steps, batches.accumulation)
    made = batches.micro * batches.ranks * steps
    _check_groups(grpo, steps, made, batches)
    evaluated = batches.evaluate_micro * batches.ranks
    together = grpo.num_generations_eval or gcd(grpo.num_generations, evaluated)
    _check_evaluation(together, evaluated, batches.ranks)
    _check_context(grpo.sampling.max_tokens, facts.longest, recipe.model)
    return GrpoSizes(
        completions=made,
        prompts=made // grpo.num_generations,
        num_generations=grpo.num_generations,
        steps_per_generation=steps,
        generations_per_step=batches.accumulation // steps,
        num_iterations=grpo.num_iterations,
        num_generations_eval=together,
        evaluate_prompts=evaluated // together,
        length=facts.longest + grpo.sampling.max_tokens,
    )


def nearest_divisor(of: int, to: int, least: int = 1) -> int | None:
    """The divisor of `of`, at least `least`, that is nearest to `to` (the larger of two); None where there is none."""
    divisors = (one for one in range(least, of + 1) if of % one == 0)
    return min(divisors, key=lambda one: (abs(one - to), -one), default=None)


def nearest_multiple(of: int, to: int) -> int:
    """The multiple of `of`, above 0, that is nearest to `to` (the larger of two)."""
    return max(of, (to + of // 2) // of * of)


def _check_passes(grpo: Grpo, steps: int, accumulation: int) -> None:
    """Every optimizer step begins with a generation and uses it up.

    TRL takes any other combination too, and keeps the completions of a generation and its count of micro-batches in
    memory alone (`_buffered_inputs`, `_step`): a run that goes on from a checkpoint within a generation would train on
    other completions, and cut every later one in two. Several passes within one optimizer step are allowed by TRL as
    well, and are the same gradient over again, for the weights do not change in between.
    """
    passes = grpo.num_iterations
    if accumulation % (steps * passes) == 0:
        if passes > 1:
            raise UserError(
                f"grpo.num_iterations {passes}: {steps} micro-batches x {passes} passes lie within one optimizer step "
                f"(accumulation {accumulation}), so each pass gives the same gradient; use num_iterations=1"
            )
        return
    if passes > 1:
        raise UserError(
            f"grpo.num_iterations {passes}: the passes over a generation would outlast the optimizer step, and no "
            "checkpoint keeps completions, so a run could not go on from every step; use num_iterations=1"
        )
    nearest = nearest_divisor(accumulation, steps)
    raise UserError(
        f"grpo.steps_per_generation {steps} does not divide the accumulation {accumulation}: a generation would "
        "outlast its optimizer step, and no checkpoint keeps completions, so a run could not go on from every step; "
        f"use steps_per_generation={nearest}, or leave it out for {accumulation}"
    )


def _check_groups(grpo: Grpo, steps: int, made: int, batches: Batches) -> None:
    """A generation holds all completions of its prompts."""
    asked, at_once = grpo.num_generations, batches.micro * batches.ranks
    if made % asked == 0:
        return
    fewer = nearest_divisor(made, asked, least=2)
    remedies = [] if fewer is None else [f"num_generations={fewer}"]
    whole = [one for one in range(1, batches.accumulation + 1) if batches.accumulation % one == 0]
    whole = [one for one in whole if at_once * one % asked == 0]
    if whole:
        remedies.append(f"steps_per_generation={min(whole, key=lambda one: abs(one - steps))}")
    else:
        batch = nearest_multiple(lcm(at_once, asked), batches.global_batch)
        left_out = "" if grpo.steps_per_generation is None else " without steps_per_generation"
        remedies.append(f"train.global_batch={batch}{left_out}")
    raise UserError(
        f"grpo.num_generations {asked} does not divide the {made} completions of a generation (micro_batch "
        f"{batches.micro} x {_ranks(batches.ranks)} x {steps} steps_per_generation): use {', or '.join(remedies)}"
    )


def _check_evaluation(together: int, evaluated: int, ranks: int) -> None:
    """An evaluation's batch holds all completions of its prompts."""
    if evaluated % together == 0:
        return
    fewer = nearest_divisor(evaluated, together)
    micro = nearest_multiple(together // gcd(together, ranks), evaluated // ranks)
    raise UserError(
        f"grpo.num_generations_eval {together} does not divide the {evaluated} completions that evaluation makes at "
        f"once (evaluate.micro_batch {evaluated // ranks} x {_ranks(ranks)}): use num_generations_eval={fewer}, or "
        f"evaluate.micro_batch={micro}"
    )


def _check_context(completion: int, prompt: int, model: Model) -> None:
    """The model has seen as many positions; one whose config is not at hand is asked when it is loaded."""
    context = context_of(known_fields(model))
    if context is None or prompt + completion <= context:
        return
    remedies = []
    if context > prompt:
        remedies.append(f"grpo.sampling.max_tokens={context - prompt}")
    if context > completion:
        remedies.append(f"data.max_length={context - completion}, which leaves longer prompts out")
    raise UserError(
        f"grpo.sampling.max_tokens {completion} and the longest prompt, {prompt} tokens, are {prompt + completion} "
        f"together, and the model's context is {context}: use {', or '.join(remedies) or 'shorter prompts'}"
    )


def _ranks(ranks: int) -> str:
    return f"{ranks} rank" if ranks == 1 else f"{ranks} ranks"
