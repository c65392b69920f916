"""Which sample is used when: every rank, every micro-batch, after any resume."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zerofit.data.order import EvalOrder, TrainOrder, permutation
from zerofit.plan.spec import Batches

sizes = st.integers(1, 4)


def batches(samples: int, micro: int, accumulation: int, ranks: int) -> Batches:
    global_batch = micro * accumulation * ranks
    return Batches(
        ranks=ranks,
        micro=micro,
        accumulation=accumulation,
        global_batch=global_batch,
        evaluate_micro=micro,
        steps_per_epoch=samples // global_batch,
        total_steps=1,
        warmup_steps=0,
        checkpoint_steps=None,
        evaluate_steps=None,
    )


def steps(samples: int, sizes: Batches, seed: int, epoch: int, first: int = 0) -> list[list[int]]:
    """The samples of each optimizer step of an epoch, in the order of (accumulation, rank, place)."""
    orders = [TrainOrder(samples, sizes, seed, rank) for rank in range(sizes.ranks)]
    for order in orders:
        order.seek(epoch, first)
    drawn = [list(order) for order in orders]
    assert all(len(order) == len(micro_batches) for order, micro_batches in zip(orders, drawn, strict=True))
    flat = [key.sample for turn in zip(*drawn, strict=True) for micro_batch in turn for key in micro_batch]
    return [flat[i : i + sizes.global_batch] for i in range(0, len(flat), sizes.global_batch)]


@given(st.integers(0, 40), sizes, sizes, sizes, st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_steps_are_the_permutation_whatever_the_layout(extra, micro, accumulation, ranks, seed, epoch):
    layout = batches(0, micro, accumulation, ranks)
    samples = layout.global_batch + extra
    expected = permutation(samples, seed, epoch).tolist()
    found = steps(samples, batches(samples, micro, accumulation, ranks), seed, epoch)
    assert sum(found, []) == expected[: samples // layout.global_batch * layout.global_batch]
    assert found == steps(samples, batches(samples, layout.global_batch, 1, 1), seed, epoch)


@given(sizes, sizes, sizes, st.integers(1, 5), st.data())
def test_seek_gives_the_rest_of_the_epoch(micro, accumulation, ranks, length, data):
    samples = micro * accumulation * ranks * length
    sizes = batches(samples, micro, accumulation, ranks)
    first = data.draw(st.integers(0, length - 1))
    assert steps(samples, sizes, 7, 3, first) == steps(samples, sizes, 7, 3)[first:]


def test_epochs_and_seeds_differ_and_an_order_repeats_itself():
    order = TrainOrder(64, batches(64, 8, 2, 1), seed=0, rank=0)
    first = list(order)
    assert first == list(order)
    order.seek(1)
    assert [key.sample for batch in first for key in batch] != [key.sample for batch in order for key in batch]
    assert {key.epoch for batch in order for key in batch} == {1}
    assert permutation(64, 0, 0).tolist() != permutation(64, 1, 0).tolist()


@given(st.integers(1, 30), sizes, sizes)
def test_partner_is_the_next_of_the_permutation(samples, micro, ranks):
    sizes = batches(samples, micro, 1, ranks)
    if sizes.steps_per_epoch == 0:
        return
    order = permutation(samples, 5, 0)
    following = dict(zip(order.tolist(), np.roll(order, -1).tolist(), strict=True))
    for rank in range(ranks):
        for batch in TrainOrder(samples, sizes, 5, rank):
            assert all(key.partner == following[key.sample] for key in batch)


@given(st.integers(1, 60), st.integers(1, 9), sizes)
def test_evaluation_counts_every_sample_once_in_equal_batches(samples, micro, ranks):
    everyone = [list(EvalOrder(samples, micro, rank, ranks)) for rank in range(ranks)]
    assert len({len(drawn) for drawn in everyone} | {len(EvalOrder(samples, micro, 0, ranks))}) == 1
    assert {len(batch) for drawn in everyone for batch in drawn} == {micro}
    keys = [key for drawn in everyone for batch in drawn for key in batch]
    assert sorted(key.sample for key in keys if key.valid) == list(range(samples))
    assert all(0 <= key.sample < samples for key in keys)
