"""Random numbers that are a function of (seed, epoch, sample, purpose), for many samples at once.

Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011): a counter goes in, four
random words come out, so nothing has to be drawn in any order.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

WORD = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)
MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
ROUNDS = 10

Words = NDArray[np.uint64]


class Purpose(IntEnum):
    """What numbers are drawn for: each purpose has its own, so that using one more changes none of the others."""

    CROP = 0
    FLIP = 1
    OPERATIONS = 2
    MIX = 3
    INPUTS = 4
    VIEW = 5
    AT_ONCE = 6


def philox(counter: tuple[Words, Words, Words, Words], key: tuple[Words, Words]) -> tuple[Words, Words, Words, Words]:
    """Four random 32-bit words for each counter (four words) and key (two words), all as uint64."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        p0, p1 = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (p1 >> HALF) ^ c1 ^ k0, p1 & WORD, (p0 >> HALF) ^ c3 ^ k1, p0 & WORD
        k0, k1 = (k0 + WEYL[0]) & WORD, (k1 + WEYL[1]) & WORD
    return c0, c1, c2, c3


def uniforms(
    seed: int, epoch: NDArray[np.int64], index: NDArray[np.int64], purpose: Purpose, count: int
) -> NDArray[np.float64]:
    """`count` numbers in [0, 1) for each sample: [B, count] for epoch [B] and index [B]."""
    which = index.astype(np.uint64)[:, None]
    block = np.arange(-(-count // 2), dtype=np.uint64)[None, :]
    counter = np.broadcast_arrays(which & WORD, which >> HALF, np.uint64(purpose), block)
    words = philox(tuple(counter), (np.uint64(seed), epoch.astype(np.uint64)[:, None]))  # type: ignore[arg-type]
    pairs = [(high >> np.uint64(5)) * 2.0**26 + (low >> np.uint64(6)) for high, low in (words[:2], words[2:])]
    return np.stack(pairs, axis=-1).reshape(len(index), -1)[:, :count] * 2.0**-53
