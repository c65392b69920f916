"""Evaluation of finished runs on images, by task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from zerofit.config.data import Data
from zerofit.evaluate.images import evaluate
from zerofit.plan.spec import RunSpec

EVALUATORS: dict[str, Callable[[RunSpec, Path, Data | None], dict[str, Any]]] = {
    "classify": evaluate,
    "probe": evaluate,
}
