"""A run's model and its operations as they would be on a GPU, on CPU tensors that have a shape and no memory.

`torch.device("cuda")` cannot be pretended on a machine without it: autograd would stop the process. So tensors are on a
CPU, and what would go another way there is put right in `pretending`, and as it was when that is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import masking_utils
from transformers.initialization import no_init_weights

from zerofit.models.build import Outline, constructed
from zerofit.models.placement import give_dtypes
from zerofit.models.quantised import packed_layers
from zerofit.models.trained import TrainedModel
from zerofit.plan.spec import RunSpec
from zerofit.predict.attention import attention_on
from zerofit.predict.autocast import like_cuda
from zerofit.predict.known import Knowing, remembering


@contextmanager
def pretending(capability: tuple[int, int] | None) -> Iterator[FakeTensorMode]:
    """Tensors that are made here have no memory, and operations take what a GPU of this compute capability takes."""
    with ExitStack() as stack:
        stack.enter_context(remembering())
        # Values being known, masks are to be looked at as in a run, and not built for whatever may come.
        stack.enter_context(patch.object(masking_utils, "is_tracing", _not_tracing))
        stack.enter_context(patch.object(F, "scaled_dot_product_attention", attention_on(capability)))
        stack.enter_context(patch.object(F, "dropout", _dropout))
        stack.enter_context(like_cuda())
        mode = stack.enter_context(FakeTensorMode())
        stack.enter_context(Knowing(mode))
        yield mode


class FakePlacement:
    """Every weight whole, in `dtype`; frozen ones in the model's own. None has memory."""

    device = torch.device("cpu")

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def building(self) -> AbstractContextManager[None]:
        """Fake tensors are made where a fake mode is on."""
        return nullcontext()

    def shard(self, model: TrainedModel) -> None:
        """Nothing is cut up."""
        give_dtypes(model, self.dtype)

    def write(self, parameter: Tensor, value: Tensor) -> None:
        """Nothing has values."""
        raise AssertionError("a fake weight has no value")


def fake_model(outline: Outline, spec: RunSpec, held: torch.dtype, compute_dtype: torch.dtype) -> TrainedModel:
    """The run's model, whose trained parameters are of the dtype `held`; to be made under `pretending`."""
    placement = FakePlacement(held)
    with no_init_weights():
        model = constructed(outline, spec, placement, compute_dtype)
        placement.shard(model)
        for _, layer in packed_layers(model):
            layer.take(torch.empty(layer.out_features, layer.in_features))
    return model


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """CUDA keeps a mask of one byte an element."""
    return torch.native_dropout(input, p, True)[0] if training and p > 0 else input


def _not_tracing(tensor: object = None) -> bool:
    return False
