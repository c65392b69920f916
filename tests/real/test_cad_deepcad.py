"""Real models of DeepCAD: documents, the vectors that come with them, and how long their texts are."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest

from zerofit.cad import deepcad, grammar, text, vectors
from zerofit.cad.loops import moved, reach, start
from zerofit.cad.quantise import REACH, dequantise, normalise, quantise
from zerofit.cad.shape import Arc, Box, Circle, Extrusion, Frame, Operation, Shape, Vector

DATA = Path(__file__).parents[2].parent / "shared" / "data"
CAD = DATA / "cad" / "deepcad_text2cad"
pytestmark = [pytest.mark.real, pytest.mark.skipif(not CAD.is_dir(), reason="no real data beside the repository")]

TOWARDS_MINUS_X = ("00464538", "00872788")
"""Have a plane that faces -x, which DeepCAD turns around: see zerofit/cad/planes.py."""
LARGER_THAN_ITS_BOX = "00629901"
"""Its first sketch is 3.7 boxes wide: clipped."""


@cache
def parts() -> dict[str, tuple[Shape, Box]]:
    found = {}
    for file in sorted((CAD / "deepcad_cad_json").glob("*.json")):
        shape, box = deepcad.read(json.loads(file.read_text()))
        assert box is not None
        found[file.stem] = shape, box
    return found


def given_vector(name: str) -> Any:
    pytest.importorskip("h5py")
    return vectors.read_file(CAD / "deepcad_cad_vec" / f"{name}.h5")


def test_vectors_are_those_given_with_the_documents() -> None:
    other = [
        name
        for name, (shape, box) in parts().items()
        if not np.array_equal(vectors.to_vector(quantise(shape, box)), given_vector(name))
    ]
    assert len(parts()) == 75
    assert other == list(TOWARDS_MINUS_X)


@pytest.mark.parametrize("name", TOWARDS_MINUS_X)
def test_the_others_are_too_once_their_planes_are_turned_around_as_deepcad_turns_them(name: str) -> None:
    shape, box = parts()[name]
    turned = Shape(tuple(turned_around(one) if one.frame.normal[0] < 0 else one for one in shape.extrusions))
    assert turned != shape
    assert np.array_equal(vectors.to_vector(quantise(turned, box)), given_vector(name))


def turned_around(extrusion: Extrusion) -> Extrusion:
    """Its axes, half a turn about z."""

    def turned(axis: Vector) -> Vector:
        return -axis[0], -axis[1], axis[2]

    frame = extrusion.frame
    axes = Frame(frame.origin, turned(frame.x_axis), turned(frame.y_axis), turned(frame.normal))
    return replace(extrusion, frame=axes)


def test_given_vectors_and_texts_round_trip() -> None:
    for name in parts():
        vector = given_vector(name)
        sequence = vectors.from_vector(vector)
        assert np.array_equal(vectors.to_vector(sequence), vector)
        written = text.write(sequence)
        assert text.read(written) == sequence
        state = grammar.allowed(written)
        assert state is not None
        assert state.finished


def differences(real: Extrusion, level: int, back: Extrusion) -> Iterator[tuple[str, float]]:
    """How far what comes back is from what was, in levels: those of space, and of its curves those of the profile.

    `level` is the size that was written.
    """
    for there, here in (
        (real.frame.x_axis, back.frame.x_axis),
        (real.frame.y_axis, back.frame.y_axis),
        (real.frame.normal, back.frame.normal),
    ):
        yield "axis", math.dist(there, here)
    size, (x, y) = reach(real.loops), start(real.loops[0])
    place = [a * x + b * y + o for a, b, o in zip(real.frame.x_axis, real.frame.y_axis, real.frame.origin, strict=True)]
    for value, other in zip(place, back.frame.origin, strict=True):
        yield "origin", abs(value - other) * 128
    for value, other in zip(real.distances, back.distances, strict=True):
        yield "distance", abs(max(value, -1.0) - other) * 128
    yield "size", abs(size * 128 - level)
    for loop, other_loop in zip(real.loops, back.loops, strict=True):
        scaled = moved(loop, (-x, -y), REACH / size)
        again = moved(other_loop, (0.0, 0.0), REACH / (level / 128))
        for curve, other_curve in zip(scaled.curves, again.curves, strict=True):
            assert type(curve) is type(other_curve)
            match curve, other_curve:
                case Circle(), Circle():
                    yield "center", largest(curve.center, other_curve.center)
                    yield "radius", abs(curve.radius - other_curve.radius)
                case _:
                    yield "end", largest(curve.end, other_curve.end)
                    if isinstance(curve, Arc):
                        yield "middle", largest(curve.middle, other_curve.middle)


def largest(one: tuple[float, float], other: tuple[float, float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def test_what_is_quantised_comes_back_within_half_a_level() -> None:
    """Save arcs' middles, which follow from ends and sweep, each rounded."""
    worst: dict[str, float] = {}
    for name, (shape, box) in parts().items():
        if name == LARGER_THAN_ITS_BOX:
            continue
        sequence = quantise(shape, box)
        real, back = normalise(shape, box), dequantise(sequence)
        for one, written, other in zip(real.extrusions, sequence.extrudes, back.extrusions, strict=True):
            for kind, value in differences(one, written.size, other):
                worst[kind] = max(worst.get(kind, 0.0), value)
    print(f"\n{worst}")
    assert worst.pop("axis") < 1e-6
    assert worst.pop("middle") < 1.0
    assert max(worst.values()) < 0.5 + 1e-9
    assert set(worst) == {"origin", "distance", "size", "center", "radius", "end"}


def test_the_traps_are_in_the_data() -> None:
    """What the reader heeds does occur."""
    documents = [json.loads(file.read_text()) for file in sorted((CAD / "deepcad_cad_json").glob("*.json"))]
    entities = [entity for document in documents for entity in document["entities"].values()]
    features = [entity for entity in entities if entity["type"] == "ExtrudeFeature"]
    loops = [
        profile["loops"] for entity in entities if entity["type"] == "Sketch" for profile in entity["profiles"].values()
    ]
    assert any(not feature["profiles"] for feature in features)
    assert any(feature["extent_type"].startswith("Symmetric") for feature in features)
    assert any(sum(loop["is_outer"] for loop in those) > 1 for those in loops)
    operations = {extrusion.operation for shape, _ in parts().values() for extrusion in shape.extrusions}
    assert operations == {Operation.NEW_BODY, Operation.JOIN, Operation.CUT}


def test_texts_are_short() -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(DATA / "tokenizers" / "gpt2" / "tokenizer.json"))
    tokenizer.no_truncation()
    texts = [text.write(quantise(shape, box)) for shape, box in parts().values()]
    tokens = [len(tokenizer.encode(written).ids) for written in texts]
    print(f"\ncharacters {mean(map(len, texts)):.1f}; GPT-2 tokens {mean(tokens):.1f}, at most {max(tokens)}")
    assert mean(map(len, texts)) < 280
    assert mean(tokens) < 90
    assert max(tokens) < 256
