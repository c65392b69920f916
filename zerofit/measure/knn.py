"""How well the nearest training features classify: a figure that needs no training (Wu et al. 2018; DINO)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zerofit.config.errors import UserError
from zerofit.measure.accuracy import IGNORED

TRAIN, TEST = 16384, 2048  # rows at a time: their similarities are 128 MiB


@torch.no_grad()
def knn_top1(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    classes: int,
    device: torch.device,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Fraction of `test` [m, width] whose class wins the vote of its k nearest of `train` [n, width].

    Near is a large cosine s; a neighbour's vote weighs exp(s / temperature). Features of any float dtype, memory-mapped
    ones as well: they come to `device` in parts, training ones once. Labels int64; -100 does not count. Give view 0 of
    the training features: with several views it is an augmented one, and the figure a little lower for it.
    Raises UserError where nothing is left to count.
    """
    known, asked = train_labels.cpu() != IGNORED, test_labels.cpu() != IGNORED
    if not known.any() or not asked.any():
        raise UserError("no sample could be evaluated: the split is empty, or none of its images could be read")
    keys, queries = known.nonzero().flatten(), asked.nonzero().flatten()
    wanted = test_labels.cpu()[queries].to(device)
    votes_of = train_labels.cpu()[keys].to(device)
    k = min(k, len(keys))
    vectors = F.normalize(test.index_select(0, queries.to(test.device)).to(device).float(), dim=1)
    near = torch.full((len(queries), k), -torch.inf, device=device)
    labels = torch.zeros(len(queries), k, dtype=torch.int64, device=device)
    for start in range(0, len(keys), TRAIN):
        some = keys[start : start + TRAIN].to(train.device)
        part = F.normalize(train.index_select(0, some).to(device).float(), dim=1)
        for first in range(0, len(queries), TEST):
            rows = slice(first, first + TEST)
            found, index = (vectors[rows] @ part.T).topk(min(k, len(part)), dim=1)
            both = torch.cat([near[rows], found], dim=1)
            names = torch.cat([labels[rows], votes_of[start + index]], dim=1)
            near[rows], kept = both.topk(k, dim=1)
            labels[rows] = names.gather(1, kept)
    votes = torch.zeros(len(queries), classes, device=device)
    votes.scatter_add_(1, labels, ((near - 1) / temperature).exp())  # less 1: the same winner, and no overflow
    return float((votes.argmax(dim=1) == wanted).double().mean())
