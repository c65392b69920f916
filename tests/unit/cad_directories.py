"""Directories of CAD models as data sets have them, and recipes that read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from cad_examples import Raw, circle, document, extrusion, square
from PIL import Image

from zerofit.config.schema import Recipe

SHAPE = {
    "model_type": "qwen3",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "intermediate_size": 16,
    "vocab_size": 272,
}
POINTS = {"latents": 4, "width": 16, "depth": 1, "heads": 2}
VISION = {"shape": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 16}}
SIZE = 32


def recipe(source: str = "deepcad", **data: Any) -> Recipe:
    """A recipe of the task cad whose model sees everything."""
    sizes = {"parts": 24, "test_parts": 6} if source == "parts" else {}
    vision = {**VISION, "image_size": SIZE}
    return Recipe.model_validate(
        {
            "task": "cad",
            "model": {"kind": "cad_mllm", "shape": SHAPE, "tokenizer": "bytes", "points": POINTS, "vision": vision},
            "data": {"source": source, "points": 64, **sizes, **data},
            "train": {"max_steps": 2, "micro_batch": 2, "global_batch": 4},
            "optimizer": {"lr": 1e-3},
        }
    )


def part(number: int) -> Raw:
    """A square plate with a hole, wider with each number; its box is the cube from 0 to 1."""
    return document(extrusion("P", distance=1.0), P=[square(0, 1), [circle(0.5, 0.5, 0.1 + 0.02 * number)]])


def deepcad(root: Path, models: int = 8) -> Path:
    """cad_json/<shard>/<id>.json and captions.jsonl, with ids 00000000 and on."""
    for number in range(models):
        write_json(root / "cad_json" / "0000" / f"{number:08d}.json", part(number))
    caption(root, *({"cad_id": f"{number:08d}", "caption": f"Plate {number}."} for number in range(models)))
    return root


def omni_cad(root: Path, models: int = 8) -> Path:
    """json/<shard>/<id>.json, txt/<shard>.json, pcd/<shard>/<id>.npy and img/<shard>/<id>/<id>_<view>.png."""
    names = [f"{number:08d}_00001" for number in range(models)]
    for number, name in enumerate(names):
        write_json(root / "json" / "0000" / f"{name}.json", part(number))
        for view in range(8):
            picture(root / "img" / "0000" / name / f"{name}_{view:03d}.png", 20 * view)
    rows = [{"id": f"0000/{name}", "text caption": f"Plate {name}."} for name in names]
    write_json(root / "txt" / "0000.json", rows)
    for number, name in enumerate(names):
        cloud(root / "pcd" / "0000" / f"{name}.npy", 200, seed=number)
    return root


def caption(root: Path, *rows: dict[str, str]) -> None:
    """Write captions.jsonl."""
    (root / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def cloud(path: Path, points: int, seed: int = 0) -> np.ndarray:
    """Points of a cube of side 4 about (10, 0, 0)."""
    found = np.random.default_rng(seed).uniform(-2, 2, (points, 3)) + [10, 0, 0]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, found.astype(np.float32))
    return found


def picture(path: Path, shade: int) -> None:
    """A picture of one shade."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (48, 40), (shade, 90, 90)).save(path)


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
