"""`model:` in a recipe: what is trained, and which of its parameters."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from zerofit.config.ranges import BelowOne, Count, Fraction, NonNegative, Positive
from zerofit.config.section import Section


class Rule(Section):
    """How the parameters whose whole name the pattern finds are trained. The first rule that matches decides."""

    pattern: str
    """Regular expression, searched (`re.search`) in the parameter's name, for example `^backbone\\.` or `\\.bias$`."""
    freeze: bool = False
    """True: no gradient, no optimizer state."""
    lr_scale: NonNegative = 1.0
    """Factor on the learning rate, on top of layer-wise decay."""
    weight_decay: NonNegative | None = None
    """Weight decay of these parameters; null takes `optimizer.weight_decay`."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"pattern": value} if isinstance(value, str) else value

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        return regular_expression(value)


def regular_expression(value: str) -> str:
    """`value`. Raises ValueError where it is no regular expression."""
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is not a regular expression: {error}") from None
    return value


NO_DECAY = r"(?i)(^|[._])(bias|cls_token|mask_token|position_embeddings?)$|(^|\.)(\w*norm\w*|ln_?\w*)\.(weight|bias)$"
DEFAULT_RULES = (Rule(pattern=NO_DECAY, weight_decay=0.0), Rule(pattern=r"."))


class Lora(Section):
    """LoRA (Hu et al. 2022) on linear layers of the blocks, by peft: W x + (alpha / rank) B A x, W frozen."""

    rank: Count = 16
    """Rows of A and columns of B."""
    alpha: Positive = 32.0
    """Scale of the adapters, before it is divided by the rank."""
    targets: str = r"."
    """Regular expression, searched in the names of the blocks' linear layers, e.g. `[qv]_proj$`; all by default."""
    dropout: BelowOne = 0.0
    """Probability of dropout on the adapters' input."""

    @field_validator("targets")
    @classmethod
    def _compiles(cls, value: str) -> str:
        return regular_expression(value)


class ModelSection(Section):
    """Fields that every model has."""

    shape: str | dict[str, Any] | None = None
    """Name of a shape (`zerofit.plan.shapes`), or a mapping of transformers config fields; null with `pretrained`."""
    pretrained: str | None = None
    """Local directory or hub id whose weights are loaded; null builds the shape with fresh weights."""
    dropout: Fraction = 0.0
    """Probability of every dropout in the model."""
    attention: Literal["auto", "eager", "sdpa", "flash"] = "auto"
    """Attention kernel; auto is sdpa."""
    trainable: tuple[Rule, ...] | None = Field(default=None, min_length=1)
    """Ordered rules; a bare pattern is a rule without exceptions. null: everything; with LoRA the adapters and what is
    not of the backbone; for a probe the head. A parameter that no rule covers is an error; under LoRA and in a probe
    it is frozen."""
    lora: Lora | None = None
    """Train low-rank adapters instead of the backbone's weights."""

    @model_validator(mode="after")
    def _one_origin(self) -> ModelSection:
        if (self.shape is None) == (self.pretrained is None):
            raise ValueError("needs exactly one of shape and pretrained")
        return self


class ImageModel(ModelSection):
    """Fields that every image model has."""

    image_size: Count | None = None
    """Pixels per side that the model sees; null takes the pretrained model's or the data's."""
    patch_size: Count | None = None
    """Pixels per side of a patch; null takes the shape's."""


class Vit(ImageModel):
    """Transformers' ViT with a linear head."""

    kind: Literal["vit"]
    """`vit`"""


class PatchLM(ImageModel):
    """A decoder LLM as image backbone: Conv2d patches -> transformer blocks -> pooling -> linear head."""

    kind: Literal["patch_lm"]
    """`patch_lm`"""
    pool: Literal["mean", "last", "cls"] = "mean"
    """How the patches become one vector; cls puts a learnt token at the end, which causal attention needs."""
    attention_mask: Literal["causal", "bidirectional"] = "causal"
    """Which patches a patch sees."""


class LanguageSection(ModelSection):
    """Fields that every model with a tokenizer has."""

    tokenizer: str | None = None
    """Made on the spot: `bytes` (a token for each byte), `problems` or `parts` (byte-level merges learnt from the
    embedded word problems, or from the embedded parts' captions and commands); or a directory, or a hub id; null: the
    one of `pretrained`."""
    chat_template: str | None = None
    """A Jinja file, or the name of a shipped template (`zerofit/recipes/templates/`); null: the tokenizer's own."""

    @model_validator(mode="after")
    def _has_a_tokenizer(self) -> LanguageSection:
        if self.tokenizer is None and self.pretrained is None:
            raise ValueError("a shape has no tokenizer of its own: give tokenizer, for example bytes")
        return self


class CausalLM(LanguageSection):
    """A decoder language model with its LM head."""

    kind: Literal["causal_lm"]
    """`causal_lm`"""
    quantize: Literal["nf4"] | None = None
    """QLoRA (Dettmers et al. 2023): hold the frozen weights of the blocks' linear layers in 4 bits. Needs `lora`."""

    @model_validator(mode="after")
    def _frozen(self) -> CausalLM:
        if self.quantize is not None and self.lora is None:
            raise ValueError(f"quantize {self.quantize}: weights in 4 bits cannot be trained; give lora too")
        return self


class Vision(Section):
    """An image encoder of transformers (DINOv2, ViT, CLIP's, SigLIP's, ...), whose patches become tokens."""

    shape: str | dict[str, Any] | None = None
    """Name of a shape (`zerofit.plan.shapes`), or a mapping of transformers config fields; null without `pretrained`:
    dinov2-base."""
    pretrained: str | None = None
    """Local directory or hub id whose weights are loaded; null builds the shape with fresh weights."""
    image_size: Count | None = None
    """Pixels per side of its images; null: what its config says, and of DINOv2 224, as it is evaluated."""
    pool: Count = 1
    """A token is the mean of pool x pool neighbouring patches: 2 makes 64 tokens of an image, not 256."""

    @model_validator(mode="after")
    def _one_origin(self) -> Vision:
        if self.shape is not None and self.pretrained is not None:
            raise ValueError("takes one of shape and pretrained")
        return self


class Points(Section):
    """A Perceiver (Jaegle et al. 2021) of points with normals.

    It is by default as large as Michelangelo's (Zhao et al. 2023), which CAD-MLLM takes.
    """

    latents: Count = 256
    """Latent vectors: the tokens that a cloud becomes."""
    width: Count = 768
    """Elements of a latent vector."""
    depth: Count = 8
    """Self-attention blocks after the cross-attention to the points."""
    heads: Count = 12
    """Attention heads of a block; they divide the width."""
    frequencies: Count = 8
    """Fourier features of a coordinate: sine and cosine at so many octaves."""
    pretrained: str | None = None
    """A safetensors file with the encoder's weights; null draws fresh ones."""

    @model_validator(mode="after")
    def _divides(self) -> Points:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        return self


class CadMllm(LanguageSection):
    """CAD-MLLM (Xu et al. 2024): a language model whose tokens may come from an image or a point cloud as well."""

    kind: Literal["cad_mllm"]
    """`cad_mllm`"""
    vision: Vision | None = None
    """The image encoder; null: none, and no images."""
    points: Points | None = None
    """The point encoder; null: none, and no point clouds."""


Model = Annotated[Vit | PatchLM | CausalLM | CadMllm, Field(discriminator="kind")]
