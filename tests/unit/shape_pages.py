"""What an evaluation on CAD models leaves, made up."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
MIXES = ("text", "text+points", "none")
PICTURES = 3
"""Models of each mix that have pictures."""


def png(shade: int, size: int = 24) -> bytes:
    """A picture of one shade."""
    file = io.BytesIO()
    Image.new("RGB", (size, size), (shade, 120, 160)).save(file, "png")
    return file.getvalue()


def noise(size: int, seed: int) -> bytes:
    """A picture that cannot be compressed."""
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def estimate(value: float, by: float = 0.02) -> dict[str, float]:
    return {"value": value, "low": value - by, "high": value + by}


def evaluation() -> dict[str, Any]:
    """evaluation.json."""
    figures: dict[str, dict[str, Any]] = {
        "text+points": {
            "shapes": 8,
            "truncated": 0.125,
            "tokens": {"mean": 33.5, "max": 37},
            "parsed": estimate(0.99),
            "valid": estimate(0.93),
            "command_accuracy": estimate(0.961),
            "parameter_accuracy": estimate(0.884),
            "iou": estimate(0.78),
            "chamfer": estimate(0.00123, 0.0002),
            "chamfer_mean": estimate(0.0089, 0.001),
        },
        "none": {
            "shapes": 8,
            "truncated": 0.125,
            "tokens": {"mean": 33.5, "max": 37},
            "parsed": estimate(0.9),
            "valid": estimate(0.5),
            "command_accuracy": estimate(0.41),
            "parameter_accuracy": estimate(0.3),
            "iou": None,
            "chamfer": None,
            "chamfer_mean": None,
        },
    }
    figures["text"] = figures["text+points"] | {"valid": estimate(0.87)}
    return {
        "format": 1,
        "task": "cad",
        "constrained": True,
        "model": "runs/cad-small/02-points",
        "data": "parts, test models",
        "sampling": {"temperature": 0, "top_p": 1.0, "top_k": 0, "max_tokens": 128},
        "seed": 0,
        "figures": figures,
        "wall_s": 61.0,
        "tokens_s": 2050.0,
    }


def shape(id: str, mix: str, number: int, pictures: int) -> dict[str, Any]:
    """A row; every fourth is not valid, and is no command text where nothing is told."""
    valid = number % 4 != 3
    drawn = number < pictures
    return {
        "id": id,
        "mix": mix,
        "caption": "" if mix == "none" else f"A flange of {number} holes. {EVIL}",
        "truth": f"loop\ncircle 128 128 {number}\nextrude top at 64 64 128 size 96 new 160\nend",
        "prediction": f"loop\ncircle 128 128 {number + 1}{'' if valid else EVIL}",
        "parsed": valid or mix != "none",
        "valid": valid,
        "reason": None if valid else ("text: line 2, column 19: '<'" if mix == "none" else "OpenCASCADE: 1 of 3 faces"),
        "command_accuracy": 1.0,
        "parameter_accuracy": 0.5 if valid else None,
        "chamfer": 0.00123 if valid else None,
        "iou": 0.5 if valid else None,
        "tokens": 30 + number,
        "stopped": number != 0,
        "truth_png": png(number) if drawn else None,
        "prediction_png": png(100 + number) if drawn and valid else None,
    }


def write_evaluation(directory: Path, models: int = 8, pictures: int = PICTURES) -> Path:
    """Both files."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "evaluation.json").write_text(json.dumps(evaluation()))
    write_rows(directory, [shape(f"part-{n}", mix, n, pictures) for mix in MIXES for n in range(models)])
    return directory


def write_rows(directory: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), directory / "shapes.parquet")
