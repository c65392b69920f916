"""Model FLOPs of an image: the one convention behind every MFU figure.

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
    """A classifier of images that shows what its modules are applied to."""

    config: PreTrainedConfig
    patches: int
    tokens: int
    causal: bool
    head: nn.Linear

    def named_modules(self) -> Iterator[tuple[str, Any]]:
        """As nn.Module's."""

    def depth_of(self, name: str) -> int:
        """Depth of a parameter by its name: 0 embeddings, 1..n the blocks, n + 1 final norm and head."""


def flops_per_image(model: Countable) -> float:
    """FLOPs of one image's forward pass.

    Read from modules' attributes and the config, never from weights, which may be sharded. Convolutions are applied
    to every patch, the head once, other linear layers to every token; attention is 4 x tokens^2 x heads x head_dim a
    block, half of it under a causal mask.
    """
    products = sum(flops for _, _, flops in _products(model))
    return products + attention_flops(model.config, model.tokens, model.causal)


def training_flops_per_image(model: Countable) -> float:
    """FLOPs of one image's forward and backward pass: three times the forward's where everything is trained.

    Backward costs a product for the gradient of a layer's input, from the first block with a trained parameter on,
    and one for the gradient of its weights, where they are trained; attention twice its forward, from there on.
    """
    layers = list(_products(model))
    trained = [model.depth_of(f"{name}.weight") for name, module, _ in layers if module.weight.requires_grad]
    first = min(trained, default=None)
    total = flops_per_image(model)
    if first is None:
        return total
    for name, module, flops in layers:
        total += flops * ((model.depth_of(f"{name}.weight") >= first) + module.weight.requires_grad)
    blocks = model.config.num_hidden_layers
    reached = max(0, blocks - max(first, 1) + 1) / blocks if blocks else 0.0
    return total + 2 * reached * attention_flops(model.config, model.tokens, model.causal)


def _products(model: Countable) -> Iterator[tuple[str, Any, float]]:
    """(name, module, FLOPs of its forward) of every layer that is a matrix product."""
    for name, module in model.named_modules():
        positions = 1 if module is model.head else model.tokens
        if isinstance(module, nn.Linear):
            yield name, module, 2.0 * positions * module.in_features * module.out_features
        elif isinstance(module, Conv1D):
            yield name, module, 2.0 * positions * module.nx * module.nf
        elif isinstance(module, nn.Conv2d):
            height, width = module.kernel_size
            yield name, module, 2.0 * model.patches * module.in_channels * module.out_channels * height * width


def attention_flops(config: PreTrainedConfig, tokens: int, causal: bool) -> float:
    """FLOPs of the products query x key and probabilities x value in all blocks; 0 for models without attention."""
    heads = getattr(config, "num_attention_heads", None)
    if heads is None:
        return 0.0
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return float(4 * config.num_hidden_layers * tokens**2 * heads * head_dim) * (0.5 if causal else 1.0)
