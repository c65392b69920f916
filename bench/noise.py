"""Data of the shape of real ones, made here: images of noise, rows of random letters, and CAD models of plates.

python bench/noise.py /tmp/noise
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

IMAGES, ROWS, MODELS = 512, 512, 512
POINTS, VIEWS, PIXELS = 2048, 4, 224


def make(root: Path) -> None:
    """All of it, once: `images` of ten classes, `train.jsonl` of 1,850 letters a row, `problems.jsonl`, and CAD models.

    `cad` has such of one to six plates, `alike` of six.
    """
    if (root / "made").exists():
        return
    images(root / "images")
    rows(root / "train.jsonl")
    problems(root / "problems.jsonl")
    models(root / "cad", range(1, 7))
    models(root / "alike", range(6, 7))
    (root / "made").touch()


def images(root: Path) -> None:
    """32 x 32 pixels."""
    import numpy as np
    from PIL import Image

    drawn = np.random.default_rng(0)
    for split, count in (("train", IMAGES), ("test", 20)):
        for number in range(count):
            directory = root / split / f"class-{number % 10}"
            directory.mkdir(parents=True, exist_ok=True)
            pixels = drawn.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(directory / f"{number}.png")


def rows(path: Path) -> None:
    """Of a question and an answer."""
    random.seed(0)
    letters = "abcdefghij klmnop "
    with path.open("w") as file:
        for number in range(ROWS):
            said = "".join(random.choices(letters, k=1850))
            turns = [{"role": "user", "content": f"row {number}"}, {"role": "assistant", "content": said}]
            file.write(json.dumps({"messages": turns}) + "\n")


def problems(path: Path) -> None:
    """With a number as their answer."""
    with path.open("w") as file:
        for number in range(ROWS):
            file.write(json.dumps({"question": f"What is {number} + 1?", "answer": f"#### {number + 1}"}) + "\n")


def models(root: Path, plates_of: range) -> None:
    """As DeepCAD and Omni-CAD have them: documents of so many plates, captions, clouds and images of noise."""
    import numpy as np
    from PIL import Image

    drawn = np.random.default_rng(0)
    names = [f"{number:08d}_00001" for number in range(MODELS)]
    for directory in ("json", "pcd", "img"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    with (root / "captions.jsonl").open("w") as file:
        for number, name in enumerate(names):
            plates = plates_of[number % len(plates_of)]
            (root / "json" / f"{name}.json").write_text(json.dumps(_document(plates, drawn)))
            told = f"{plates} plates, one on the other, " + "each a little smaller than the one below it, " * plates
            file.write(json.dumps({"cad_id": name, "caption": told}) + "\n")
            np.save(root / "pcd" / f"{name}.npy", drawn.random((POINTS, 6), dtype=np.float32))
            for view in range(VIEWS):
                pixels = drawn.integers(0, 256, (PIXELS, PIXELS, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / "img" / f"{name}_{view}.jpg")
    last = names[-16:]
    splits = {"train": names[:-32], "validation": names[-32:-16], "test": last}
    (root / "train_val_test_split.json").write_text(json.dumps(splits))


def _document(plates: int, drawn: Any) -> dict[str, Any]:
    entities: dict[str, Any] = {}
    sequence = []
    for number in range(plates):
        side = float(drawn.uniform(0.3, 1.0))
        corners = [(0.0, 0.0), (side, 0.0), (side, side), (0.0, side)]
        edges = [
            {"type": "Line3D", "start_point": _place(*start), "end_point": _place(*end)}
            for start, end in zip(corners, (*corners[1:], corners[0]), strict=True)
        ]
        entities[f"S{number}"] = {
            "type": "Sketch",
            "transform": {
                "origin": _place(0, 0, number * 0.1),
                "x_axis": _place(1, 0),
                "y_axis": _place(0, 1),
                "z_axis": _place(0, 0, 1),
            },
            "profiles": {"P": {"loops": [{"is_outer": True, "profile_curves": edges}]}},
        }
        entities[f"E{number}"] = {
            "type": "ExtrudeFeature",
            "profiles": [{"sketch": f"S{number}", "profile": "P"}],
            "operation": "JoinFeatureOperation" if number else "NewBodyFeatureOperation",
            "start_extent": {"type": "ProfilePlaneStartDefinition"},
            "extent_type": "OneSideFeatureExtentType",
            "extent_one": {"distance": {"value": 0.1}},
        }
        sequence += [{"type": "Sketch", "entity": f"S{number}"}, {"type": "ExtrudeFeature", "entity": f"E{number}"}]
    box = {"min_point": _place(0, 0), "max_point": _place(1, 1, 0.1 * plates)}
    return {"entities": entities, "sequence": sequence, "properties": {"bounding_box": box}}


def _place(x: float, y: float, z: float = 0.0) -> dict[str, float]:
    return {"x": x, "y": y, "z": z}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="where data go; what is there already is kept")
    make(parser.parse_args().directory)
