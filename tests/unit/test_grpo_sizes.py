"""The sizes of a GRPO run, and that every number that a refusal names is right."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from language_examples import PROMPTS, TURING, grpo
from plan_examples import CPU

from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.plan.batch import make_batches
from zerofit.plan.build import make_plan
from zerofit.plan.grpo import make_sizes, nearest_divisor, nearest_multiple
from zerofit.plan.spec import GrpoSizes, RunSpec, TextFacts

small = st.integers(1, 9)


def sizes(recipe: Recipe, ranks: int, facts: TextFacts = PROMPTS) -> GrpoSizes:
    found = make_sizes(recipe, facts, make_batches(recipe, facts, ranks))
    assert found is not None
    return found


def refusal(recipe: Recipe, ranks: int) -> str:
    """What is wrong with it; empty: nothing."""
    try:
        sizes(recipe, ranks)
    except UserError as error:
        return str(error)
    return ""


def changed(recipe: Recipe, message: str) -> list[Recipe]:
    """The recipe with each remedy that a refusal names."""
    made = []
    for field, value in re.findall(r"([\w.]+)=(\d+)", message.rpartition(": use ")[2] or message):
        body = recipe.model_dump(mode="json")
        path = {"train.global_batch": ("train", "global_batch"), "evaluate.micro_batch": ("evaluate", "micro_batch")}
        section, name = path.get(field, ("grpo", field))
        body[section][name] = int(value)
        if "without steps_per_generation" in message and field == "train.global_batch":
            body["grpo"]["steps_per_generation"] = None
        made.append(Recipe.model_validate(body))
    return made


def test_the_whole_sizes_of_a_run() -> None:
    spec = make_plan(grpo(), facts=PROMPTS, hardware=TURING, ranks=2, run_dir=PROMPTS.samples)
    assert spec.precision == "fp16"
    assert spec.batches.accumulation == 32
    assert spec.grpo == GrpoSizes(
        completions=64,  # 1 x 2 ranks x 32
        prompts=16,
        num_generations=4,
        steps_per_generation=32,
        generations_per_step=1,
        num_iterations=1,
        num_generations_eval=2,  # evaluation makes 1 x 2 at once
        evaluate_prompts=1,
        length=512 + 2048,
    )
    assert spec.batches.steps_per_epoch == 7473 * 4 // 64
    assert RunSpec.model_validate_json(spec.model_dump_json()) == spec


def test_other_tasks_have_none() -> None:
    recipe = grpo(task="sft", grpo=None)
    assert make_sizes(recipe, PROMPTS, make_batches(recipe, PROMPTS, 2)) is None
    assert make_batches(recipe, PROMPTS, 2).steps_per_epoch == 7473 // 64


@given(
    micro=small,
    ranks=st.integers(1, 4),
    accumulation=small,
    group=st.integers(2, 12),
    steps=st.none() | small,
    evaluated=st.none() | small,
    micro_evaluated=st.none() | small,
)
def test_what_is_planned_adds_up_and_what_a_refusal_names_is_planned(
    micro: int,
    ranks: int,
    accumulation: int,
    group: int,
    steps: int | None,
    evaluated: int | None,
    micro_evaluated: int | None,
) -> None:
    recipe = grpo(
        train={"micro_batch": micro, "global_batch": micro * ranks * accumulation},
        evaluate={"micro_batch": micro_evaluated},
        grpo={"num_generations": group, "steps_per_generation": steps, "num_generations_eval": evaluated},
    )
    message = refusal(recipe, ranks)
    if message:
        assert "\n" not in message
        remedies = changed(recipe, message)
        assert remedies, message
        for remedy in remedies:  # what is wrong with another field is another refusal's matter
            assert refusal(remedy, ranks).partition(" ")[0] != message.partition(" ")[0]
        return
    found = sizes(recipe, ranks)
    batches = make_batches(recipe, PROMPTS, ranks)
    assert found.completions == found.prompts * group == micro * ranks * found.steps_per_generation
    assert found.steps_per_generation * found.generations_per_step == accumulation
    assert found.evaluate_prompts * found.num_generations_eval == (micro_evaluated or micro) * ranks
    per_step = found.prompts * found.generations_per_step
    assert batches.steps_per_epoch == PROMPTS.train // per_step, "an epoch asks every prompt once"


@given(of=st.integers(1, 400), to=st.integers(1, 400))
def test_nearest_numbers_are_the_nearest(of: int, to: int) -> None:
    divisor, multiple = nearest_divisor(of, to), nearest_multiple(of, to)
    assert divisor is not None
    assert of % divisor == 0
    assert abs(divisor - to) == min(abs(one - to) for one in range(1, of + 1) if of % one == 0)
    assert multiple % of == 0
    assert abs(multiple - to) == min(abs(one - to) for one in range(of, to + 2 * of, of))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"grpo": {"num_generations": 5}},
            "grpo.num_generations 5 does not divide the 64 completions of a generation (micro_batch 1 x 2 ranks x 32 "
            "steps_per_generation): use num_generations=4, or train.global_batch=60",
        ),
        (
            {"grpo": {"steps_per_generation": 1}},
            "grpo.num_generations 4 does not divide the 2 completions of a generation (micro_batch 1 x 2 ranks x 1 "
            "steps_per_generation): use num_generations=2, or steps_per_generation=2",
        ),
        (
            {"grpo": {"steps_per_generation": 64}},
            "grpo.steps_per_generation 64 does not divide the accumulation 32: a generation would outlast its "
            "optimizer step, and no checkpoint keeps completions, so a run could not go on from every step; use "
            "steps_per_generation=32, or leave it out for 32",
        ),
        (
            {"grpo": {"num_iterations": 2}},
            "grpo.num_iterations 2: the passes over a generation would outlast the optimizer step, and no checkpoint "
            "keeps completions, so a run could not go on from every step; use num_iterations=1",
        ),
        (
            {"grpo": {"num_iterations": 2, "steps_per_generation": 16}},
            "grpo.num_iterations 2: 16 micro-batches x 2 passes lie within one optimizer step (accumulation 32), so "
            "each pass gives the same gradient; use num_iterations=1",
        ),
        (
            {"grpo": {"num_generations_eval": 4}},
            "grpo.num_generations_eval 4 does not divide the 2 completions that evaluation makes at once "
            "(evaluate.micro_batch 1 x 2 ranks): use num_generations_eval=2, or evaluate.micro_batch=2",
        ),
        (
            {"grpo": {"sampling": {"max_tokens": 131_000}}},
            "grpo.sampling.max_tokens 131000 and the longest prompt, 512 tokens, are 131512 together, and the model's "
            "context is 131072: use grpo.sampling.max_tokens=130560, or data.max_length=72, which leaves longer "
            "prompts out",
        ),
        (
            {"train": {"global_batch": 40_000}},
            "train.global_batch 40000 is more than the 29892 completions of 7473 prompts x 4, so no step is possible: "
            "use at most 29892",
        ),
    ],
)
def test_a_refusal_is_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        make_plan(grpo(**changes), facts=PROMPTS, hardware=TURING, ranks=2, run_dir=PROMPTS.samples)
    assert str(caught.value) == said


def test_a_context_that_is_not_known_yet_is_left_to_the_model() -> None:
    recipe = grpo(
        model={"shape": None, "pretrained": "someone/some-model"}, grpo={"sampling": {"max_tokens": 1_000_000}}
    )
    assert make_plan(recipe, facts=PROMPTS, hardware=CPU, ranks=2, run_dir=PROMPTS.samples).grpo is not None
