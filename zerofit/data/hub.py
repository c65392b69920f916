"""Hugging Face data sets: a hub id, a directory written by `save_to_disk`, or one that `load_dataset` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zerofit.config.data import Data
from zerofit.config.errors import UserError
from zerofit.data.contents import Contents, Split, SplitName
from zerofit.data.decode import decode

SPLITS: dict[str, SplitName] = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}


class HubSplit(Split):
    """Rows of a `datasets.Dataset`, memory-mapped; images are decoded here, so that a broken one has a name."""

    def __init__(self, rows: Any, image: str, label: str, origin: str) -> None:
        from datasets import Image as Encoded

        self.labels = np.asarray(rows.select_columns([label]).with_format("numpy")[:][label], dtype=np.int64)
        self.rows = rows.select_columns([image]).cast_column(image, Encoded(decode=False))
        self.column, self.origin = image, origin

    def image(self, item: int) -> Image.Image:
        encoded = self.rows[item][self.column]
        return decode(encoded["bytes"] if encoded["bytes"] is not None else Path(encoded["path"]).read_bytes())

    def name(self, item: int) -> str:
        return f"{self.origin}, row {item}"


def open_hub(data: Data) -> Contents:
    """The splits that have labels. Downloads only what the recipe names; raises UserError where it cannot."""
    assert data.path is not None
    found = {SPLITS[name]: rows for name, rows in _load(data.path, data.name).items() if name in SPLITS}
    if not found:
        raise UserError(f"data.path: {data.path} has none of the splits {', '.join(SPLITS)}")
    features = next(iter(found.values())).features
    image = _column(data.path, "image_column", data.image_column, features, "Image")
    label = _column(data.path, "label_column", data.label_column, features, "ClassLabel")
    splits = {split: HubSplit(rows, image, label, f"{data.path}, {split}") for split, rows in found.items()}
    labelled = {split: rows for split, rows in splits.items() if split == "train" or (rows.labels >= 0).all()}
    if "train" in labelled and (labelled["train"].labels < 0).any():
        raise UserError(f"data.label_column: {label} of {data.path} lacks labels of training samples (-1)")
    return Contents(data.path, tuple(features[label].names), labelled)


def _load(path: str, name: str | None) -> dict[str, Any]:
    import datasets  # seconds of import that other sources do not pay

    local = Path(path)
    try:
        if (local / "dataset_dict.json").is_file() or (local / "state.json").is_file():
            loaded = datasets.load_from_disk(path)
        else:
            loaded = datasets.load_dataset(path, name)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"data.path: {path} cannot be loaded as a data set ({reason})") from error
    return dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}


def _column(path: str, field: str, asked: str | None, features: Any, kind: str) -> str:
    """The column asked for, or the only one of that kind."""
    columns = [name for name, feature in features.items() if type(feature).__name__ == kind]
    if asked is not None:
        if asked not in columns:
            raise UserError(
                f"data.{field}: {asked} is no {kind} column of {path}; those are {', '.join(columns) or 'none'}"
            )
        return asked
    if len(columns) != 1:
        raise UserError(
            f"data.{field}: {path} has {len(columns)} columns of type {kind} ({', '.join(columns)}); name one"
        )
    return columns[0]
