"""Transformer blocks by names and sizes of their parameters, without a model: decoders, ViTs, DINOv2, Perceivers.

Names are those of the models room (transformers 5.17 to 5.23), so that a recipe's rules can be asked what they train.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from zerofit.config.model import Points
from zerofit.plan.decoder import WITH_OUTPUT_NORMS, WITH_POSITIONS, WITH_QK_NORM, Decoder
from zerofit.plan.slots import CHANNELS

Sizes = dict[str, int]
"""Elements by name."""
WIDER = 4
"""Hidden elements of a Perceiver block's MLP, over its width (models/point_encoder.py)."""


@dataclass(frozen=True)
class Block:
    """One block."""

    linears: Mapping[str, tuple[int, int]]
    """Linear layers: (inputs, outputs)."""
    small: Mapping[str, int]
    """Elements of all other parameters: norms, biases."""
    hidden: int
    """Width of what flows between blocks."""
    query: int
    """Elements of all heads' queries, for a token."""
    key: int
    """Elements of all heads' keys, or values."""
    inner: int
    """Elements between the MLP's matrices."""
    gated: bool
    """Whether the MLP has three matrices."""
    rms: bool
    """Whether norms are RMSNorm as transformers writes it, which computes in float32; else LayerNorm."""
    heads: int
    """Attention heads."""
    head_norm: bool = False
    """Whether queries and keys are normalised."""
    scaled: bool = False
    """Whether what attention and MLP give is scaled by a learnt vector (DINOv2)."""

    @cached_property
    def matrices(self) -> int:
        """Elements of the linear layers, without biases."""
        return sum(map(prod, self.linears.values()))

    @cached_property
    def elements(self) -> int:
        """All of them."""
        return self.matrices + sum(self.small.values())

    def parameters(self) -> Iterator[tuple[str, int]]:
        """(name, elements)."""
        for name, sizes in self.linears.items():
            yield f"{name}.weight", prod(sizes)
        yield from self.small.items()


@dataclass(frozen=True)
class Stack:
    """Equal blocks, one after another."""

    prefix: str
    """What their names have in front of their number: `backbone.layers.`."""
    count: int
    block: Block

    @property
    def elements(self) -> int:
        """Of all blocks."""
        return self.count * self.block.elements

    def parameters(self) -> Iterator[tuple[str, int]]:
        """(name, elements) of all blocks."""
        own = list(self.block.parameters())
        for number in range(self.count):
            for name, size in own:
                yield f"{self.prefix}{number}.{name}", size


def decoder_block(sizes: Decoder) -> Block:
    """Of a decoder."""
    return Block(
        linears=sizes.linears,
        small=_gpt2_small(sizes) if sizes.family in WITH_POSITIONS else _decoder_small(sizes),
        hidden=sizes.hidden,
        query=sizes.query_width,
        key=sizes.key_width,
        inner=sizes.intermediate,
        gated=sizes.gated,
        rms=sizes.family not in WITH_POSITIONS,
        heads=sizes.heads,
        head_norm=sizes.family in WITH_QK_NORM,
    )


def _decoder_small(sizes: Decoder) -> Sizes:
    small = {"input_layernorm.weight": sizes.hidden, "post_attention_layernorm.weight": sizes.hidden}
    if sizes.family in WITH_OUTPUT_NORMS:
        small |= {f"{place}_feedforward_layernorm.weight": sizes.hidden for place in ("pre", "post")}
    if sizes.family in WITH_QK_NORM:
        small |= {f"self_attn.{name}_norm.weight": sizes.head_dim for name in "qk"}
    if sizes.bias:
        widths = {"q": sizes.query_width, "k": sizes.key_width, "v": sizes.key_width}
        small |= {f"self_attn.{name}_proj.bias": width for name, width in widths.items()}
    return small


def _gpt2_small(sizes: Decoder) -> Sizes:
    norms = {f"ln_{number}.{part}": sizes.hidden for number in (1, 2) for part in ("weight", "bias")}
    return norms | {f"{name}.bias": outputs for name, (_, outputs) in sizes.linears.items()}


def encoder_block(fields: Mapping[str, Any]) -> Block:
    """Of a ViT, a DINOv2, or an encoder that is built like one, by its config fields."""
    hidden = int(fields["hidden_size"])
    dino = fields.get("model_type") == "dinov2"
    inner = int(fields.get("intermediate_size") or fields.get("mlp_ratio", 4) * hidden)
    gated = bool(fields.get("use_swiglu_ffn"))
    if gated:
        inner = (int(inner * 2 / 3) + 7) // 8 * 8
    mlp = {"mlp.fc1": (hidden, inner), "mlp.fc2": (inner, hidden)}
    if gated:
        up = {f"mlp.{name}_proj": (hidden, inner) for name in ("gate", "up")}
        mlp = up | {"mlp.down_proj": (inner, hidden)}
    linears = {f"attention.{name}_proj": (hidden, hidden) for name in "qkvo"} | mlp
    norms = ("norm1", "norm2") if dino else ("layernorm_before", "layernorm_after")
    small = {f"{norm}.{part}": hidden for norm in norms for part in ("weight", "bias")}
    small |= {f"{name}.bias": outputs for name, (_, outputs) in linears.items()}
    small |= {f"layer_scale{number}.lambda1": hidden for number in (1, 2) if dino}
    heads = int(fields.get("num_attention_heads", 1))
    return Block(linears, small, hidden, hidden, hidden, inner, gated, rms=False, heads=heads, scaled=dino)


def perceiver_block(points: Points) -> Block:
    """Of a point encoder (models/point_encoder.py); the first one's further norm is left out."""
    width = points.width
    linears = {name: (width, width) for name in ("query", "key", "value", "output")}
    linears |= {"up": (width, WIDER * width), "down": (WIDER * width, width)}
    small = {f"{norm}.{part}": width for norm in ("norm", "mlp_norm") for part in ("weight", "bias")}
    small |= {f"{name}.bias": outputs for name, (_, outputs) in linears.items()}
    return Block(linears, small, width, width, width, WIDER * width, gated=False, rms=False, heads=points.heads)


def fourier_width(points: Points) -> int:
    """Elements of a point as the point encoder embeds it."""
    return CHANNELS + 6 * points.frequencies
