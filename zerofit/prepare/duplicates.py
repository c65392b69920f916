"""Rows that are the same as an earlier one, or nearly: hashes, and MinHash signatures in an LSH index."""

from __future__ import annotations

import numpy as np
import xxhash
from datasketch import MinHash, MinHashLSH

from zerofit.prepare.rows import Example
from zerofit.prepare.wording import digest, normalise, runs, signs

THRESHOLD = 0.8
"""Jaccard similarity of two rows' runs of words from which on they are near duplicates."""
RUN = 5
"""Words of a run."""
PERMUTATIONS = 128
SEED = 1
_SCHEME = "affine32"


class Duplicates:
    """Rows of the same text and answer. Keeps a hash, and the place, of each."""

    def __init__(self) -> None:
        self._first: dict[int, str] = {}

    def of(self, example: Example, source: str) -> str | None:
        """The earlier row that this is a duplicate of; else remembers it, and returns null."""
        turns = [f"{message.role}\0{normalise(message.content)}" for message in example.messages]
        first = self._first.setdefault(digest("\0".join([*turns, example.answer or ""])), source)
        return None if first is source else first


class NearDuplicates:
    """Rows of nearly the same text. Two whose numbers, signs or answers differ are different exercises, and none.

    Keeps a signature, and the place, of each row.
    """

    def __init__(self) -> None:
        blank = MinHash(PERMUTATIONS, SEED, scheme=_SCHEME, hashfunc=xxhash.xxh32_intdigest)
        self._permutations = blank.permutations
        self._index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS, hashfunc=_short)
        self._signatures: dict[str, bytes] = {}

    def of(self, example: Example, source: str) -> str | None:
        """The earlier row that this is nearly the same as; else remembers it, and returns null."""
        signature = self._signature(example)
        kept = signature.hashvalues
        for other in sorted(self._index.query(signature)):  # candidates, of which some are less alike
            alike = np.count_nonzero(np.frombuffer(self._signatures[other], dtype=kept.dtype) == kept)
            if alike >= THRESHOLD * PERMUTATIONS:
                return str(other)
        self._index.insert(source, signature, check_duplication=False)
        self._signatures[source] = kept.tobytes()
        return None

    def _signature(self, example: Example) -> MinHash:
        found = MinHash(
            PERMUTATIONS, SEED, scheme=_SCHEME, hashfunc=xxhash.xxh32_intdigest, permutations=self._permutations
        )
        found.update_batch([run.encode() for run in runs(example.words, RUN)])
        # The same change to every value: alike stays alike among rows of the same signs, and nothing else is.
        found.hashvalues ^= np.uint32(xxhash.xxh32_intdigest(f"{signs(example.text)}\0{example.answer or ''}".encode()))
        return found


def _short(band: bytes) -> bytes:
    return xxhash.xxh3_64_digest(band)
