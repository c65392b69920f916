"""The CAD models of a directory as rows (data/cad_files.py says what lies where)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from zerofit.cad import deepcad, quantise, text, vectors
from zerofit.cad.errors import CadError
from zerofit.cad.sequence import Sequence
from zerofit.cad.shape import Box
from zerofit.config.cad import Cad
from zerofit.config.errors import UserError
from zerofit.config.limited import read_limited
from zerofit.data import cad_files as files
from zerofit.data.cad_rows import Bad, CadRow, one_line


def read_directory(data: Cad, seed: int) -> Iterator[CadRow | Bad]:
    """Every model, in order of its id; captions without one come last. Raises UserError.

    Models that are in no split of a file of splits are left out, where there is such a file.
    """
    assert data.path is not None, "the schema asks for one"
    root = Path(data.path).expanduser().absolute()  # what is kept is for runs from elsewhere too
    paths, split_of, told = files.models(root), files.splits(root), files.captions(root, data.caption)
    clouds, images = files.clouds(root), files.images(root, paths)
    used = [id for id in sorted(paths) if split_of is None or id in split_of]
    if not used:
        raise UserError(f"data.path: none of the {len(paths):,} models of {root} is in a split of its {files.SPLITS}")
    for id in used:
        try:
            sequence, box = _read(paths[id])
            commands = text.write(sequence)
        except CadError as error:
            yield Bad(id, str(error))
            continue
        split = None if split_of is None else split_of[id]
        cloud = None if box is None else clouds.get(id)  # of another frame, maybe
        yield CadRow(id, split, told.get(id), commands, box, cloud, images.get(id, ()))
    for id in sorted(told.keys() - paths.keys()):
        yield Bad(id, f"has a caption and no model in {paths[used[0]].parent}")


def _read(path: Path) -> tuple[Sequence, Box | None]:
    """A model in 8 bits, and its box in the frame of that. Raises CadError, UserError without h5py."""
    if path.suffix == ".h5":
        return vectors.from_vector(vectors.read_file(path)), None
    try:
        document = json.loads(read_limited(path))
    except (ValueError, RecursionError):
        raise CadError("is no JSON") from None
    except (OSError, UserError) as error:
        raise CadError(one_line(error)) from None
    shape, box = deepcad.read(document)
    if box is None:
        raise CadError("states no bounding_box, by which a model is scaled")
    return quantise.quantise(shape, box), _scaled(box)


def _scaled(box: Box) -> Box:
    """As `quantise` scales a model: no coordinate exceeds CUBE."""
    scale = quantise.CUBE / max(abs(value) for corner in box for value in corner)
    (x, y, z), (u, v, w) = box
    return (x * scale, y * scale, z * scale), (u * scale, v * scale, w * scale)
