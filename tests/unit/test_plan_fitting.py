"""The verdict's rule: peak, its error, what no tensor gets, and the allocator's slack, against card and host."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_examples import FACTS, gpus, recipe

from zerofit.config.errors import UserError
from zerofit.plan.build import make_plan
from zerofit.plan.fitting import CONTEXT, EXACT_ERROR, HOST_SLACK, SLACK, fit, outside, overall
from zerofit.plan.prediction import Memory
from zerofit.plan.spec import RunSpec


def memory(peak: float, *, exact: bool = True, host: float = 5.0) -> Memory:
    return Memory(peak_gib=peak, phase="step", split={}, phases={"step": peak}, host_gib=host, exact=exact)


def run(card: float, strategy: str = "zero2", ranks: int = 2) -> RunSpec:
    hardware = gpus(8).model_copy(update={"memory_gib": card})
    return make_plan(recipe(strategy=strategy), facts=FACTS, hardware=hardware, ranks=ranks, run_dir=Path("runs"))


def test_the_rule_by_hand() -> None:
    found = fit(memory(20.0), run(24.0))
    assert found.least_gib == pytest.approx(20.0 * 1.02 + 1.5)
    assert found.needed_gib == pytest.approx(20.0 * 1.12 + 1.5)
    assert (found.verdict, found.host_verdict, found.host_gib) == ("fits", "fits", None)
    assert fit(memory(20.0), run(23.0)).verdict == "tight"
    assert fit(memory(20.0), run(21.0)).verdict == "does not fit"
    assert fit(memory(20.0, exact=False), run(24.0)).verdict == "does not fit"
    assert fit(memory(20.0), run(24.0, "ddp")).needed_gib == pytest.approx(20.0 * 1.06 + 1.5)
    assert fit(memory(20.0), run(24.0, "single", 1)).needed_gib == pytest.approx(20.0 * 1.06 + CONTEXT)


def test_the_host_has_a_verdict_of_its_own() -> None:
    found = fit(memory(20.0, host=62.0), run(80.0), 64.0)
    assert (found.verdict, found.host_verdict, overall(found)) == ("fits", "tight", "tight")
    assert fit(memory(20.0, host=64 / (1 + HOST_SLACK)), run(80.0), 64.0).host_verdict == "fits"
    assert overall(fit(memory(20.0, host=65.0), run(80.0), 64.0)) == "does not fit"


@given(peak=st.floats(0.1, 200.0), card=st.floats(2.0, 200.0), exact=st.booleans(), ranks=st.sampled_from([1, 2]))
def test_a_verdict_is_what_its_numbers_say(peak: float, card: float, exact: bool, ranks: int) -> None:
    found = fit(memory(peak, exact=exact), run(card, ranks=ranks))
    assert found.least_gib >= peak * (1 + EXACT_ERROR)
    assert found.needed_gib - found.least_gib == pytest.approx(peak * SLACK[False], abs=0.02)
    if abs(found.needed_gib - card) > 0.01 and abs(found.least_gib - card) > 0.01:
        assert (found.verdict == "fits") == (found.needed_gib < card)
        assert (found.verdict == "does not fit") == (found.least_gib > card)
    assert outside(2) > outside(1) == CONTEXT


def test_a_card_that_is_too_small_for_one_layer_is_an_error() -> None:
    said = recipe(model={"kind": "patch_lm", "shape": "qwen3-8b", "patch_size": 2}, strategy="zero3+offload_all")
    hardware = gpus(8).model_copy(update={"memory_gib": 0.9})
    spec = make_plan(said, facts=FACTS, hardware=hardware, ranks=2, run_dir=Path("runs"))
    with pytest.raises(UserError, match=r"a card of 0.9 GiB cannot hold the weights of one layer \(0.36 GiB") as caught:
        fit(memory(0.1), spec)
    assert "\n" not in str(caught.value)
