"""How much of a construction sequence a model recovers, by DeepCAD's definitions (Wu et al. 2021, arXiv 2105.09492).

Commands are compared place by place: the i-th of the prediction with the i-th of the truth. What the paper leaves
open is settled as its authors' evaluation does it: the row that ends a sequence is no command, starts of loops are;
values that name a choice (an arc's direction, an extrusion's operation and extent) have no tolerance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zerofit.cad.sequence import Sequence
from zerofit.cad.vectors import LARGEST, WIDTH, to_vector

TOLERANCE = 3
"""Eta, in levels of 256."""
CHOICES = tuple(LARGEST)
"""Columns whose values are names, not places on a scale."""


def command_accuracy(truth: Sequence, prediction: Sequence) -> float:
    """The share of the truth's commands whose kind is predicted, from 0 to 1.

    (1 / N) sum_i [t_i = p_i] over the N commands of the truth. Where the prediction is shorter, what it lacks is
    wrong; what it has beyond the truth's end is not looked at.
    """
    wanted, made = _commands(truth, prediction)
    return float(np.mean(wanted[:, 0] == made[:, 0]))


def parameter_accuracy(truth: Sequence, prediction: Sequence, tolerance: int = TOLERANCE) -> float | None:
    """The share of right values in the commands whose kind is predicted, from 0 to 1.

    (1 / K) sum_i [t_i = p_i] sum_j [|a_ij - b_ij| < tolerance] over the values a of the truth and b of the
    prediction; K is how many values the recovered commands have. Null where none is recovered that has values.
    """
    wanted, made = _commands(truth, prediction)
    stands = (wanted[:, 0] == made[:, 0])[:, None] & (wanted[:, 1:] >= 0)
    if not stands.any():
        return None
    right = np.abs(wanted - made) < tolerance
    right[:, CHOICES] = wanted[:, CHOICES] == made[:, CHOICES]
    return float(np.mean(right[:, 1:][stands]))


def _commands(truth: Sequence, prediction: Sequence) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of both without their ends, [n, 17]; the prediction's as many as the truth's: -1 where it has none."""
    wanted, made = to_vector(truth)[:-1], to_vector(prediction)[:-1]
    assert len(wanted), "a truth without commands"
    rows = np.full((len(wanted), WIDTH), -1, dtype=np.int64)
    rows[: len(made)] = made[: len(wanted)]
    return wanted, rows
