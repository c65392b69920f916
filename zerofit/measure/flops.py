"""Model FLOPs of a sample: the one convention behind every MFU figure.

A multiply-add counts 2. Counted are the matrix products: linear layers and convolutions, and attention's two products,
of which a causal mask leaves half. Recomputation, norms, activations and look-ups are not, nor are the routed experts
of mixture-of-experts layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from torch import nn
from transformers import PreTrainedConfig
from transformers.pytorch_utils import Conv1D


class Countable(Protocol):
    """A model that shows what its modules are applied to: see TrainedModel."""

    config: Any
    patches: int
    tokens: int
    span: int
    causal: bool
    uniform: bool

    @property
    def once(self) -> nn.Module | None:
        """The linear layer that is applied once a sample, and not to each token."""

    def named_modules(self) -> Iterator[tuple[str, Any]]:
        """As nn.Module's."""

    def depth_of(self, name: str) -> int:
        """Depth of a parameter by its name: 0 embeddings, 1..n the blocks, n + 1 final norm and head."""


def flops_per_sample(model: Countable) -> float:
    """FLOPs of one sample's forward pass.

    Read from modules' attributes and the config, never from weights, which may be sharded. Convolutions are applied
    to every patch, an image's head once, other linear layers to every token; attention is 4 x span^2 x heads x head_dim
    a block for each span of tokens that see each other, half of it under a causal mask.
    """
    products = sum(flops for _, _, flops in _products(model))
    return products + _attention(model)


def training_flops_per_sample(model: Countable) -> float | None:
    """FLOPs of one sample's forward and backward pass: three times the forward's where everything is trained.

    Null for a model that is not uniform: how often its parts run, its samples say, and no count of tokens.

    Backward costs a product for the gradient of a layer's input, from the first block with a trained parameter on,
    and one for the gradient of its weights, where they are trained; attention twice its forward, from there on.
    """
    if not model.uniform:
        return None
    layers = list(_products(model))
    trained = [model.depth_of(f"{name}.weight") for name, module, _ in layers if module.weight.requires_grad]
    first = min(trained, default=None)
    total = flops_per_sample(model)
    if first is None:
        return total
    for name, module, flops in layers:
        total += flops * ((model.depth_of(f"{name}.weight") >= first) + module.weight.requires_grad)
    blocks = model.config.num_hidden_layers
    reached = max(0, blocks - max(first, 1) + 1) / blocks if blocks else 0.0
    return total + 2 * reached * _attention(model)


def _products(model: Countable) -> Iterator[tuple[str, Any, float]]:
    """(name, module, FLOPs of its forward) of every layer that is a matrix product."""
    for name, module in model.named_modules():
        positions = 1 if module is model.once else model.tokens
        if isinstance(module, nn.Linear):
            yield name, module, 2.0 * positions * module.in_features * module.out_features
        elif isinstance(module, Conv1D):
            yield name, module, 2.0 * positions * module.nx * module.nf
        elif isinstance(module, nn.Conv2d):
            height, width = module.kernel_size
            yield name, module, 2.0 * model.patches * module.in_channels * module.out_channels * height * width


def _attention(model: Countable) -> float:
    return model.tokens / model.span * attention_flops(model.config, model.span, model.causal)


def attention_flops(config: PreTrainedConfig, tokens: int, causal: bool) -> float:
    """FLOPs of the products query x key and probabilities x value in all blocks; 0 for models without attention."""
    heads = getattr(config, "num_attention_heads", None)
    if heads is None:
        return 0.0
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return float(4 * config.num_hidden_layers * tokens**2 * heads * head_dim) * (0.5 if causal else 1.0)
