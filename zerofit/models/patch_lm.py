"""A decoder language model as image backbone: Conv2d patches -> transformer blocks -> pooling -> linear head.

The backbone is transformers' headless model of the family, fed through `inputs_embeds`. Its token embedding is
removed; learnt positions, projections and the final norm stay.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_MAPPING,
    PreTrainedConfig,
    PreTrainedModel,
)

from zerofit.config.errors import UserError
from zerofit.config.model import PatchLM
from zerofit.models.classifier import ImageClassifier
from zerofit.models.config import patches_per_image
from zerofit.plan.spec import RunSpec

# fmt: off
BIDIRECTIONAL = frozenset((
    "arcee", "bitnet", "bloom", "codegen", "cohere", "cohere2", "ernie4_5", "exaone4", "falcon",
    "gemma", "gemma2", "gemma3_text", "glm", "glm4", "gpt2", "gpt_bigcode", "gpt_neox", "gpt_oss", "gptj",
    "granite", "helium", "llama", "mistral", "mixtral", "nemotron", "olmo", "olmo2", "olmo3", "olmoe", "opt",
    "persimmon", "phi", "phi3", "qwen2", "qwen3", "qwen3_moe", "seed_oss", "smollm3", "stablelm", "starcoder2",
))
# fmt: on
"""Families (model_type) whose attention is known, by test, to become bidirectional. Others keep their causal mask in
buffers (gpt_neo) or in a recurrence (mamba), where no setting reaches it."""


class NoTokens(nn.Module):
    """Stands where the token embedding was: patches come as `inputs_embeds`."""

    def forward(self, *_: object) -> Tensor:
        """Never called."""
        raise AssertionError("this backbone has no token embedding")


class PatchLMClassifier(ImageClassifier):
    """Patches in raster order as the tokens of a decoder."""

    def __init__(self, config: PreTrainedConfig, spec: RunSpec, compute_dtype: torch.dtype) -> None:
        model = spec.recipe.model
        assert isinstance(model, PatchLM)
        image_size, patch_size = model.image_size or spec.images.image_size, patch_size_of(spec)
        patches = patches_per_image(image_size, patch_size)
        tokens = patches + (model.pool == "cls")
        check_positions(config, tokens)
        backbone, width = headless_decoder(config, bidirectional=model.attention_mask == "bidirectional")
        super().__init__(
            backbone,
            spec,
            width=width,
            patches=patches,
            tokens=tokens,
            causal=model.attention_mask == "causal",
            compute_dtype=compute_dtype,
        )
        self.pool = model.pool
        self.patch_embedding = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if model.pool == "cls" else None

    def features(self, pixels: Tensor) -> Tensor:
        """pixels [B, 3, S, S] -> the pooled, normalised tokens [B, width]."""
        tokens = self.patch_embedding(pixels).flatten(2).transpose(1, 2).contiguous()  # some families take views
        if self.cls_token is not None:
            last = self.cls_token.to(tokens.dtype).expand(len(tokens), -1, -1)
            tokens = torch.cat([tokens, last], dim=1)
        hidden: Tensor = self.backbone(inputs_embeds=tokens).last_hidden_state
        return hidden.mean(dim=1) if self.pool == "mean" else hidden[:, -1]


def patch_lm_config(config: PreTrainedConfig, spec: RunSpec) -> PreTrainedConfig:
    """`config` of a decoder without vocabulary, cache and (where asked) causal mask. Raises UserError."""
    model = spec.recipe.model
    assert isinstance(model, PatchLM)
    origin = f"model.pretrained: {model.pretrained} holds a" if model.pretrained else "model.shape: this is a"
    # Encoders such as BERT have a causal variant too, but are not causal language models.
    decoder = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_MASKED_LM_MAPPING
    if config.is_encoder_decoder or not decoder:
        raise UserError(
            f"{origin} {config.model_type}, which is no decoder language model such as qwen3, llama or gpt2"
        )
    if config.model_type == "mpt":
        raise UserError(f"{origin} mpt, which transformers cannot run on anything but tokens; use another decoder")
    if model.attention_mask == "bidirectional":
        if config.model_type not in BIDIRECTIONAL:
            raise UserError(
                f"model.attention_mask: {config.model_type} cannot be made bidirectional; use causal, or one of "
                f"{', '.join(sorted(BIDIRECTIONAL))}"
            )
        config.is_causal = False
    config.use_cache = False
    config.vocab_size = 1  # an embedding of one row is built, and removed
    config.pad_token_id = config.bos_token_id = config.eos_token_id = None
    return config


def patch_size_of(spec: RunSpec) -> int:
    """Pixels per side of a patch: the recipe's, else the shape's. Raises UserError where neither says."""
    size = spec.recipe.image_model.patch_size or (spec.shape or {}).get("patch_size")
    if size is None:
        raise UserError("model.patch_size: a decoder language model has none of its own; give the pixels per side")
    return int(size)


def check_positions(config: PreTrainedConfig, tokens: int) -> None:
    """Raise UserError where `config` knows fewer positions than `tokens`."""
    positions = {**config.to_dict(), **{new: getattr(config, new) for new in type(config).attribute_map}}
    limit = positions.get("max_position_embeddings")
    if limit is not None and tokens > limit:
        raise UserError(
            f"model.patch_size: an image makes {tokens} tokens, but the {config.model_type} knows {limit} positions; "
            "use larger patches or smaller images"
        )


def headless_decoder(config: PreTrainedConfig, *, bidirectional: bool) -> tuple[PreTrainedModel, int]:
    """The family's model without token embedding and LM head, and the width of what it takes and gives.

    Raises UserError for an attention kernel that the family does not have, and for what has no token embedding.
    """
    try:
        model_class = cast("type[PreTrainedModel]", MODEL_MAPPING[type(config)])
        backbone = model_class(config)
    except (ValueError, ImportError) as error:
        raise UserError(f"model.attention: {' '.join(str(error).split())[:300]}") from None
    embedding = backbone.get_input_embeddings()
    if not isinstance(embedding, nn.Embedding):
        raise UserError(f"model: {type(backbone).__name__} has no token embedding that patches could stand in for")
    backbone.set_input_embeddings(NoTokens())
    if bidirectional:
        # `config.is_causal` decides the mask; these decide what sdpa and flash do where there is no mask.
        for module in backbone.modules():
            if "is_causal" in vars(module):
                vars(module)["is_causal"] = False
    return backbone, embedding.embedding_dim
