"""Micro-batches of each task as its collator gives them: the largest that the facts of the data allow for.

Values are made up; how long rows are, and which places count, is as it would be.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from zerofit.data.cad import image_size_of, slots_of
from zerofit.data.cad_loader import CadCollator, CadSample
from zerofit.data.images import IGNORED
from zerofit.data.samples import Sample
from zerofit.data.text_loader import collator_of
from zerofit.plan.slots import CHANNELS
from zerofit.plan.spec import RunSpec

Batch = dict[str, Tensor]


def of_images(spec: RunSpec, rows: int, *, training: bool) -> Batch:
    """images uint8 [rows, 3, S, S] and labels int64 [rows]; in training the partners that they are mixed with, too."""
    augment, size = spec.recipe.images.augment, spec.images.image_size
    mixing = training and (augment.mixup > 0 or augment.cutmix > 0)
    batch: Batch = {}
    for name in ("", "partner_") if mixing else ("",):
        batch[f"{name}images"] = torch.zeros(rows, 3, size, size, dtype=torch.uint8)
        batch[f"{name}labels"] = torch.zeros(rows, dtype=torch.int64)
    return batch


def of_text(spec: RunSpec, rows: int) -> Batch:
    """The longest sample, beside others of average length, as the task sft has them."""
    facts, packed = spec.text, spec.recipe.text.packing
    average = min(facts.longest, round(facts.tokens / facts.train))
    learnt = facts.targets / facts.tokens
    together = max(1, round(facts.rows / facts.train)) if packed else 1
    lengths = [facts.longest, *[average] * (rows - 1)]
    return collator_of(spec)([_sample(length, together, learnt) for length in lengths])


def _sample(tokens: int, rows: int, learnt: float) -> Sample:
    """So many tokens of a number of rows, the last of which are learnt."""
    lengths = [len(part) for part in np.array_split(np.arange(tokens), min(rows, tokens))]
    last = [np.arange(length) >= min(length - 1, round(length * (1 - learnt))) for length in lengths]
    return Sample(np.ones(tokens, dtype=np.int32), np.concatenate(last), tuple(lengths))


def of_completions(spec: RunSpec, rows: int) -> Batch:
    """input_ids, attention_mask and labels int64 [rows, T] of completions that are as long as they may be.

    One prompt is the longest, the others are of average length: TRL fills prompts up on the left, and scores
    completions alone (grpo_trainer.py, `_get_per_token_logps_and_entropies`).
    """
    assert spec.recipe.grpo is not None
    facts, made = spec.text, spec.recipe.grpo.sampling.max_tokens
    average = min(facts.longest, round(facts.tokens / facts.train))
    tokens = torch.ones(rows, facts.longest + made, dtype=torch.int64)
    mask = torch.ones_like(tokens)
    mask[1:, : facts.longest - average] = 0
    labels = tokens.clone()
    labels[:, : facts.longest] = IGNORED
    return {"input_ids": tokens, "attention_mask": mask, "labels": labels}


def of_cad(spec: RunSpec, rows: int) -> Batch:
    """The longest sample, beside others that are a token shorter, all of which see as much as any row does.

    Micro-batches are of samples of like length (data/cad_order.py).
    """
    facts, data, slots = spec.cad, spec.recipe.cad, slots_of(spec.recipe)
    most, mean = data.views_at_once[1], sum(data.views_at_once) / 2
    fullest = max((share.inputs for share in data.shares), key=lambda inputs: slots.of(inputs, most))
    shown = sum(share.share * slots.of(share.inputs, mean) for share in data.shares)
    prompt = max(1, round((facts.tokens - facts.targets) / facts.train - shown))
    learnt = max(1, facts.longest - slots.of(fullest, most) - prompt)
    size = image_size_of(spec.recipe)
    cloud = np.zeros((data.points, CHANNELS), dtype=np.float32) if fullest.points else None
    images = [np.zeros((size, size, 3), dtype=np.uint8)] * most if fullest.image and size is not None else []
    samples = [
        CadSample(np.ones(prompt, dtype=np.int32), np.ones(length, dtype=np.int32), cloud, tuple(images))
        for length in [learnt, *[max(1, learnt - 1)] * (rows - 1)]
    ]
    return CadCollator(facts.pad, slots, size, data.mean, data.std)(samples)
