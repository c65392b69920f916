"""TRL's fused LM head on tensors without memory, as on a GPU: its kernels work in the tiles that they are given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from torch import Tensor
from trl.kernels import chunked_logprob
from trl.trainer import utils

from zerofit.models.trained import TrainedModel

COLUMNS: int = utils._CHUNKED_LOGPROB_CHUNK_SIZE
"""Entries of the vocabulary whose logits are there at a time."""


def fused_head(model: TrainedModel, outputs: tuple[str, ...]) -> None:
    """As TRL's trainers do, to a model that is called under `on_gpu`."""
    utils.add_fused_lm_head(model.family, outputs=outputs)


@contextmanager
def on_gpu() -> Iterator[None]:
    """The head scores the positions that count alone, and Triton's kernels, which have no memory of their own, are left
    out.
    """
    with ExitStack() as stack:
        stack.enter_context(patch.object(utils, "_use_triton", lambda device: True))
        for name in ("_forward_tile", "_backward_tile"):
            stack.enter_context(patch.object(chunked_logprob, name, _nothing))
        stack.enter_context(patch.object(chunked_logprob, "_addmm_fp32", _added))
        yield


def _nothing(*_: Any, **__: Any) -> None: ...


def _added(total: Tensor, one: Tensor, other: Tensor) -> None:
    """On a GPU the product is added up in float32 by the one kernel that makes it."""
