"""A decoder language model with its LM head: transformers' own class, which TRL trains and `generate` runs."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import torch
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig, PreTrainedModel

from zerofit.config.errors import UserError
from zerofit.models.trained import TrainedModel, name_of_blocks
from zerofit.plan.precision import AMPERE
from zerofit.plan.spec import RunSpec


class LanguageModel(TrainedModel):
    """input_ids [B, T] -> logits [B, T, vocabulary], with transformers' own names of parameters."""

    accepts_loss_kwargs = True  # losses are divided by the tokens of the whole global batch
    prefix = ""
    patches = 0
    causal = True

    @property
    def family(self) -> PreTrainedModel:
        """The model itself."""
        assert isinstance(self, PreTrainedModel)
        return self


def unmask(model: nn.Module, spec: RunSpec) -> None:
    """From now on leave `attention_mask` out of batches whose rows are filled up on the right: see `reads_mask`.

    Packs are always without: transformers tells their texts apart by their positions only where no mask is given.
    """
    packs = spec.recipe.text.packing and spec.recipe.language_model.attention != "flash"
    if packs or not reads_mask(spec):
        model.register_forward_pre_hook(_without_mask, with_kwargs=True)


def reads_mask(spec: RunSpec) -> bool:
    """Whether attention is given the mask of rows that are filled up on the right, where no token looks.

    PyTorch's FlashAttention takes none. Where it is not to be had (older cards, float32) rows without a mask whose
    keys have fewer heads would be computed in the form that keeps every pair of tokens, and so have theirs. The
    package flash-attn leaves out what a mask marks.
    """
    capability = spec.hardware.capability
    able = spec.precision != "fp32" and (capability is None or capability >= AMPERE)
    return not able or spec.recipe.language_model.attention == "flash"


def _without_mask(_: nn.Module, args: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return args, {name: value for name, value in options.items() if name != "attention_mask"}


def make_language_model(config: PreTrainedConfig, spec: RunSpec, compute_dtype: torch.dtype) -> TrainedModel:
    """The family's model of `config`. Raises UserError for an attention kernel that the family does not have."""
    model = _made(trained_kind(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]), config)
    assert isinstance(model, LanguageModel)
    text = spec.text
    model.compute_dtype = compute_dtype
    model.blocks_name = name_of_blocks(model.family)
    model.tokens = -(-text.tokens // text.train)
    model.span = -(-text.tokens // text.rows)
    return model


def make_causal_lm(config: PreTrainedConfig) -> PreTrainedModel:
    """The same as a part of another model: transformers' own class."""
    return _made(cast("type[nn.Module]", MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]), config)


def _made(kind: type[nn.Module], config: PreTrainedConfig) -> PreTrainedModel:
    try:
        model = kind(config)
    except (ValueError, ImportError) as error:
        raise UserError(f"model.attention: {' '.join(str(error).split())[:300]}") from None
    assert isinstance(model, PreTrainedModel)
    model.tie_weights()  # transformers leaves that to whoever loads weights where it is to draw none
    return model


@cache
def trained_kind(kind: type[nn.Module]) -> type[nn.Module]:
    """`kind` of transformers that is a LanguageModel too, under its name: that decides on the loss and on exports."""
    return type(kind.__name__, (LanguageModel, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})


def causal_lm_config(config: PreTrainedConfig, spec: RunSpec) -> PreTrainedConfig:
    """`config` with the tokenizer's special ids. Raises UserError for what is no decoder, or has too few tokens."""
    model = spec.recipe.language_model
    origin = f"model.pretrained: {model.pretrained} holds a" if model.pretrained else "model.shape: this is a"
    if config.is_encoder_decoder or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UserError(
            f"{origin} {config.model_type}, which is no decoder language model such as qwen3, llama or gpt2"
        )
    text = spec.text
    if config.vocab_size < text.vocabulary:
        raise UserError(
            f"model: its embedding has {config.vocab_size} rows, and the tokenizer "
            f"{model.tokenizer or model.pretrained} needs {text.vocabulary}; "
            f"use the model's own tokenizer, or a shape with vocab_size {text.vocabulary}"
        )
    limit = config.to_dict().get("max_position_embeddings")
    if limit is not None and text.longest > limit:
        raise UserError(
            f"data.max_length: samples have up to {text.longest} tokens, but the {config.model_type} knows {limit} "
            f"positions; use data.max_length={limit}"
        )
    config.pad_token_id = text.pad
    config.eos_token_id = text.stops[0] if len(text.stops) == 1 else list(text.stops)
    return config
