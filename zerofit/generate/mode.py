"""The state in which a model generates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from zerofit.config.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No gradients, no dropout; then every module is in the mode it was in.

    Activation checkpointing of transformers' own needs no switch: it is for modules in training mode alone.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def check_room(model: PreTrainedModel, lengths: Sequence[int], max_tokens: int) -> None:
    """Raise UserError where the longest prompt and a completion are longer than the model's context."""
    longest = max(lengths)
    assert min(lengths) > 0, "a prompt has at least one token"
    try:
        context: int = model.config.get_text_config().max_position_embeddings
    except AttributeError:
        return  # a model without positions
    if longest + max_tokens > context:
        raise UserError(
            f"a prompt of {longest} tokens and completions of {max_tokens} (sampling.max_tokens) do not fit into the "
            f"model's context of {context} tokens; take max_tokens <= {max(0, context - longest)} or shorter prompts"
        )
