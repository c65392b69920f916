"""How large the parts of a decoder language model are, from the fields of its transformers config."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from zerofit.plan.shapes import has_experts, hidden_size, is_gated

WITH_QKV_BIAS = ("qwen2",)
"""Families whose config does not say that queries, keys and values have a bias."""
WITH_QK_NORM = ("qwen3",)
"""Families that normalise queries and keys of each head."""
WITH_OUTPUT_NORMS = ("gemma2",)
"""Families that normalise what attention and MLP give, besides what they take."""
WITH_POSITIONS = ("gpt2",)
"""Families with a table of positions, and biases everywhere."""


@dataclass(frozen=True)
class Decoder:
    """Sizes of a decoder with plain (not mixture-of-experts) blocks."""

    family: str
    hidden: int
    layers: int
    heads: int
    key_value: int
    """Heads of keys and of values."""
    head_dim: int
    intermediate: int
    gated: bool
    """Whether the MLP has three matrices."""
    vocabulary: int
    tied: bool
    """Whether the head is the embedding."""
    bias: bool
    """Whether queries, keys and values have a bias."""
    context: int
    """Positions."""

    @property
    def query_width(self) -> int:
        """Elements of all heads' queries, for a token."""
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        """Elements of all heads' keys, or values, for a token and layer."""
        return self.key_value * self.head_dim

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Linear layers of a block, by transformers' names: (inputs, outputs)."""
        hidden, query, key, inner = self.hidden, self.query_width, self.key_width, self.intermediate
        if self.family in WITH_POSITIONS:
            return {
                "attn.c_attn": (hidden, 3 * hidden),
                "attn.c_proj": (hidden, hidden),
                "mlp.c_fc": (hidden, inner),
                "mlp.c_proj": (inner, hidden),
            }
        found = {
            "self_attn.q_proj": (hidden, query),
            "self_attn.k_proj": (hidden, key),
            "self_attn.v_proj": (hidden, key),
            "self_attn.o_proj": (query, hidden),
            "mlp.up_proj": (hidden, inner),
            "mlp.down_proj": (inner, hidden),
        }
        return found | ({"mlp.gate_proj": (hidden, inner)} if self.gated else {})

    @property
    def block_matrices(self) -> int:
        """Elements of a block's linear layers, without biases."""
        return sum(map(prod, self.linears.values()))

    @property
    def largest_matrix(self) -> int:
        """Elements of the largest of them."""
        return max(map(prod, self.linears.values()))

    @property
    def head(self) -> int:
        """Elements of the head, whether or not it is the embedding."""
        return self.vocabulary * self.hidden

    @property
    def matrices(self) -> int:
        """Elements of all blocks' linear layers: what a 4-bit base holds in 4 bits."""
        return self.layers * self.block_matrices

    @property
    def rest(self) -> int:
        """All other elements: embedding, head, norms, biases, positions."""
        if self.family in WITH_POSITIONS:
            small = 4 * self.hidden + sum(outputs for _, outputs in self.linears.values())
            outside = 2 * self.hidden + self.context * self.hidden
        else:
            biases = self.query_width + 2 * self.key_width if self.bias else 0
            heads = 2 * self.head_dim if self.family in WITH_QK_NORM else 0
            norms = 4 if self.family in WITH_OUTPUT_NORMS else 2
            small, outside = norms * self.hidden + biases + heads, self.hidden
        return self.layers * small + outside + self.head * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        """All elements."""
        return self.matrices + self.rest

    def adapters(self, rank: int, targets: str) -> int:
        """Elements of LoRA adapters on the blocks' linear layers whose name `targets` finds."""
        found = 0
        for layer in range(self.layers):
            for name, (inputs, outputs) in self.linears.items():
                if re.search(targets, f"model.layers.{layer}.{name}"):
                    found += rank * (inputs + outputs)
        return found


def decoder_of(fields: Mapping[str, Any] | None) -> Decoder | None:
    """The sizes that config fields say; None where they do not, and for a mixture of experts."""
    hidden = hidden_size(fields)
    if fields is None or hidden is None or has_experts(fields):
        return None
    layers, heads = (fields.get(f"num_{what}", fields.get(f"n_{short}")) for what, short in _COUNTED)
    context, vocabulary = context_of(fields), fields.get("vocab_size")
    if not (layers and heads and context and vocabulary):
        return None
    family = str(fields.get("model_type"))
    return Decoder(
        family=family,
        hidden=hidden,
        layers=layers,
        heads=heads,
        key_value=fields.get("num_key_value_heads") or heads,
        head_dim=fields.get("head_dim") or hidden // heads,
        intermediate=fields.get("intermediate_size") or fields.get("n_inner") or 4 * hidden,
        gated=is_gated(fields),
        vocabulary=vocabulary,
        tied=bool(fields.get("tie_word_embeddings")),
        bias=bool(fields.get("attention_bias")) or family in WITH_QKV_BIAS,
        context=context,
    )


_COUNTED = (("hidden_layers", "layer"), ("attention_heads", "head"))


def context_of(fields: Mapping[str, Any] | None) -> int | None:
    """Positions that the model knows; None where the fields do not say."""
    known = fields or {}
    context = known.get("max_position_embeddings", known.get("n_positions"))
    return context if isinstance(context, int) else None
