"""From which number a completion is drawn."""

from __future__ import annotations

from hashlib import sha256


def seed_of(seed: int, problem: int, sample: int) -> int:
    """Of that sample of that problem, 63 bits: whatever the rank, the batch, and how many samples there are."""
    words = f"{seed} {problem} {sample}".encode()
    return int.from_bytes(sha256(words).digest()[:8], "big") >> 1
