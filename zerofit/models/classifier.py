"""What every image classifier is: a transformers backbone, its blocks, and a linear head."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from zerofit.config.errors import UserError
from zerofit.plan.spec import RunSpec

EMBEDDINGS = re.compile(r"embed|cls_token|\bwpe\b|\bwte\b|project_in")
"""Names, outside the blocks, of what comes before them; all other names come after them (final norm, head)."""
HEAD_NORM = "head_norm."
"""In the names of the statistics of a probe's BatchNorm."""


class ImageClassifier(nn.Module, ABC):
    """pixels [B, 3, S, S] -> logits [B, classes] in float32.

    A probe may have a BatchNorm without parameters before the head, as in MAE's `main_linprobe.py`.

    `config` is the backbone's transformers config; `patches` and `tokens` are what the backbone sees of an image
    (tokens include a class token); `causal` tells whether a token sees the later ones. Pixels are cast to
    `compute_dtype`: the dtype of the weights in the forward pass, which under mixed precision is not their stored one.
    """

    accepts_loss_kwargs = False  # else Trainer leaves the division by accumulation steps to us
    frozen_hash: str | None = None
    """Of the frozen weights, in a run that trains a part."""

    def __init__(
        self,
        backbone: PreTrainedModel,
        spec: RunSpec,
        *,
        width: int,
        patches: int,
        tokens: int,
        causal: bool,
        compute_dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.config = backbone.config
        self.patches, self.tokens, self.causal = patches, tokens, causal
        self.compute_dtype = compute_dtype
        self.backbone = backbone
        probe = spec.recipe.probe
        self.head_norm = nn.BatchNorm1d(width, eps=1e-6, affine=False) if probe and probe.batch_norm else None
        self.head = nn.Linear(width, len(spec.images.classes))
        self.head_std = None if probe is None else probe.head_std
        self.blocks_name = f"backbone.{name_of_blocks(backbone)}"

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels [B, 3, S, S] -> logits [B, classes], float32."""
        vectors = self.features(pixels.to(self.compute_dtype))
        if self.head_norm is not None:
            vectors = self.head_norm(vectors.float()).to(vectors.dtype)  # statistics are float32 under every engine
        logits: Tensor = self.head(vectors)
        return logits.float()

    @abstractmethod
    def features(self, pixels: Tensor) -> Tensor:
        """pixels [B, 3, S, S] -> one vector an image [B, width], after the backbone's final norm."""

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, in order: the unit of sharding, recomputation and layer-wise decay."""
        blocks = self.get_submodule(self.blocks_name)
        assert isinstance(blocks, nn.ModuleList)
        return blocks

    def depth_of(self, name: str) -> int:
        """Depth of a parameter by its name: 0 embeddings, 1..n the blocks, n + 1 final norm and head."""
        prefix = f"{self.blocks_name}."
        if name.startswith(prefix):
            return 1 + int(name[len(prefix) :].split(".", 1)[0])
        return 0 if EMBEDDINGS.search(name) else len(self.blocks) + 1

    def fit_pretrained(self, name: str, value: Tensor, shape: torch.Size) -> Tensor:
        """A pretrained parameter's value, made to fit this model. Raises UserError where it cannot."""
        if value.shape != shape:
            raise UserError(
                f"model.pretrained: {name} has shape {tuple(value.shape)} in the weights, but its config.json asks for "
                f"{tuple(shape)}: weights and config.json are not of the same model"
            )
        return value

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ImageClassifier:
        """As `nn.Module._apply`, but buffers keep their dtype.

        `model.bfloat16()`, which DeepSpeed calls, would else round rotary frequencies: positions would differ
        between strategies.
        """
        before = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            after = self.get_buffer(name)
            if after.dtype != buffer.dtype:
                set_buffer(self, name, buffer.to(after.device))
        return self


def set_buffer(model: nn.Module, name: str, value: Tensor) -> None:
    """Replace the buffer called `name` by `value`, whatever its device, dtype and persistence."""
    owner, _, leaf = name.rpartition(".")
    model.get_submodule(owner)._buffers[leaf] = value


def name_of_blocks(backbone: PreTrainedModel) -> str:
    """Name of the one outermost nn.ModuleList of `backbone`. Raises UserError where there is none, or several."""
    lists = [name for name, module in backbone.named_modules() if isinstance(module, nn.ModuleList)]
    outermost = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    if len(outermost) != 1:
        found = f"it has {len(outermost)}: {', '.join(outermost)}" if outermost else "it has none"
        raise UserError(
            f"model: a backbone needs one list of transformer blocks, but {type(backbone).__name__} is built "
            f"otherwise ({found}); use a decoder such as qwen3, llama or gpt2"
        )
    return outermost[0]
