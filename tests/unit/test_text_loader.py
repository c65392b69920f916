"""Micro-batches of text: a learnt token is a label once, packed rows begin anew, all numbers of ranks see the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zerofit.data.images import IGNORED
from zerofit.data.order import TrainOrder
from zerofit.data.packing import packed
from zerofit.data.samples import PACKED, SAMPLES, Sample, Samples, Writer
from zerofit.data.text_loader import Batch, Collator, train_loader, validation_batches
from zerofit.plan.spec import Batches

PAD = 0


@st.composite
def _row(draw: st.DrawFn) -> Sample:
    learnt = draw(st.lists(st.booleans(), min_size=1, max_size=12))
    tokens = draw(st.lists(st.integers(1, 500), min_size=len(learnt), max_size=len(learnt)))
    return Sample(np.array(tokens, np.int32), np.array([False, *learnt[1:]]), (len(tokens),))


ROWS = st.lists(_row(), min_size=1, max_size=12)


def targets(batch: Batch) -> list[tuple[int, int, int]]:
    """(token, the one before it, position) of each target, as a causal model sees them after its shift."""
    tokens, labels = batch["input_ids"], batch["labels"]
    positions = batch.get("position_ids", torch.arange(tokens.shape[1]).expand_as(tokens))
    return sorted(
        (int(labels[b, t]), int(tokens[b, t - 1]), int(positions[b, t]))
        for b, t in (labels != IGNORED).nonzero().tolist()
        if t > 0
    )


def expected(rows: list[Sample]) -> list[tuple[int, int, int]]:
    return sorted(
        (int(one.tokens[i]), int(one.tokens[i - 1]), int(i)) for one in rows for i in np.flatnonzero(one.learnt)
    )


@given(ROWS)
def test_a_padded_micro_batch_holds_every_learnt_token_once(rows: list[Sample]) -> None:
    batch = Collator(PAD, packed=False)(rows)
    assert targets(batch) == expected(rows)
    assert batch["attention_mask"].sum() == sum(len(one.tokens) for one in rows)
    assert batch["input_ids"].shape == (len(rows), max(len(one.tokens) for one in rows))
    outside = batch["attention_mask"] == 0
    assert (batch["labels"][outside] == IGNORED).all()
    assert (batch["input_ids"][outside] == PAD).all()


@given(ROWS, st.integers(12, 40))
def test_packs_hold_every_learnt_token_once_and_no_target_of_a_row_follows_another_row(
    rows: list[Sample], length: int
) -> None:
    packs = list(packed(rows, length))
    assert sorted(one for pack in packs for one in pack.lengths) == sorted(len(row.tokens) for row in rows)
    assert all(len(pack.tokens) == sum(pack.lengths) <= length for pack in packs)
    for in_one_row in (False, True):
        batch = Collator(PAD, packed=True, in_one_row=in_one_row)(packs)
        assert targets(batch) == expected(rows)  # with the token before it: of the same row
        assert (batch["labels"][batch["position_ids"] == 0] == IGNORED).all()
        assert int((batch["position_ids"] == 0).sum()) == len(rows)
        assert len(batch["input_ids"]) == (1 if in_one_row else len(packs))


def test_the_same_rows_give_the_same_packs() -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(1, 9, 99).tolist()
    rows = [Sample(np.full(n, i, np.int32), np.ones(n, np.bool_), (n,)) for i, n in enumerate(lengths)]
    first, second = ([pack.tokens.tolist() for pack in packed(rows, 16)] for _ in range(2))
    assert first == second


def sizes(ranks: int, micro: int, samples: int) -> Batches:
    return Batches(
        ranks=ranks,
        micro=micro,
        accumulation=8 // (ranks * micro),
        global_batch=8,
        evaluate_micro=micro,
        steps_per_epoch=samples // 8,
        total_steps=4,
        warmup_steps=0,
        checkpoint_steps=None,
        evaluate_steps=None,
    )


def stored(path: Path, count: int, rows_each: int = 1) -> Samples:
    """Sample i is of tokens i + 1, as many as i % 5 + 2 a row."""
    writer = Writer(path, SAMPLES.with_metadata({PACKED: b"1"} if rows_each > 1 else {}))
    for i in range(count):
        lengths = (i % 5 + 2,) * rows_each
        writer.add(
            {
                "tokens": np.full(sum(lengths), i + 1, np.int32),
                "learnt": np.concatenate([np.arange(n) > 0 for n in lengths]),
                "lengths": lengths,
            }
        )
    writer.close()
    return Samples(path)


def seen(batch: Batch) -> list[int]:
    return sorted({*batch["input_ids"].flatten().tolist()} - {PAD})


@pytest.mark.parametrize("rows_each", [1, 3])
def test_any_number_of_ranks_takes_the_same_samples_in_each_step(tmp_path: Path, rows_each: int) -> None:
    samples = stored(tmp_path / "s.arrow", 35, rows_each)

    def steps(ranks: int, micro: int) -> list[list[int]]:
        loaders = []
        for rank in range(ranks):
            order = TrainOrder(35, sizes(ranks, micro, 35), seed=5, rank=rank)
            order.seek(1, 1)
            loaders.append([seen(batch) for batch in train_loader(samples, order, Collator(PAD, samples.packed))])
        forwards = 8 // (ranks * micro)
        return [
            sorted(one for loader in loaders for batch in loader[k * forwards : (k + 1) * forwards] for one in batch)
            for k in range(3)
        ]

    whole = steps(1, 8)
    assert [len(step) for step in whole] == [8, 8, 8]
    assert steps(2, 4) == steps(4, 1) == steps(1, 1) == whole


@pytest.mark.parametrize(("count", "ranks", "rows_each"), [(7, 4, 1), (1, 2, 3), (9, 2, 3), (8, 2, 1)])
def test_validation_takes_each_sample_once_in_as_many_batches_on_every_rank(
    tmp_path: Path, count: int, ranks: int, rows_each: int
) -> None:
    samples = stored(tmp_path / "s.arrow", count, rows_each)
    shares = [list(validation_batches(samples, 2, rank, ranks, Collator(PAD, samples.packed))) for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1
    batches = [batch for share in shares for batch in share]
    assert sorted(one for batch in batches for one in seen(batch)) == list(range(1, count + 1))
    assert sum(int((batch["labels"] != IGNORED).sum()) for batch in batches) == sum(
        int(one.learnt.sum()) for one in samples
    )
    for batch in batches:
        assert batch["input_ids"].shape[1] >= 2  # something to forward


def test_loading_leaves_random_numbers_alone(tmp_path: Path) -> None:
    samples = stored(tmp_path / "s.arrow", 16)
    before = torch.get_rng_state()
    assert len(list(train_loader(samples, TrainOrder(16, sizes(1, 4, 16), 0, 0), Collator(PAD, samples.packed)))) == 4
    assert torch.equal(torch.get_rng_state(), before)


def test_samples_of_many_batches_are_found_by_their_number(tmp_path: Path) -> None:
    samples = stored(tmp_path / "s.arrow", 2500)
    assert len(samples) == 2500
    for i in (0, 1023, 1024, 2047, 2048, 2499):
        assert samples[i].tokens.tolist() == [i + 1] * (i % 5 + 2)
        assert samples[i].lengths == (i % 5 + 2,)
    with pytest.raises(IndexError):
        samples[2500]
