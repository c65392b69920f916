"""Compiled blocks beside ZeRO-3, which takes a block's weights away once it has run, and brings them for backward."""

from __future__ import annotations

import shutil

import pytest
import torch
from fake_runs import DECODER
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from transformers import AutoConfig, AutoModel

from zerofit.models.compiled import compile_blocks


class Coming:
    """A block's weights, that come and go as ZeRO-3 has them do."""

    def __init__(self, block: nn.Module) -> None:
        self.whole = {parameter: parameter.data.clone() for parameter in block.parameters()}
        self.gone: list[StorageWeakRef] = []
        block.register_forward_hook(self.take)
        block.register_full_backward_pre_hook(self.bring)

    def take(self, *_: object) -> None:
        for parameter in self.whole:
            self.gone.append(StorageWeakRef(parameter.untyped_storage()))
            parameter.data = torch.empty(0)

    def bring(self, *_: object) -> None:
        for parameter, whole in self.whole.items():
            parameter.data = whole.clone()


class Stacks(nn.Module):
    """As much of a TrainedModel as is compiled: a decoder of two blocks."""

    def __init__(self) -> None:
        super().__init__()
        config = AutoConfig.for_model(**DECODER | {"num_hidden_layers": 2, "vocab_size": 32})
        self.decoder = AutoModel.from_config(config, dtype=torch.float32)
        self.stacks = (self.decoder.layers,)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.decoder(input_ids=tokens, use_cache=False).last_hidden_state.square().sum()


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_blocks_keep_no_weights_for_backward() -> None:
    torch.manual_seed(0)
    model, tokens = Stacks(), torch.arange(16).reshape(1, 16)
    compile_blocks(model)  # type: ignore[arg-type]
    model(tokens).backward()
    right = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    coming = [Coming(block) for block in model.decoder.layers]
    loss = model(tokens)
    assert all(reference.expired() for one in coming for reference in one.gone)
    loss.backward()
    for parameter, gradient in zip(model.parameters(), right, strict=True):
        assert torch.equal(parameter.grad, gradient)
