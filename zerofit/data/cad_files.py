"""Files of CAD models on a drive: models, captions, splits, clouds and images, found by directory and id.

DIRECTORY/
  json/ or cad_json/             DeepCAD's JSON documents, at any depth; the file's name is the model's id
  vec/ or cad_vec/               or its quantised vectors (.h5), where there is no JSON
  captions.jsonl                 a row a model: cad_id (or id), and the caption in the field `data.caption`
  txt/*.json                     or, of Omni-CAD, lists of {"id": "0000/00000071_00005", "text caption": ...}
  train_val_test_split.json      ids by split, as DeepCAD has it; models in none of them are not used
  points/ or pcd/                a cloud a model, .npy [n, 3 or 6] or .npz (points, normals); any frame
  *points*.npz                   or all of them: ids [m], points [m, n, 3], normals [m, n, 3]
  images/ or img/                ID.png, ID_*.png or ID/*.png (or .jpg); any depth
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zerofit.config.errors import UserError
from zerofit.data.cad_rows import Cloud
from zerofit.data.splits import SplitName

MODELS = {".json": ("json", "cad_json", "deepcad_cad_json"), ".h5": ("vec", "cad_vec", "deepcad_cad_vec")}
"""Directories of models, by the ending of their files; the first that is there is read."""
CLOUDS, IMAGES = ("points", "pcd"), ("images", "img")
PICTURES = (".png", ".jpg", ".jpeg")
CAPTIONS, SPLITS = "captions.jsonl", "train_val_test_split.json"
NAMES: Mapping[str, SplitName] = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


def bare(id: str) -> str:
    """`00000071_00005` of `0000/00000071_00005`."""
    return str(id).rpartition("/")[2]


def models(root: Path) -> dict[str, Path]:
    """File of each model. Raises UserError: nothing there, or two of one id."""
    if not root.is_dir():
        raise UserError(f"data.path: {root} is no directory")
    for ending, names in MODELS.items():
        for name in names:
            files = sorted((root / name).rglob(f"*{ending}"))
            if files:
                return _by_id(files)
    raise UserError(f"data.path: {root} holds no CAD models: neither json/ with .json files, nor vec/ with .h5 files")


def _by_id(files: list[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        if file.stem in found:
            raise UserError(f"data.path: {file.stem} is there twice: {found[file.stem]} and {file}; remove one")
        found[file.stem] = file
    return found


def splits(root: Path) -> dict[str, SplitName] | None:
    """Split of each id; null where nothing says. Raises UserError for an id in two of them."""
    path = root / SPLITS
    if not path.is_file():
        return None
    named = _json(path)
    if not isinstance(named, dict) or not set(named) <= set(NAMES):
        raise UserError(f"data.path: {path} is to hold lists of ids: train, validation (or val) and test")
    found: dict[str, SplitName] = {}
    for name, ids in named.items():
        for id in map(bare, ids):
            if found.setdefault(id, NAMES[name]) != NAMES[name]:
                raise UserError(
                    f"data.path: {id} is in two splits of {path}, {found[id]} and {name}: leave it in one, or what is "
                    "tested has been trained on"
                )
    return found


def captions(root: Path, field: str) -> dict[str, str]:
    """Caption of each id; none where there is no file of them. Raises UserError for a row that is none."""
    found: dict[str, str] = {}
    for where, row, name in (*_of_lines(root / CAPTIONS, field), *_of_lists(root / "txt")):
        id = row.get("cad_id", row.get("id")) if isinstance(row, dict) else None
        if id is None:
            raise UserError(f"data.path: {where}: a row of captions has a cad_id or an id, and this one has none")
        if not isinstance(row.get(name), str):
            fields = ", ".join(key for key, value in row.items() if isinstance(value, str))
            raise UserError(f"data.caption: {where}: {id} has no text in {name!r}; its fields with text are {fields}")
        if row[name].strip():
            found[bare(id)] = row[name].strip()
    return found


def _of_lines(path: Path, field: str) -> Iterator[tuple[str, Any, str]]:
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield f"{path}:{number}", json.loads(line), field
            except (ValueError, RecursionError):
                raise UserError(f"data.path: {path}:{number} is no JSON") from None


def _of_lists(directory: Path) -> Iterator[tuple[str, Any, str]]:
    for path in sorted(directory.glob("*.json")):
        rows = _json(path)
        if not isinstance(rows, list):
            raise UserError(f"data.path: {path} is to be a list of captions")
        for row in rows:
            yield str(path), row, "text caption"


def clouds(root: Path) -> dict[str, Cloud]:
    """Where the cloud of an id lies."""
    found: dict[str, Cloud] = {}
    for path in sorted(root.glob("*points*.npz")):
        with _arrays(path) as held:
            if "ids" not in held.files or "points" not in held.files:
                raise UserError(f"data.path: {path} is to hold ids [m], points [m, n, 3] and normals [m, n, 3]")
            found |= {bare(id): Cloud(str(path), row) for row, id in enumerate(held["ids"].tolist())}
    for name in CLOUDS:
        files = [path for path in sorted((root / name).rglob("*")) if path.suffix in (".npy", ".npz")]
        found |= {id: Cloud(str(path), None) for id, path in _by_id(files).items()}
    return found


def _arrays(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"data.path: {path} cannot be read: {' '.join(str(error).split())}") from None


def images(root: Path, ids: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Files with images of an id, in order of their names."""
    found: dict[str, list[str]] = {}
    for name in IMAGES:
        for path in sorted((root / name).rglob("*")):
            if path.suffix.lower() not in PICTURES:
                continue
            id = next((one for one in (path.parent.name, path.stem, path.stem.rpartition("_")[0]) if one in ids), None)
            if id is not None:
                found.setdefault(id, []).append(str(path))
    return {id: tuple(files) for id, files in found.items()}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"data.path: {path} cannot be read: {' '.join(str(error).split())[:200]}") from None
