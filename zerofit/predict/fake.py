"""A run's model and its operations as they would be on a GPU, on CPU tensors that have a shape and no memory.

`torch.device("cuda")` cannot be pretended on a machine without it: autograd would stop the process. So tensors are on a
CPU, and what would go another way there is put right in `pretending`, and as it was when that is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import masking_utils
from transformers.initialization import no_init_weights

from zerofit.models.build import constructed, outlined
from zerofit.models.placement import give_dtypes, parameters_on_meta
from zerofit.models.quantised import BLOCK, PackedLinear, packed_layers
from zerofit.models.trained import TrainedModel
from zerofit.plan.spec import RunSpec
from zerofit.predict.attention import attention_on
from zerofit.predict.autocast import like_cuda
from zerofit.predict.known import remembering
from zerofit.train.engine import DTYPES

if TYPE_CHECKING:
    from bitsandbytes.functional import QuantState


@contextmanager
def pretending(mode: FakeTensorMode, capability: tuple[int, int] | None) -> Iterator[None]:
    """Tensors that are made here, of `mode`, have no memory, and operations take what a GPU of this kind takes."""
    with ExitStack() as stack:
        stack.enter_context(remembering())
        stack.enter_context(patch.object(fake_tensor.log, "disabled", True))  # what it logs, it raises as well
        # Values being known, masks are to be looked at as in a run, and not built for whatever may come.
        stack.enter_context(patch.object(masking_utils, "is_tracing", _not_tracing))
        stack.enter_context(patch.object(F, "scaled_dot_product_attention", attention_on(capability)))
        stack.enter_context(patch.object(F, "dropout", _dropout))
        stack.enter_context(like_cuda())
        stack.enter_context(mode)
        yield


class FakePlacement:
    """Every weight whole, in `dtype`; frozen ones in the model's own. None has memory, and buffers have none either."""

    device = torch.device("cpu")

    def __init__(self, dtype: torch.dtype, mode: FakeTensorMode) -> None:
        self.dtype, self.mode = dtype, mode

    def building(self) -> AbstractContextManager[None]:
        """Parameters wait on the meta device."""
        return parameters_on_meta()

    def shard(self, model: TrainedModel) -> None:
        """Nothing is cut up."""
        give_dtypes(model, self.dtype)
        made: dict[nn.Parameter, nn.Parameter] = {}  # what is tied stays so
        with self.mode:
            for module in model.modules():
                for name, parameter in module._parameters.items():
                    if parameter is not None:
                        if parameter not in made:
                            value = torch.empty(parameter.shape, dtype=parameter.dtype)
                            made[parameter] = nn.Parameter(value, requires_grad=parameter.requires_grad)
                        module._parameters[name] = made[parameter]
                for name, buffer in module._buffers.items():
                    module._buffers[name] = None if buffer is None else self.mode.from_tensor(buffer)
            for _, layer in packed_layers(model):
                layer.scales = _scales(layer)

    def write(self, parameter: Tensor, value: Tensor) -> None:
        """Nothing has values."""
        raise AssertionError("a fake weight has no value")


def fake_model(spec: RunSpec, held: torch.dtype, mode: FakeTensorMode) -> TrainedModel:
    """The run's model, whose trained parameters are of the dtype `held`: for `mode`, and to be made outside it.

    `spec` says its shape. Raises UserError as `build_model` does.
    """
    compute, placement = DTYPES[spec.precision], FakePlacement(held, mode)
    with no_init_weights():
        model = constructed(outlined(spec, None, compute), spec, placement, compute)
    placement.shard(model)
    return model


def _scales(layer: PackedLinear) -> QuantState:
    """As `PackedLinear.take` has them from bitsandbytes, without values."""
    from bitsandbytes.functional import QuantState

    elements = layer.out_features * layer.in_features
    blocks = -(-elements // BLOCK)
    table = torch.empty(256)
    inner = QuantState(
        absmax=torch.empty(-(-blocks // len(table))), dtype=torch.float32, blocksize=len(table), code=table
    )
    return QuantState(
        absmax=torch.empty(blocks, dtype=torch.uint8),
        shape=torch.Size((layer.out_features, layer.in_features)),
        dtype=layer.compute_dtype,
        blocksize=BLOCK,
        code=torch.empty(16),
        quant_type="nf4",
        offset=torch.empty(()),
        state2=inner,
    )


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """CUDA keeps a mask of one byte an element."""
    return torch.native_dropout(input, p, True)[0] if training and p > 0 else input


def _not_tracing(tensor: object = None) -> bool:
    return False
