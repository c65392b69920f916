"""Which CAD model is used when, what it is seen by, and how much padding that takes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_order import batches

from zerofit.config.cad import Cad, Share
from zerofit.data.cad_inputs import Sizes, Slots, draw_inputs, draw_views
from zerofit.data.cad_order import CadEvalOrder, CadKey, CadOrder
from zerofit.plan.spec import Batches

SHARES = Cad(source="parts", mix={"text": 1, "text+points": 1, "text+points+image": 2}).shares
few = st.integers(1, 4)


def sizes(samples: int, seed: int = 0) -> Sizes:
    random = np.random.default_rng(seed)
    captions, commands = random.integers(8, 40, samples), random.integers(20, 160, samples)
    return Sizes(captions, commands, 1, Slots(16, 25))


def steps(
    found: Sizes, layout: Batches, seed: int, epoch: int, first: int = 0, shares: tuple[Share, ...] = SHARES
) -> list[list[list[CadKey]]]:
    """The micro-batches of each optimizer step of an epoch, in the order of (accumulation, rank)."""
    orders = [CadOrder(found, shares, 3, layout, seed, rank) for rank in range(layout.ranks)]
    for order in orders:
        order.seek(epoch, first)
    drawn = [list(order) for order in orders]
    assert all(len(order) == len(keys) for order, keys in zip(orders, drawn, strict=True))
    flat = [micro for turn in zip(*drawn, strict=True) for micro in turn]
    each = layout.accumulation * layout.ranks
    return [flat[start : start + each] for start in range(0, len(flat), each)]


def contents(found: list[list[list[CadKey]]]) -> list[list[CadKey]]:
    return [sorted(key for micro in step for key in micro) for step in found]


@given(st.integers(0, 40), few, few, few, st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_global_batches_are_the_same_on_any_layout(extra, micro, accumulation, ranks, seed, epoch):
    whole = micro * accumulation * ranks
    samples = 3 * whole + extra
    found = contents(steps(sizes(samples), batches(samples, micro, accumulation, ranks), seed, epoch))
    assert found == contents(steps(sizes(samples), batches(samples, whole, 1, 1), seed, epoch))
    used = [key.sample for step in found for key in step]
    assert len(used) == len(set(used)) == samples // whole * whole


@given(few, few, few, st.integers(1, 70), st.data())
def test_an_epoch_goes_on_from_any_step_on_another_number_of_ranks(micro, accumulation, ranks, length, data):
    whole = micro * accumulation * ranks
    samples = whole * length
    first = data.draw(st.integers(0, length - 1))
    rest = contents(steps(sizes(samples), batches(samples, whole, 1, 1), 7, 3, first))
    assert rest == contents(steps(sizes(samples), batches(samples, micro, accumulation, ranks), 7, 3))[first:]


def test_micro_batches_are_alike_in_length() -> None:
    samples, layout = 2000, batches(2000, 8, 2, 2)
    found, padded, there = sizes(samples), 0, 0
    for epoch in range(2):
        which = draw_inputs(SHARES, 5, epoch, samples)
        lengths = found.drawn(SHARES, which)
        for step in steps(found, layout, 5, epoch):
            for micro in step:
                assert all(key.share == which[key.sample] for key in micro)
                here = lengths[[key.sample for key in micro]]
                padded, there = padded + here.max() * len(here), there + here.sum()
    assert 1 - there / padded <= 0.03


def test_epochs_differ_and_global_batches_do_not_come_in_order_of_length() -> None:
    found, layout = sizes(640), batches(640, 8, 1, 2)
    first, second = contents(steps(found, layout, 1, 0)), contents(steps(found, layout, 1, 1))
    assert first != second
    lengths = [max(found.captions[key.sample] + found.commands[key.sample] for key in step) for step in first]
    assert lengths != sorted(lengths)


def test_what_a_row_sees_is_drawn_by_weight_and_by_nothing_else() -> None:
    whole = draw_inputs(SHARES, 3, 1, 8000)
    assert np.array_equal(whole[:50], draw_inputs(SHARES, 3, 1, 50))
    found = np.bincount(whole) / len(whole)
    assert found == pytest.approx([0.25, 0.25, 0.5], abs=0.02)
    assert not np.array_equal(whole, draw_inputs(SHARES, 3, 2, 8000))
    assert not np.array_equal(whole, draw_inputs(SHARES, 4, 1, 8000))
    sides = draw_views(3, 3, 1, 8000)
    assert np.bincount(sides) / len(sides) == pytest.approx([1 / 3] * 3, abs=0.02)
    assert set(draw_inputs((Share(SHARES[0].inputs, 1.0),), 0, 0, 9)) == {0}


def test_lengths_count_what_is_seen() -> None:
    found = Sizes(np.array([10, 20]), np.array([5, 6]), 1, Slots(16, 25))
    text, cloud, image = (one.inputs for one in SHARES)
    assert found.of(text).tolist() == [15, 26]
    assert found.of(cloud).tolist() == [31, 42]
    assert found.of(image).tolist() == [56, 67]
    assert found.of(Cad(source="parts", mix={"points": 1}).shares[0].inputs).tolist() == [22, 23]
    assert found.drawn(SHARES, np.array([2, 0])).tolist() == [56, 26]


@given(st.integers(1, 30), few, few)
def test_an_evaluation_counts_each_sample_once_and_is_as_long_on_every_rank(samples, micro, ranks):
    lengths = sizes(samples).of(SHARES[1].inputs)
    orders = [CadEvalOrder(lengths, 1, micro, rank, ranks) for rank in range(ranks)]
    drawn = [list(order) for order in orders]
    assert all(len(keys) == len(order) for keys, order in zip(drawn, orders, strict=True))
    assert all(len(batch) == micro for keys in drawn for batch in keys)
    valid = [key.sample for keys in drawn for batch in keys for key in batch if key.valid]
    assert sorted(valid) == list(range(samples))
