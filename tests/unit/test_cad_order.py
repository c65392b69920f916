"""Which CAD model is used when, what it is seen by, and how much padding that takes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_order import batches

from zerofit.config.cad import MOST_VIEWS, Cad, Share
from zerofit.data.cad_inputs import Sizes, Slots, draw_at_once, draw_inputs, draw_views
from zerofit.data.cad_order import CadEvalOrder, CadKey, CadOrder
from zerofit.plan.spec import Batches

MIX = {"text": 1, "text+points": 1, "text+points+image": 2}
DATA = Cad(source="parts", mix=MIX, views=4, views_at_once=(1, 4))
SHARES = DATA.shares
few = st.integers(1, 4)
ONE_OF_FOUR = [3, 1, 1, 2, 0, 2, 2, 1, 2, 1, 0, 1, 1, 3, 0, 1, 2, 1, 0, 3]
"""Sides of samples 0 to 19 with seed 0 in epoch 0, from before a row could see several."""
seeds = st.integers(0, 2**32 - 1)


def sizes(samples: int, seed: int = 0) -> Sizes:
    random = np.random.default_rng(seed)
    captions, commands = random.integers(8, 40, samples), random.integers(20, 160, samples)
    return Sizes(captions, commands, 1, Slots(16, 25))


def steps(
    found: Sizes, layout: Batches, seed: int, epoch: int, first: int = 0, data: Cad = DATA
) -> list[list[list[CadKey]]]:
    """The micro-batches of each optimizer step of an epoch, in the order of (accumulation, rank)."""
    orders = [CadOrder(found, data, layout, seed, rank) for rank in range(layout.ranks)]
    for order in orders:
        order.seek(epoch, first)
    drawn = [list(order) for order in orders]
    assert all(len(order) == len(keys) for order, keys in zip(orders, drawn, strict=True))
    flat = [micro for turn in zip(*drawn, strict=True) for micro in turn]
    each = layout.accumulation * layout.ranks
    return [flat[start : start + each] for start in range(0, len(flat), each)]


def contents(found: list[list[list[CadKey]]]) -> list[list[CadKey]]:
    return [sorted(key for micro in step for key in micro) for step in found]


@given(st.integers(0, 40), few, few, few, seeds, st.integers(0, 5))
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
        lengths = found.drawn(SHARES, which, draw_at_once((1, 4), 5, epoch, samples))
        for step in steps(found, layout, 5, epoch):
            for micro in step:
                assert all(key.share == which[key.sample] for key in micro)
                seen = [found.of(SHARES[key.share].inputs, len(key.views))[key.sample] for key in micro]
                here = lengths[[key.sample for key in micro]]
                assert here.tolist() == seen
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
    assert set(draw_inputs((Share(SHARES[0].inputs, 1.0),), 0, 0, 9)) == {0}


@given(few, st.data(), seeds, st.integers(0, 5))
def test_a_row_sees_other_sides_each_time_and_none_of_them_twice(views, data, seed, epoch):
    most = data.draw(st.integers(1, views))
    sides = draw_views(views, most, seed, epoch, 60)
    assert sides.shape == (60, most)
    assert all(len(set(row)) == most and set(row) <= set(range(views)) for row in sides.tolist())
    assert np.array_equal(sides[:9], draw_views(views, most, seed, epoch, 9)), "of the sample alone"
    fewer = data.draw(st.integers(1, most))
    assert np.array_equal(sides[:, :fewer], draw_views(views, fewer, seed, epoch, 60)), "whatever comes beside them"
    bounds = (fewer, most)
    counts = draw_at_once(bounds, seed, epoch, 60)
    assert set(counts.tolist()) <= set(range(fewer, most + 1))
    assert np.array_equal(counts[:9], draw_at_once(bounds, seed, epoch, 9))


def test_every_choice_of_sides_and_every_number_of_them_is_as_frequent() -> None:
    pairs = draw_views(4, 2, 3, 1, 24000)
    found = np.bincount(pairs @ [4, 1], minlength=16).reshape(4, 4) / 24000
    assert found == pytest.approx((1 - np.eye(4)) / 12, abs=0.01)
    assert np.bincount(draw_at_once((1, 4), 3, 1, 8000))[1:] / 8000 == pytest.approx([0.25] * 4, abs=0.02)
    assert not np.array_equal(pairs, draw_views(4, 2, 3, 2, 24000))
    assert not np.array_equal(draw_at_once((1, 4), 3, 1, 60), draw_at_once((1, 4), 3, 2, 60))


def test_one_image_at_once_is_drawn_as_it_was_before_there_could_be_more() -> None:
    assert draw_views(4, 1, 0, 0, 20)[:, 0].tolist() == ONE_OF_FOUR
    data = DATA.model_copy(update={"views_at_once": (1, 1)})
    (keys,) = steps(sizes(20), batches(20, 20, 1, 1), 0, 0, data=data)[0]
    assert {key.sample: key.views for key in keys} == {n: (side,) for n, side in enumerate(ONE_OF_FOUR)}


def test_a_row_sees_its_images_in_the_order_of_the_sides() -> None:
    (keys,) = steps(sizes(64), batches(64, 64, 1, 1), 0, 0)[0]
    assert all(list(key.views) == sorted(set(key.views)) for key in keys)
    assert {len(key.views) for key in keys} == set(range(1, MOST_VIEWS + 1))


def test_lengths_count_what_is_seen() -> None:
    found = Sizes(np.array([10, 20]), np.array([5, 6]), 1, Slots(16, 25))
    text, cloud, image = (one.inputs for one in SHARES)
    assert found.of(text, 4).tolist() == [15, 26]
    assert found.of(cloud, 4).tolist() == [31, 42]
    assert found.of(image, 1).tolist() == [56, 67]
    assert found.of(image, np.array([4, 2])).tolist() == [131, 92]
    assert found.of(Cad(source="parts", mix={"points": 1}).shares[0].inputs, 1).tolist() == [22, 23]
    assert found.drawn(SHARES, np.array([2, 0]), np.array([3, 2])).tolist() == [106, 26]


@given(st.integers(1, 30), few, few)
def test_an_evaluation_counts_each_sample_once_and_is_as_long_on_every_rank(samples, micro, ranks):
    lengths = sizes(samples).of(SHARES[1].inputs, 2)
    orders = [CadEvalOrder(lengths, 1, (0, 1), micro, rank, ranks) for rank in range(ranks)]
    drawn = [list(order) for order in orders]
    assert all(len(keys) == len(order) for keys, order in zip(drawn, orders, strict=True))
    assert all(len(batch) == micro for keys in drawn for batch in keys)
    valid = [key.sample for keys in drawn for batch in keys for key in batch if key.valid]
    assert sorted(valid) == list(range(samples))
    assert all(key.views == (0, 1) for keys in drawn for batch in keys for key in batch)
