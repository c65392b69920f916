"""Seeds of their own for whatever has a name."""

from __future__ import annotations

import hashlib


def seed_of(seed: int, name: str) -> int:
    """63 bits of a hash of (seed, name)."""
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
