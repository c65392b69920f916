"""Classification figures: counts are exact, losses are summed in float64.

A state is one float64 tensor that holds every count exactly (below 2^53), so ranks merge theirs with a single sum, in
any order.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zerofit.config.errors import UserError

IGNORED = -100
"""The label of a sample that does not count, as in `torch.nn.functional.cross_entropy`."""


class Tally:
    """Top-1, top-5 (top-C with fewer than five classes), loss and confusion matrix over any number of batches."""

    def __init__(self, classes: int, device: torch.device | str = "cpu") -> None:
        assert classes >= 1, classes
        self.classes = classes
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)  # loss, samples whose label is in the top 5
        self._confusion = torch.zeros(classes, classes, dtype=torch.int64, device=device)  # rows: true classes

    def add(self, logits: Tensor, labels: Tensor, valid: Tensor | None = None) -> None:
        """Count a batch.

        logits [B, C] of any float dtype; labels int64 [B], -100 does not count; valid bool [B], False does not count
        (null: all are valid). Copies nothing to the host, so a GPU is not waited for.
        """
        assert logits.shape == (len(labels), self.classes), (logits.shape, labels.shape, self.classes)
        counted = labels != IGNORED
        if valid is not None:
            counted = counted & valid
        logits = logits.detach().double()
        # What does not count may hold anything, so it is replaced and not merely multiplied by zero: 0 x NaN is NaN.
        safe = torch.where(counted, labels, 0)
        losses = F.cross_entropy(logits, safe, reduction="none")
        first = logits.topk(min(5, self.classes), dim=1).indices
        hits = (first == safe[:, None]).any(dim=1)
        self._sums += torch.stack([torch.where(counted, losses, 0.0).sum(), (counted & hits).sum()])
        cells = safe * self.classes + first[:, 0]
        self._confusion.view(-1).index_add_(0, cells, counted.to(torch.int64))

    def state(self) -> Tensor:
        """float64 [2 + C * C]: sum of losses, top-5 hits, confusion matrix by rows. Ranks' states add."""
        return torch.cat([self._sums, self._confusion.view(-1).double()])

    def result(self) -> dict[str, Any]:
        """Figures of what was added here."""
        return Tally.result_of(self.state(), self.classes)

    @staticmethod
    def result_of(state: Tensor, classes: int) -> dict[str, Any]:
        """Figures of a state, or of a sum of states.

        top1, top5 (fractions), loss (mean cross-entropy, nats), samples, confusion (C lists of C counts, rows are true
        classes). Raises UserError where nothing was counted.
        """
        loss, hits = state[:2].tolist()
        confusion = state[2:].view(classes, classes).round().to(torch.int64).cpu()
        samples = int(confusion.sum())
        if samples == 0:
            raise UserError("no sample could be evaluated: the split is empty, or none of its images could be read")
        return {
            "top1": int(confusion.diagonal().sum()) / samples,
            "top5": hits / samples,
            "loss": loss / samples,
            "samples": samples,
            "confusion": confusion.tolist(),
        }
