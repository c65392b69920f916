"""What a test leaves to look at: RUN/test.json and a few of its images, for the run's page."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
from PIL import Image

from zerofit.config.errors import UserError
from zerofit.data.images import Images
from zerofit.measure.samples import Sample
from zerofit.plan.spec import RunSpec

FILE = "test.json"
SIDE = 160
"""Pixels: larger images are shown smaller."""


def write(spec: RunSpec, images: Images, figures: dict[str, Any], samples: Sequence[Sample]) -> None:
    """Write the confusion matrix and the samples, whose `index` is one of `images`. Rank 0 alone does it.

    {"split", "classes": names, "confusion": rows are true classes, "samples": [{"image": path in the run directory,
    "index", "label", "predicted", "top": [[class, probability], ...]}]}. What cannot be written costs no run its
    result.
    """
    if dist.get_rank() != 0:
        return
    try:
        directory = spec.run_dir / "test"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        written = [_sample(directory / f"{number}.png", images, one) for number, one in enumerate(samples)]
        body = {"split": figures["split"], "classes": list(spec.images.classes), "confusion": figures["confusion"]}
        text = json.dumps({**body, "samples": written})
        (spec.run_dir / FILE).write_text(text + "\n", encoding="utf-8")
    except (OSError, UserError) as error:
        print(f"the samples of the test were not written: {error}", file=sys.stderr)


def _sample(path: Path, images: Images, sample: Sample) -> dict[str, Any]:
    pixels, _ = images[sample.index]
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    image.thumbnail((SIDE, SIDE))
    image.save(path)
    return {
        "image": f"{path.parent.name}/{path.name}",
        "index": sample.index,
        "label": sample.label,
        "predicted": sample.predicted,
        "top": [[number, round(share, 4)] for number, share in sample.top],
    }
