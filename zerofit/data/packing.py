"""Rows packed into samples, by TRL's best-fit-decreasing: no row is cut, and the same rows give the same packs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from zerofit.data.samples import PACKED, SAMPLES, Sample, Samples, Writer

TOGETHER = 2**23
"""Tokens, about, that are packed at a time: what is in memory."""


def pack(rows: Path, packs: Path, length: int) -> None:
    """Put the samples in the file `rows`, none longer than `length`, together in the file `packs`."""
    writer = Writer(packs, SAMPLES.with_metadata({PACKED: b"1"}))
    for group in _groups(Samples(rows)):
        for one in packed(group, length):
            writer.add({"tokens": one.tokens, "learnt": one.learnt, "lengths": one.lengths})
    writer.close()


def packed(rows: list[Sample], length: int) -> Iterator[Sample]:
    """The packs of these rows."""
    import datasets
    from trl.data_utils import pack_dataset  # seconds of import

    assert all(0 < len(row.tokens) <= length for row in rows), "a longer one would be cut"
    columns = {"tokens": [row.tokens for row in rows], "learnt": [row.learnt for row in rows]}
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        found = pack_dataset(
            datasets.Dataset.from_dict(columns),
            length,
            "bfd",
            map_kwargs={"batch_size": len(rows), "keep_in_memory": True, "new_fingerprint": "packs"},
        ).with_format("numpy")
    finally:
        if shown:
            datasets.enable_progress_bars()
    for one in found:
        yield Sample(one["tokens"].astype("int32"), one["learnt"].astype(bool), tuple(one["seq_lengths"].tolist()))


def _groups(rows: Iterable[Sample]) -> Iterator[list[Sample]]:
    group: list[Sample] = []
    tokens = 0
    for row in rows:
        group.append(row)
        tokens += len(row.tokens)
        if tokens >= TOGETHER:
            yield group
            group, tokens = [], 0
    if group:
        yield group
