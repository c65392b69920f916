from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from plan_examples import FACTS, recipe

from zerofit.config.errors import UserError
from zerofit.plan.batch import make_batches

small = st.integers(1, 12)


def facts(train: int) -> object:
    return FACTS.model_copy(update={"train": train})


@given(micro=small, ranks=small, accumulation=small, train=st.integers(1, 5000), epochs=st.floats(0.01, 20.0))
def test_sizes_multiply_and_lengths_add_up(
    micro: int, ranks: int, accumulation: int, train: int, epochs: float
) -> None:
    whole = micro * ranks * accumulation
    assume(whole <= train)
    said = recipe(train={"micro_batch": micro, "global_batch": whole, "epochs": epochs})
    batches = make_batches(said, facts(train), ranks)
    assert batches.micro * batches.accumulation * batches.ranks == batches.global_batch == whole
    assert batches.steps_per_epoch * whole <= train < (batches.steps_per_epoch + 1) * whole
    assert batches.total_steps == max(1, round(epochs * batches.steps_per_epoch))
    assert batches.evaluate_micro == micro


@given(micro=small, ranks=small, whole=st.integers(1, 500))
def test_a_global_batch_that_does_not_divide_is_answered_with_the_nearest_that_does(
    micro: int, ranks: int, whole: int
) -> None:
    at_once = micro * ranks
    assume(whole % at_once)
    with pytest.raises(UserError) as caught:
        make_batches(recipe(train={"micro_batch": micro, "global_batch": whole}), facts(10_000), ranks)
    message = str(caught.value)
    found = re.search(r"train\.global_batch (\d+) .*is one is (\d+)$", message)
    assert found, message
    assert int(found[1]) == whole
    nearest = int(found[2])
    assert nearest > 0
    assert nearest % at_once == 0
    assert abs(nearest - whole) == min(abs(n - whole) for n in range(at_once, whole + 2 * at_once, at_once))


@pytest.mark.parametrize(
    ("train", "total"),
    [
        ({"epochs": 3}, 66),
        ({"epochs": 0.5}, 11),
        ({"epochs": 0.001}, 1),
        ({"epochs": None, "max_steps": 500}, 500),
        ({"epochs": 3, "max_steps": 50}, 50),
        ({"epochs": 1, "max_steps": 50}, 22),
    ],
)
def test_the_shorter_of_epochs_and_max_steps_ends_the_run(train: dict[str, float], total: int) -> None:
    assert make_batches(recipe(train=train), FACTS, 1).total_steps == total  # 1437 // 64 = 22 steps an epoch


@pytest.mark.parametrize(
    ("warmup", "steps"),
    [({"steps": 7}, 7), ({"epochs": 0.5}, 11), ({"fraction": 0.25}, 11), ({"fraction": 1.0}, 44), ({"steps": 0}, 0)],
)
def test_warmup_in_steps_epochs_and_fractions(warmup: dict[str, float], steps: int) -> None:
    batches = make_batches(recipe(optimizer={"warmup": warmup}), FACTS, 2)
    assert (batches.total_steps, batches.warmup_steps) == (44, steps)


@pytest.mark.parametrize(
    ("section", "steps"),
    [
        ({}, None),
        ({"every_steps": 10}, 10),
        ({"every_steps": 99}, 44),
        ({"every_epochs": 1}, 22),
        ({"every_epochs": 9}, 44),
    ],
)
def test_intervals_in_steps_and_epochs_end_with_the_run(section: dict[str, int], steps: int | None) -> None:
    batches = make_batches(recipe(checkpoint=section, evaluate={"micro_batch": 100, **section}), FACTS, 2)
    assert batches.checkpoint_steps == batches.evaluate_steps == steps
    assert batches.evaluate_micro == 100


@pytest.mark.parametrize(
    ("changes", "samples", "said"),
    [
        ({"train": {"global_batch": 256}}, 200, ["global_batch 256", "200 training samples", "at most 192"]),
        ({"train": {"global_batch": 64}}, 30, ["global_batch 64", "30 training samples", "lower train.micro_batch"]),
        ({"optimizer": {"warmup": {"epochs": 3}}}, 640, ["warmup.epochs 3 is 30 steps", "run's 20"]),
        ({"optimizer": {"warmup": {"steps": 21}}}, 640, ["warmup.steps 21", "run's 20"]),
    ],
)
def test_faults_name_the_value_and_the_remedy(changes: dict[str, dict], samples: int, said: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        make_batches(recipe(**changes), facts(samples), 2)
    message = str(caught.value)
    assert "\n" not in message
    for part in said:
        assert part in message
