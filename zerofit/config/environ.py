"""Environment variables that stay as the caller has them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_environment() -> Iterator[None]:
    """Afterwards the environment variables are what they were: importing a tensor library sets some."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)
