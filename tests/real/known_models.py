"""Directories of CAD models that are tested on what they are trained on: each model once under another name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gencad
import numpy as np

DATA = Path(__file__).parents[3] / "shared" / "data" / "cad"
DEEPCAD, GENCAD = DATA / "deepcad_text2cad", DATA / "gencad_code"


def again(id: str) -> str:
    """The other name, in the test split."""
    return f"{id}_again"


def deepcad(target: Path) -> Path:
    """DeepCAD's models with Text2CAD's captions and clouds: json/, captions.jsonl, points.npz."""
    shutil.copytree(DEEPCAD / "deepcad_cad_json", target / "json")
    lines = (DEEPCAD / "captions.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    twice = [*rows, *({**row, "cad_id": again(row["cad_id"])} for row in rows)]
    (target / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in twice))
    with np.load(DEEPCAD / "derived_points_2048.npz", allow_pickle=False) as held:
        ids = held["ids"].tolist()
        clouds = {name: np.concatenate([held[name]] * 2) for name in ("points", "normals")}
        np.savez(target / "points.npz", ids=np.array([*ids, *map(again, ids)]), **clouds)
    return _twice(target, "json", ".json")


def gencad_code(target: Path) -> Path:
    """GenCAD-Code's models with their images: vec/, images/."""
    gencad.convert(GENCAD, target)
    return _twice(target, "vec", ".h5")


def _twice(root: Path, models: str, ending: str) -> Path:
    """Each file of a model copied under its other name; which name is in which split."""
    files = sorted((root / models).rglob(f"*{ending}"))
    for file in [*files, *root.glob("images/*.png")]:
        shutil.copyfile(file, file.with_stem(again(file.stem)))
    ids = [file.stem for file in files]
    splits = {"train": ids, "test": list(map(again, ids))}
    (root / "train_val_test_split.json").write_text(json.dumps(splits))
    return root
