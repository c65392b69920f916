"""Shapes of common models, as fields of their transformers config.

Sources: DeiT (Touvron et al. 2021, table 1) for vit-tiny and vit-small; ViT (Dosovitskiy et al. 2021, table 1) for
the larger ones; the published config.json of each decoder, and of DINOv2 (Oquab et al. 2024) but for its image_size.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zerofit.config.errors import UserError, did_you_mean
from zerofit.config.model import Model
from zerofit.plan.published import PUBLISHED

Shape = dict[str, Any]


def _vit(hidden: int, layers: int, heads: int, patch: int = 16) -> Shape:
    return {
        "model_type": "vit",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
        "patch_size": patch,
        "num_channels": 3,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "qkv_bias": True,
    }


def _dinov2(hidden: int, layers: int, heads: int) -> Shape:
    return {
        "model_type": "dinov2",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "mlp_ratio": 4,
        "image_size": 224,
        "patch_size": 14,
        "num_channels": 3,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "layerscale_value": 1.0,
        "qkv_bias": True,
    }


def _qwen3(hidden: int, layers: int, heads: int, intermediate: int, *, tied: bool, **other: Any) -> Shape:
    fields = {
        "model_type": "qwen3",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": intermediate,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
        "max_position_embeddings": 40960,
        "vocab_size": 151936,
        "tie_word_embeddings": tied,
        "attention_bias": False,
    }
    return fields | other


def _qwen2(
    hidden: int,
    layers: int,
    heads: int,
    key_value: int,
    intermediate: int,
    vocabulary: int,
    *,
    tied: bool,
    **other: Any,
) -> Shape:
    """Qwen2.5; queries, keys and values have a bias in all of that family."""
    fields = {
        "model_type": "qwen2",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value,
        "intermediate_size": intermediate,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
        "max_position_embeddings": 32768,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
    }
    return fields | other


def _r1_qwen2(*sizes: int, theta: float, eps: float = 1e-6) -> Shape:
    """DeepSeek-R1-Distill-Qwen: of the two smaller ones the shape of Qwen2.5-Math, of the others Qwen2.5's."""
    rope = {"rope_type": "default", "rope_theta": theta}
    positions: dict[str, Any] = {"max_position_embeddings": 131072, "rope_parameters": rope, "rms_norm_eps": eps}
    return _qwen2(*sizes, tied=False, **positions)


def _llama3(hidden: int, layers: int, heads: int, intermediate: int, *, tied: bool, factor: float | None) -> Shape:
    """Llama 3; from 3.1 on positions are scaled by `factor`."""
    scaled = {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": factor,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
    }
    return {
        "model_type": "llama",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "head_dim": hidden // heads,
        "intermediate_size": intermediate,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0} if factor is None else scaled,
        "max_position_embeddings": 8192 if factor is None else 131072,
        "vocab_size": 128256,
        "tie_word_embeddings": tied,
        "attention_bias": False,
        "mlp_bias": False,
    }


def _mistral(hidden: int, layers: int, vocabulary: int, *, theta: float, window: int | None, context: int) -> Shape:
    return {
        "model_type": "mistral",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 14336,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "sliding_window": window,
        "max_position_embeddings": context,
        "vocab_size": vocabulary,
        "tie_word_embeddings": False,
    }


def _gemma2(hidden: int, layers: int, heads: int, key_value: int, intermediate: int) -> Shape:
    return {
        "model_type": "gemma2",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value,
        "head_dim": 256,
        "intermediate_size": intermediate,
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "max_position_embeddings": 8192,
        "vocab_size": 256000,
        "tie_word_embeddings": True,
        "attention_bias": False,
    }


_GPT2: Shape = {
    "model_type": "gpt2",
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_inner": None,
    "n_positions": 1024,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "vocab_size": 50257,
    "tie_word_embeddings": True,
}

SHAPES: dict[str, Shape] = {
    "vit-tiny": _vit(192, 12, 3),
    "vit-small": _vit(384, 12, 6),
    "vit-base": _vit(768, 12, 12),
    "vit-large": _vit(1024, 24, 16),
    "vit-huge": _vit(1280, 32, 16, patch=14),
    # Our own: about a million parameters in 5 blocks, for images of 8 x 8 pixels on a CPU.
    "qwen3-tiny": _qwen3(128, 5, 4, 384, tied=True, num_key_value_heads=2, head_dim=32, vocab_size=256),
    "qwen3-0.6b": _qwen3(1024, 28, 16, 3072, tied=True),
    "qwen3-1.7b": _qwen3(2048, 28, 16, 6144, tied=True),
    "qwen3-4b": _qwen3(2560, 36, 32, 9728, tied=True),
    "qwen3-8b": _qwen3(4096, 36, 32, 12288, tied=False),
    "qwen3-14b": _qwen3(5120, 40, 40, 17408, tied=False),
    "qwen3-32b": _qwen3(5120, 64, 64, 25600, tied=False),
    "qwen2.5-0.5b": _qwen2(896, 24, 14, 2, 4864, 151936, tied=True),
    "qwen2.5-1.5b": _qwen2(1536, 28, 12, 2, 8960, 151936, tied=True),
    "qwen2.5-3b": _qwen2(2048, 36, 16, 2, 11008, 151936, tied=True),
    "qwen2.5-7b": _qwen2(3584, 28, 28, 4, 18944, 152064, tied=False),
    "qwen2.5-14b": _qwen2(5120, 48, 40, 8, 13824, 152064, tied=False),
    "qwen2.5-32b": _qwen2(5120, 64, 40, 8, 27648, 152064, tied=False),
    "qwen2.5-72b": _qwen2(8192, 80, 64, 8, 29568, 152064, tied=False),
    "deepseek-r1-distill-qwen-1.5b": _r1_qwen2(1536, 28, 12, 2, 8960, 151936, theta=10_000.0),
    "deepseek-r1-distill-qwen-7b": _r1_qwen2(3584, 28, 28, 4, 18944, 152064, theta=10_000.0),
    "deepseek-r1-distill-qwen-14b": _r1_qwen2(5120, 48, 40, 8, 13824, 152064, theta=1_000_000.0, eps=1e-5),
    "deepseek-r1-distill-qwen-32b": _r1_qwen2(5120, 64, 40, 8, 27648, 152064, theta=1_000_000.0, eps=1e-5),
    "llama-3-8b": _llama3(4096, 32, 32, 14336, tied=False, factor=None),
    "llama-3.1-8b": _llama3(4096, 32, 32, 14336, tied=False, factor=8.0),
    "llama-3.1-70b": _llama3(8192, 80, 64, 28672, tied=False, factor=8.0),
    "llama-3.2-1b": _llama3(2048, 16, 32, 8192, tied=True, factor=32.0),
    "llama-3.2-3b": _llama3(3072, 28, 24, 8192, tied=True, factor=32.0),
    "mistral-7b": _mistral(4096, 32, 32768, theta=1_000_000.0, window=None, context=32768),
    "mistral-7b-v0.1": _mistral(4096, 32, 32000, theta=10_000.0, window=4096, context=32768),
    "mistral-nemo-12b": _mistral(5120, 40, 131072, theta=1_000_000.0, window=None, context=131072),
    "gemma-2-2b": _gemma2(2304, 26, 8, 4, 9216),
    "gemma-2-9b": _gemma2(3584, 42, 16, 8, 14336),
    "gpt2": _GPT2,
}

ENCODERS: dict[str, Shape] = {
    "dinov2-small": _dinov2(384, 12, 6),
    "dinov2-base": _dinov2(768, 12, 12),
    "dinov2-large": _dinov2(1024, 24, 16),
    "dinov2-giant": _dinov2(1536, 40, 24) | {"use_swiglu_ffn": True},
    **{name: fields for name, fields in SHAPES.items() if fields["model_type"] == "vit"},
}
"""What may be the image encoder of a `cad_mllm`."""


def resolve_shape(model: Model) -> Shape | None:
    """The config fields of `model.shape`, always with model_type; None for a pretrained model.

    Raises UserError for an unknown name, a name of the other kind, and a mapping without (or with a wrong) model_type.
    """
    shape = model.shape
    if shape is None:
        return None
    vit = model.kind == "vit"
    if isinstance(shape, str):
        fitting = [name for name, fields in SHAPES.items() if (fields["model_type"] == "vit") == vit]
        if shape not in fitting:
            fault = f"is no shape of {model.kind}" if shape in SHAPES else "is not known"
            hint = did_you_mean(shape, fitting)
            raise UserError(f"model.shape: {shape!r} {fault}{hint} ({model.kind} has {', '.join(fitting)})")
        return copy.deepcopy(SHAPES[shape])
    fields = copy.deepcopy(shape)
    kind = fields.setdefault("model_type", "vit" if vit else None)
    if kind is None:
        raise UserError("model.shape: a mapping needs model_type, transformers' name of the family, for example qwen3")
    if (kind == "vit") != vit:
        raise UserError(f"model.shape: model_type {kind!r} is no shape of {model.kind}; {_OTHER_KIND[vit]}")
    return fields


_OTHER_KIND = {True: "use model_type vit, or model.kind patch_lm", False: "use a decoder's, or model.kind vit"}


def published_shape(name: str) -> Shape | None:
    """The shape of a model of the hub, by its id in any case; None for one that is not known here."""
    known = PUBLISHED.get(name.lower())
    return None if known is None else copy.deepcopy({**SHAPES, **ENCODERS}[known])


def known_fields(model: Model) -> Shape | None:
    """The shape's fields, or those of a pretrained model: of its local config.json, or as it is known by its hub id.

    None where none of that is at hand.
    """
    if model.pretrained is None:
        return resolve_shape(model)
    try:
        fields = json.loads((Path(model.pretrained) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return published_shape(model.pretrained)  # or a directory that the models room will complain about
    return fields if isinstance(fields, dict) else None


def hidden_size(fields: Mapping[str, Any] | None) -> int | None:
    """Width of the residual stream; None where the fields do not say."""
    width = (fields or {}).get("hidden_size", (fields or {}).get("n_embd"))
    return width if isinstance(width, int) else None


GATED = ("gemma", "llama", "mistral", "olmo", "qwen", "smollm")
"""How families begin whose MLP has three matrices, whatever their activation."""


def is_gated(fields: Mapping[str, Any]) -> bool:
    """Whether the MLP has three matrices."""
    return fields.get("hidden_act") == "silu" or str(fields.get("model_type")).startswith(GATED)


def has_experts(fields: Mapping[str, Any]) -> bool:
    """Whether MLPs are mixtures of experts, as Mixtral, Qwen and DeepSeek name them."""
    return any(name in fields for name in ("num_experts", "num_local_experts", "n_routed_experts"))


def block_elements(fields: Mapping[str, Any] | None) -> int | None:
    """Weight elements of one transformer block, without biases and norms; None where the fields do not say."""
    linears = _linears(fields)
    return None if linears is None else sum(inputs * outputs for inputs, outputs in linears)


def adapter_elements(fields: Mapping[str, Any] | None, rank: int) -> int | None:
    """Elements of LoRA's matrices of one block where every linear layer has them; None where the fields do not say."""
    linears = _linears(fields)
    return None if linears is None else rank * sum(inputs + outputs for inputs, outputs in linears)


def _linears(fields: Mapping[str, Any] | None) -> list[tuple[int, int]] | None:
    """Inputs and outputs of a block's matrices.

    Attention: q and o are hidden x (heads x head_dim), k and v hidden x (key-value heads x head_dim).
    MLP: two matrices hidden x intermediate, three where it is gated.
    """
    hidden = hidden_size(fields)
    if fields is None or hidden is None:
        return None
    heads = fields.get("num_attention_heads") or fields.get("n_head") or 1
    head_dim = fields.get("head_dim") or hidden // heads
    key_value = fields.get("num_key_value_heads") or heads
    intermediate = int(fields.get("intermediate_size") or fields.get("n_inner") or 4 * hidden)
    wide, narrow = (hidden, int(heads * head_dim)), (hidden, int(key_value * head_dim))
    return [wide, wide, narrow, narrow] + [(hidden, intermediate)] * (3 if is_gated(fields) else 2)
