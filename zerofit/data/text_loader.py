"""Micro-batches of text: rows, or packs of them, side by side and padded.

PyTorch's attention computes what a mask takes away, so that packs end to end, in one row, would cost their number
squared. The kernels of the package flash-attn know packs in one row alone, and cost the same there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from zerofit.data.images import IGNORED
from zerofit.data.loader import Loader
from zerofit.data.order import EvalKey, EvalOrder, TrainKey, TrainOrder
from zerofit.data.samples import Sample, Samples
from zerofit.plan.spec import RunSpec

Batch = dict[str, Tensor]


class _Train(Dataset[Sample]):
    """Samples by the keys of an order."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitem__(self, key: TrainKey) -> Sample:
        return self.samples[key.sample]


class _Evaluation(Dataset["Sample | None"]):
    """The same; null for what only fills a batch."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitem__(self, key: EvalKey) -> Sample | None:
        return self.samples[key.sample] if key.valid else None


class Collator:
    """Makes a micro-batch of samples."""

    def __init__(self, pad: int, packed: bool, in_one_row: bool = False) -> None:
        self.pad, self.packed, self.in_one_row = pad, packed, in_one_row

    def __call__(self, samples: Sequence[Sample | None]) -> Batch:
        """input_ids, labels (-100: no target), attention_mask and, of packs, position_ids; all int64 [B, T].

        Packs in one row have no attention_mask.

        Without any sample a row of two tokens and no target: every rank has something to forward.
        """
        there = [sample for sample in samples if sample is not None]
        if not there:
            nothing = np.full(2, self.pad, dtype=np.int32)
            there = [Sample(nothing, np.zeros(2, dtype=np.bool_), (2,))]
        if self.packed and self.in_one_row:
            return end_to_end(there)
        return side_by_side(there, self.pad, self.packed)


def collator_of(spec: RunSpec) -> Collator:
    """Of a run of the task sft."""
    model = spec.recipe.language_model
    return Collator(spec.text.pad, spec.recipe.text.packing, in_one_row=model.attention == "flash")


def side_by_side(samples: Sequence[Sample], pad: int, packed: bool = False) -> Batch:
    """A row for each sample, filled up on the right to the longest; of packs with positions that begin again within.

    What fills a pack up belongs to its last row, which comes before it.
    """
    size = (len(samples), max(len(sample.tokens) for sample in samples))
    tokens, labels = np.full(size, pad, dtype=np.int64), np.full(size, IGNORED, dtype=np.int64)
    there = np.zeros(size, dtype=np.int64)
    for row, sample in enumerate(samples):
        here = slice(len(sample.tokens))
        tokens[row, here], labels[row, here], there[row, here] = sample.tokens, _labels(sample), 1
    batch = _tensors(input_ids=tokens, labels=labels, attention_mask=there)
    return batch | _tensors(position_ids=np.stack([_positions(one, size[1]) for one in samples])) if packed else batch


def end_to_end(samples: Sequence[Sample]) -> Batch:
    """One row of all; positions begin again at each row that is packed in it, and so does the model's attention."""
    tokens = np.concatenate([sample.tokens for sample in samples])
    labels = np.concatenate([_labels(sample) for sample in samples])
    positions = np.concatenate([_positions(sample, len(sample.tokens)) for sample in samples])
    return _tensors(input_ids=tokens[None], labels=labels[None], position_ids=positions[None])


def _positions(sample: Sample, length: int) -> Any:
    """Of each of `length` tokens in its row."""
    *before, last = sample.lengths
    assert length - sum(before) >= last
    return np.concatenate([*map(np.arange, before), np.arange(length - sum(before))])


def train_loader(samples: Samples, order: TrainOrder, collator: Collator, pin_memory: bool = False) -> Loader:
    """Micro-batches of `order`, each time it is iterated from where the order stands."""
    assert order.samples == len(samples)
    return _loader(_Train(samples), order, collator, pin_memory)


def validation_batches(
    samples: Samples, micro: int, rank: int, ranks: int, collator: Collator, pin_memory: bool = False
) -> Loader:
    """This rank's batches of an evaluation, as many on every rank; each sample is in one of them."""
    order = EvalOrder(len(samples), micro, rank, ranks)
    return _loader(_Evaluation(samples), order, collator, pin_memory)


def _loader(items: Any, order: TrainOrder | EvalOrder, collate: Collator, pin_memory: bool) -> Loader:
    return Loader(
        items,
        batch_sampler=order,  # without worker processes: a sample is two slices of a mapped file
        collate_fn=collate,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # of seeds that nobody uses; without it each iteration would advance torch's own
    )


def _labels(sample: Sample) -> Any:
    return np.where(sample.learnt, sample.tokens, IGNORED)


def _tensors(**arrays: Any) -> Batch:
    return {name: torch.from_numpy(array.astype(np.int64)) for name, array in arrays.items()}
