"""Rows of a data set of the Hugging Face hub, streamed: `hf:ID`, `hf:ID:CONFIG`, `hf:ID:CONFIG:SPLIT`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zerofit.config.errors import UserError
from zerofit.prepare.sources import HUB


def rows(name: str) -> Iterator[Any]:
    """The rows, of the split `train` unless another is named. Downloads. Raises UserError where it cannot."""
    import datasets  # a second of import that files do not pay

    identity, config, split = (*name.removeprefix(HUB).split(":"), "", "")[:3]
    identity, _, revision = identity.partition("@")
    try:
        yield from datasets.load_dataset(
            identity, config or None, split=split or "train", revision=revision or None, streaming=True
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name} cannot be loaded as a data set ({reason[:300]})") from error
