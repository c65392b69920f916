"""Embedded parts: valid by plane geometry, said in full by their captions, and apart from those that are tested on."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from zerofit.cad.parts import Part, families, part, split
from zerofit.cad.parts.form import Form, Pick, every, grid
from zerofit.cad.parts.made import FORMS
from zerofit.cad.parts.turned import Washer
from zerofit.cad.quantise import dequantise
from zerofit.cad.sequence import ArcTo, CircleAt, LineTo, Path
from zerofit.cad.shape import Arc, Circle, Line, Operation
from zerofit.cad.text import read, write
from zerofit.config.errors import UserError

SEEDS, INDICES = st.integers(0, 2**32 - 1), st.integers(0, 10**9)


@cache
def outline(path: Path) -> NDArray[np.float64]:
    """Points of the loop [n, 2], closed, in the sketch's grid; of straight edges also those between their ends."""
    at = path.commands[-1].center if isinstance(path.commands[-1], CircleAt) else path.commands[-1].end
    parts = []
    for command in path.commands:
        if isinstance(command, CircleAt):
            turn = np.linspace(0, 2 * np.pi, 33)
            parts.append(np.array(command.center) + command.radius * np.stack([np.cos(turn), np.sin(turn)], 1))
            continue
        start, end = np.array(at, dtype=float), np.array(command.end, dtype=float)
        if isinstance(command, ArcTo):
            assert (command.sweep, command.counter_clockwise) == (128, True)
            middle, spoke = (start + end) / 2, (start - end) / 2
            turn = np.linspace(0, np.pi, 17)[:, None]
            parts.append(middle + np.cos(turn) * spoke + np.sin(turn) * np.array([-spoke[1], spoke[0]]))
        else:
            parts.append(start + np.linspace(0, 1, 25)[:, None] * (end - start))
        at = command.end
    points = np.concatenate(parts)
    points[-1] = points[0]  # to the last bit
    return points


@cache
def area(path: Path) -> float:
    """Exact for circles, as the outline's otherwise."""
    if isinstance(path.commands[0], CircleAt):
        return np.pi * path.commands[0].radius ** 2
    x, y = outline(path).T
    return abs(float(x[:-1] @ y[1:] - x[1:] @ y[:-1])) / 2


def within(points: NDArray[np.float64], around: NDArray[np.float64]) -> bool:
    """Whether all points lie in a polygon: a ray to the right of each crosses it an odd number of times."""
    (x0, y0), (x1, y1) = around[:-1].T, around[1:].T
    px, py = points[:, :1], points[:, 1:]
    spans = (y0 > py) != (y1 > py)
    with np.errstate(divide="ignore", invalid="ignore"):
        crossed = spans & (px < x0 + (py - y0) / (y1 - y0) * (x1 - x0))
    return bool(np.all(crossed.sum(1) % 2 == 1))


def apart(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    x, y = (np.subtract.outer(one[:, axis], other[:, axis]) for axis in (0, 1))
    return float(np.sqrt((x * x + y * y).min()))


def check_profile(paths: tuple[Path, ...]) -> None:
    """Holes lie in the outline and beside each other, with 4 units between; nothing leaves DeepCAD's box."""
    outer, *holes = map(outline, paths)
    assert all(area(paths[0]) > area(path) for path in paths[1:])
    assert all(within(hole, outer) and apart(hole, outer) > 3.9 for hole in holes)
    for one, other in combinations(holes, 2):
        assert apart(one, other) > 3.9
        assert not within(one[:1], other)
        assert not within(other[:1], one)
    assert np.abs(outer - 128).max() <= 96


def volume(one: Part) -> float:
    """Of a part whose extrusions touch or cut, never overlap, by its commands alone."""
    found = 0.0
    for extrude in one.sequence.extrudes:
        outer, *holes = map(area, extrude.paths)
        sign = -1 if extrude.operation is Operation.CUT else 1
        found += sign * (outer - sum(holes)) * (extrude.distances[0] - 128)
    return found / 128**3


@given(SEEDS, INDICES)
def test_a_part_is_what_its_caption_says(seed: int, index: int) -> None:
    one = part(seed, index)
    assert one == part(seed, index)
    assert volume(one) == pytest.approx(one.volume, rel=1e-2)  # a slot's ends are polygons here
    assert read(write(one.sequence)) == one.sequence
    assert set(one.parameters) <= set(map(int, re.findall(r"\d+", one.caption)))
    assert not re.search(r"(?<![ \d])\d", one.caption)  # with a space before it, a number is the same token everywhere
    assert one.sequence.extrudes[0].operation is Operation.NEW_BODY
    assert sum(len(path.commands) + 1 for extrude in one.sequence.extrudes for path in extrude.paths) <= 16


@given(SEEDS, INDICES)
def test_a_unit_is_one_128th_of_a_shapes_in_sketches_as_in_space(seed: int, index: int) -> None:
    one = part(seed, index)
    for extrude, made in zip(one.sequence.extrudes, dequantise(one.sequence).extrusions, strict=True):
        lengths = (*made.frame.origin, made.distances[0])
        assert np.allclose(np.array(lengths) * 128 + 128, (*extrude.origin, extrude.distances[0]), atol=1e-9)
        axes = (made.frame.x_axis, made.frame.y_axis, made.frame.normal)
        assert np.allclose(np.sort(np.abs(axes), axis=1), [0, 0, 1], atol=1e-9)
        for path, loop in zip(extrude.paths, made.loops, strict=True):
            for command, curve in zip(path.commands, loop.curves, strict=True):
                match command, curve:
                    case CircleAt(), Circle():
                        assert np.allclose(np.array(curve.center) * 128 + 128, command.center, atol=1e-9)
                        assert curve.radius * 128 == pytest.approx(command.radius)
                    case ((LineTo() | ArcTo()), (Line() | Arc())):
                        assert np.allclose(np.array(curve.end) * 128 + 128, command.end, atol=1e-9)
                    case _:
                        pytest.fail(f"{command} became {curve}")


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.kind)
def test_a_family_has_many_parts_all_valid_and_all_apart(form: type[Form]) -> None:
    forms = list(every(form))
    assert len(forms) > 1000
    assert len({one.parameters for one in forms}) == len(forms)
    assert len({one.sequence for one in forms}) == len(forms)
    extrudes = {extrude for one in forms for extrude in one.sequence.extrudes}
    for paths in {extrude.paths for extrude in extrudes}:
        check_profile(paths)
    for extrude in extrudes:
        assert 128 < extrude.distances[0] <= 128 + 96
        assert extrude.distances[1] == 128
        assert all(128 <= value <= 128 + 96 for value in extrude.origin)
    for one in (forms[0], forms[-1]):
        assert len({caption for caption in one.captions}) == len(one.captions) >= 3


def test_every_choice_is_listed() -> None:
    @dataclass(frozen=True)
    class Pair(Form):
        one: int
        other: int

        @classmethod
        def draw(cls, pick: Pick) -> Pair:
            one = pick(grid(1, 3, 1))
            return cls(one, pick(grid(one, 3, 1)))

        sequence = volume = captions = None

    assert {one.parameters for one in every(Pair)} == {(1, 1), (1, 2), (1, 3), (2, 2), (2, 3), (3, 3)}


def test_parts_stay_what_they_are() -> None:
    """A change here changes every run on this data: list it in CHANGELOG.md."""
    one = part(0, 5)
    assert (one.kind, one.parameters) == ("channel", (64, 56, 32, 4))
    assert one.caption == "A U-channel 64 long, 56 wide and 32 high, 4 thick, open from y 4 to 52."
    assert one.volume == (56 * 4 + 2 * 28 * 4) * 64 / 128**3
    assert write(one.sequence).split("\n")[:3] == ["loop", "line 184 128", "line 184 160"]
    train, test = split(0, train=500, test=100)
    text = "\n".join(f"{one.caption}\n{write(one.sequence)}" for one in (*train, *test))
    assert sha256(text.encode()).hexdigest()[:16] == "64bc58a421584ba9"


@given(st.integers(0, 1000), st.integers(0, 1000))
@settings(max_examples=20)
def test_what_is_tested_on_is_in_no_training_of_any_seed(seed: int, other: int) -> None:
    train, test = split(seed, train=60, test=20)
    foreign, _ = split(other, train=60, test=0)
    assert (len(train), len(test)) == (60, 20)
    assert not {one.sequence for one in (*train, *foreign)} & {one.sequence for one in test}
    assert len({one.caption for one in (*train, *test)}) == 80


def test_a_split_is_of_all_families_and_a_longer_one_begins_alike() -> None:
    train, test = split(3, train=500, test=150)
    for side in (train, test):
        counts = Counter(one.kind for one in side)
        assert set(counts) == {form.kind for form in FORMS}
        assert max(counts.values()) < 3 * min(counts.values())
    assert split(3, train=600, test=160)[0][:500] == train
    assert split(4, train=500, test=150)[0] != train


def test_a_split_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="are to be at least 0"):
        split(0, -1, 2)
    monkeypatch.setattr("zerofit.cad.parts.made.FORMS", (Washer,))
    monkeypatch.setattr("zerofit.cad.parts.made.TRIES", 500)
    with pytest.raises(UserError, match=r"too few parts for 9000 \+ 10: found [34]\d\d\d \+ 10"):
        split(0, 9000, 10)


def test_families_for_documentation() -> None:
    found = families()
    assert [one.kind for one in found] == [form.kind for form in FORMS]
    washer = next(one for one in found if one.kind == "washer")
    assert washer.parameters == ("radius", "bore", "thickness")
    assert washer.example == "A washer of radius 24 with a bore of radius 8, 4 thick."
    assert all(one.parts > 1000 for one in found)
