"""How many completions a GPU decodes at once: what its memory leaves for keys and values beside the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from zerofit.config.errors import UserError
from zerofit.evaluate.request import Pending

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHARE = 0.7
"""Of the memory that is free once the weights are there; the rest is for activations and fragments."""
LOGITS = 32
"""Bytes of a logit while a token is drawn: float32 and float64, several times."""


def fitting_batch(model: PreTrainedModel, device: torch.device, length: int, most: int) -> int:
    """At most `most` sequences of `length` tokens; the same on every rank. Collective."""
    fitting = most
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        each = length * bytes_per_token(model) + LOGITS * model.config.get_text_config().vocab_size
        fitting = max(1, min(most, int(SHARE * free) // each))
    found = torch.tensor(fitting)
    dist.all_reduce(found, op=dist.ReduceOp.MIN)  # on the CPU
    return int(found)


def bytes_per_token(model: PreTrainedModel) -> int:
    """Of keys and values in all layers."""
    config = model.config.get_text_config()
    fields = config.to_dict()
    heads = fields.get("num_key_value_heads") or config.num_attention_heads
    width = fields.get("head_dim") or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * width * model.dtype.itemsize


def device_of(request: Pending) -> torch.device:
    """That the launcher chose for this rank."""
    if request.hardware.device == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


@contextmanager
def fitting(batch: int) -> Iterator[None]:
    """Decode so many at once here. Raises UserError where they are too many."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise UserError(
            f"{batch} completions at once do not fit into the GPU's memory: use --batch {max(1, batch // 2)}; what is "
            "done is kept"
        ) from None
