"""CAD-MLLM (Xu et al. 2024): a language model whose tokens may come from an image or a point cloud as well.

    point cloud -> point encoder -> projector -+
    image       -> image encoder -> projector -+-> places of a row -> language model -> logits
    text        -> token embedding ------------+

`slots` says which place of a row is whose: no token of the vocabulary stands for an image, so any tokenizer does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from zerofit.models.causal_lm import make_causal_lm, reads_mask
from zerofit.models.parts import point_weights, vision_weights
from zerofit.models.point_encoder import PointEncoder
from zerofit.models.projector import Projector
from zerofit.models.trained import TrainedModel, name_of_blocks
from zerofit.models.vision import idle_parameters, make_encoder, patch_features, vision_config
from zerofit.plan.grpo_memory import COLUMNS
from zerofit.plan.slots import CHANNELS, IMAGE, POINTS, image_size, image_tokens, point_tokens
from zerofit.plan.spec import RunSpec

IGNORED = -100
"""The label of what is not learnt."""
LANGUAGE, VISION, CLOUDS = "language.", "vision.", "points."
"""In front of the names of each part's parameters."""


class CadMllm(TrainedModel):
    """Rows of tokens, of which some are of images and point clouds -> a loss, or logits.

    Every encoder runs in every forward pass, on something all-zero where a batch has nothing for it: engines that
    shard weights gather them in the same order on every rank. What then comes of it goes nowhere, and its gradients
    are zeros.
    """

    accepts_loss_kwargs = True
    prefix = LANGUAGE
    additions = (VISION, CLOUDS, "image_projector.", "point_projector.")
    patches = 0
    causal = True
    uniform = False

    def __init__(self, config: PreTrainedConfig, spec: RunSpec, compute_dtype: torch.dtype) -> None:
        super().__init__()
        section, facts = spec.recipe.cad_model, spec.text
        self.config, self.compute_dtype = config, compute_dtype
        self.language = make_causal_lm(config)
        self.reads_mask = reads_mask(spec)
        self.tiled = config.vocab_size > COLUMNS
        if self.tiled:
            from trl.trainer.utils import add_fused_lm_head  # trl takes a second to import, and every task imports us

            add_fused_lm_head(self.language, outputs=("log_probs", "is_top1"))
        self.blocks_name = LANGUAGE + name_of_blocks(self.language)
        self.tokens = self.span = -(-facts.tokens // facts.train)
        embedding = self.language.get_input_embeddings()
        assert isinstance(embedding, nn.Embedding), "decoders have one"
        width = embedding.embedding_dim
        self.point_tokens, self.image_tokens = point_tokens(section), image_tokens(section)
        self.points: PointEncoder | None = None
        self.point_projector: Projector | None = None
        if section.points is not None:
            self.points = PointEncoder(section.points, compute_dtype)
            self.point_projector = Projector(section.points.width, width)
        self.vision: PreTrainedModel | None = None
        self.image_size, self.pool = 0, 1
        self.image_projector: Projector | None = None
        if section.vision is not None:
            self.vision = make_encoder(vision_config(spec))
            self.image_size, self.pool = image_size(section.vision), section.vision.pool
            self.image_projector = Projector(self.vision.config.hidden_size, width)

    @property
    def family(self) -> PreTrainedModel:
        """The language model."""
        return self.language

    @property
    def families(self) -> dict[str, PreTrainedModel]:
        """The language model and the image encoder."""
        return {LANGUAGE: self.language} | ({} if self.vision is None else {VISION: self.vision})

    @property
    def stacks(self) -> tuple[nn.ModuleList, ...]:
        """Of the point encoder, the image encoder and the language model."""
        stacks = [] if self.points is None else [self.points.blocks]
        if self.vision is not None:
            blocks = self.vision.get_submodule(name_of_blocks(self.vision))
            assert isinstance(blocks, nn.ModuleList)
            stacks.append(blocks)
        return (*stacks, self.blocks)

    def depth_of(self, name: str) -> int:
        """As the base class for the language model's; layer-wise decay is not for the other parts: n + 1."""
        return super().depth_of(name) if name.startswith(LANGUAGE) else len(self.blocks) + 1

    @cached_property
    def idle(self) -> frozenset[str]:
        """The image encoder's pooler, mask token and the like."""
        if self.vision is None:
            return frozenset()
        idle = idle_parameters(self.vision.config, self.image_size, self.image_tokens, self.pool)
        return frozenset(VISION + name for name in idle)

    def draw(self, name: str, value: Tensor) -> None:
        """Linear layers and latents normal (0.02), biases zero, norms one."""
        if name.endswith(".bias"):
            value.zero_()
        elif "norm." in name:
            value.fill_(1.0)
        else:
            nn.init.trunc_normal_(value, std=0.02)

    def pretrained_parts(self, spec: RunSpec) -> dict[str, str]:
        """`model.vision.pretrained` and `model.points.pretrained`."""
        section = spec.recipe.cad_model
        named = {
            VISION: None if section.vision is None else section.vision.pretrained,
            CLOUDS: None if section.points is None else section.points.pretrained,
        }
        return {part: source for part, source in named.items() if source is not None}

    def part_weights(self, part: str, source: str) -> Iterator[tuple[str, Tensor]]:
        """As the base class. Raises UserError."""
        if part == VISION:
            assert self.vision is not None
            return vision_weights(self.vision, source, part, self.idle)
        assert self.points is not None
        return point_weights(self.points, Path(source), part)

    def embed(
        self, input_ids: Tensor, slots: Tensor | None = None, points: Tensor | None = None, images: Tensor | None = None
    ) -> Tensor:
        """What the language model takes for tokens [B, T, width]: of text, of clouds and of images.

        `slots` int64 [B, T] says whose each place is (0 text, 1 a point cloud, 2 an image; null: all are text), and
        there `input_ids` is not looked at. `points` float32 [P, N, 6], or its bits as int32 (see `float32_of`), fill
        `point_tokens` places each, and `images` [I, 3, S, S] `image_tokens`, in the order of rows. Where no place is a
        cloud's (an image's), what is given has no effect; null is one of zeros.
        """
        tokens: Tensor = self.language.get_input_embeddings()(input_ids)
        slots = torch.zeros_like(input_ids) if slots is None else slots
        if self.points is not None and self.point_projector is not None:
            clouds = tokens.new_zeros(1, 1, CHANNELS, dtype=torch.float32) if points is None else points
            tokens = filled(tokens, slots == POINTS, self.point_projector(self.points(clouds)))
        if self.vision is not None and self.image_projector is not None:
            side = self.image_size
            pixels = tokens.new_zeros(1, 3, side, side) if images is None else images
            patches = patch_features(self.vision, pixels.to(self.compute_dtype), self.image_tokens, self.pool)
            tokens = filled(tokens, slots == IMAGE, self.image_projector(patches))
        return tokens

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        slots: Tensor | None = None,
        points: Tensor | None = None,
        images: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> dict[str, Tensor]:
        """input_ids, labels, attention_mask, slots int64 [B, T], points [P, N, 6], images [I, 3, S, S]; see `embed`.

        Without labels: `logits` [B, T, vocabulary]. With labels (-100: not learnt), each of which is predicted from
        what comes before it: `loss`, the sum of cross entropies in float32 over `num_items_in_batch` (null: over the
        targets of this batch); `total`, that sum, of how many `targets`, and how many of these came out `right`.
        Of a vocabulary that is wider than a tile, logits are then made in tiles, and never all there. Rows with labels
        are filled up on the right, rows without on the left: only these always need their mask.
        """
        tokens = self.embed(input_ids, slots, points, images)
        mask = attention_mask if self.reads_mask or labels is None else None
        given: dict[str, Any] = {"inputs_embeds": tokens, "attention_mask": mask, "use_cache": False}
        if labels is None:
            return {"logits": self.language(**given).logits}
        total, count, right = self._tiled(labels, given) if self.tiled else self._whole(labels, given)
        loss = total / (count.clamp(min=1) if num_items_in_batch is None else num_items_in_batch)
        return {"loss": loss, "total": total.detach(), "targets": count, "right": right}

    def _tiled(self, labels: Tensor, given: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Sum of losses, targets, and how many came out right."""
        scored = self.language(**given, labels=labels, fused_lm_head=True)
        return -scored.log_probs.sum(), scored.label_mask.sum(), scored.is_top1.sum()

    def _whole(self, labels: Tensor, given: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """The same; on a CPU faster by a quarter where all logits are small, since those of prompts are not made."""
        targets = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
        learnt = targets != IGNORED
        # Place 0 is kept, so that a batch without targets has a loss.
        kept = learnt.any(dim=0).index_fill(0, torch.zeros(1, dtype=torch.int64, device=labels.device), True)
        places = kept.nonzero().squeeze(1)
        logits = self.language(**given, logits_to_keep=places).logits.float()
        targets = targets[:, places]
        total = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
        return total, learnt.sum(), (logits.detach().argmax(dim=-1) == targets).sum()


def filled(tokens: Tensor, places: Tensor, features: Tensor) -> Tensor:
    """`tokens` [B, T, width] with `features` [K, k, width], one after the other, where `places` bool [B, T] says so.

    Without any such place nothing of `features` is used, yet it is part of the graph: its gradient is all zeros.
    """
    count = int(places.sum())
    assert count in (0, features.shape[0] * features.shape[1]), f"{count} places for features {tuple(features.shape)}"
    return tokens.masked_scatter(places[..., None], features.to(tokens.dtype))
