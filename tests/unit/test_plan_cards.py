"""Cards by their names, and the machine that a plan is asked for."""

from __future__ import annotations

import pytest
from plan_examples import CPU, gpus, recipe

from zerofit.config.errors import UserError
from zerofit.launch.asked import HERE, Asked
from zerofit.plan.cards import CARDS, card_of, named_card
from zerofit.plan.precision import resolve_precision
from zerofit.plan.strategy import resolve_strategy


def test_every_card_is_found_by_its_names() -> None:
    assert len({card.short for card in CARDS}) == len(CARDS)
    for card in CARDS:
        assert card_of(card.name) is named_card(card.name) is named_card(card.short) is card
        assert (card.bf16 is None) == (card.capability < (8, 0))


@pytest.mark.parametrize(
    ("word", "short"),
    [("2080 Ti", "rtx-2080-ti"), ("RTX2080Ti", "rtx-2080-ti"), ("H100", "h100"), ("A100 40GB", "a100-40gb")],
)
def test_names_are_taken_as_people_write_them(word: str, short: str) -> None:
    assert named_card(word).short == short


@pytest.mark.parametrize(("word", "near"), [("h300", "h200"), ("L40", "l40s"), ("rtx-409", "rtx-4090")])
def test_an_unknown_card_is_answered_with_the_nearest(word: str, near: str) -> None:
    with pytest.raises(UserError, match=rf"--gpu: '{word}' is not known; did you mean {near}\?") as caught:
        named_card(word)
    assert "\n" not in str(caught.value)


def test_a_machine_is_this_one_unless_something_else_is_asked_for() -> None:
    here = HERE.machine(gpus(4))
    assert (here.hardware, here.here) == (gpus(4), True)
    assert here.host_gib is not None
    more = Asked(gpus=8).machine(gpus(4))
    assert (more.hardware.count, more.hardware.name, more.here) == (8, "Some GPU", False)
    laptop = Asked(gpus=8).machine(CPU)
    assert (laptop.hardware.count, laptop.hardware.name) == (8, "NVIDIA H100 80GB HBM3")
    assert laptop.host_gib is None


def test_a_card_decides_on_the_precision() -> None:
    old = Asked(2, "rtx-2080-ti", None, "64GiB").machine(CPU)
    assert (old.hardware.memory_gib, old.host_gib) == (11.0, 64.0)
    assert resolve_precision("auto", old.hardware) == "fp16"
    size = Asked(2, None, "11264MiB").machine(CPU)
    assert (size.hardware.memory_gib, size.hardware.name) == (11.0, "GPU of 11 GiB (Ampere assumed)")
    assert resolve_precision("auto", size.hardware) == "bf16"
    assert Asked(1, "h200", "24GiB").machine(CPU).hardware.memory_gib == 24.0


def test_ranks_are_as_many_as_divide_the_batch() -> None:
    said = recipe(train={"micro_batch": 16, "global_batch": 64})
    assert Asked(gpus=3, gpu="l4").machine(CPU).ranks(resolve_strategy(said), None, said.train) == 2


@pytest.mark.parametrize("size", ["11GB", "much", "0", "-3GiB"])
def test_a_size_that_is_none_is_one_line(size: str) -> None:
    with pytest.raises(UserError, match="--gpu-memory: .* is no size: use for example 11GiB"):
        Asked(gpu_memory=size).machine(CPU)
