"""GenCAD-Code's scripts, as tests/real/gencad.py reads them: they make the solids that come with them."""

from __future__ import annotations

from functools import cache
from itertools import chain

import gencad
import numpy as np
import pytest
from known_models import GENCAD

from zerofit.cad.kernel import Invalid, Kernel
from zerofit.cad.quantise import dequantise
from zerofit.cad.shape import Arc, Circle, Extrusion, Line, Shape
from zerofit.cad.text import read, write

pytestmark = pytest.mark.real

LEVEL = 1 / 128
"""Of 8 bits: scripts have DeepCAD's rounded numbers, the solids beside them those before they were rounded."""
TOUCHING = {"00129614", "00241318", "00787182"}
"""Have sketches, or solids, that rounding makes touch themselves."""
CLIPPED = "00192544"
"""Faces -z: half a turn is clipped to the last level, which is read as half a turn here, and as 255 / 256 there."""


@cache
def shapes() -> dict[str, Shape]:
    return {id: gencad.read(script) for id, script in gencad.scripts(GENCAD).items()}


def test_every_script_is_read_and_makes_its_solid() -> None:
    with np.load(GENCAD / "derived_points_2048.npz", allow_pickle=False) as held:
        given = {name: dict(zip(held["ids"].tolist(), held[name], strict=True)) for name in ("volume", "area", "bbox")}
    with Kernel(workers=2) as kernel:
        made = dict(zip(shapes(), kernel.map(kernel.measure, shapes().values()), strict=True))
    assert len(made) == 75
    assert {id for id, solid in made.items() if isinstance(solid, Invalid)} == TOUCHING
    for id, solid in made.items():
        if not isinstance(solid, Invalid):
            assert list(chain(*solid.box)) == pytest.approx(given["bbox"][id], abs=2.5 * LEVEL), id
            assert abs(solid.volume - given["volume"][id]) < given["area"][id] * LEVEL, id


def test_scripts_are_commands_in_8_bits_to_the_last_digit() -> None:
    for id, shape in shapes().items():
        commands = gencad.commands(shape)
        assert read(write(commands)) == commands
        back = dequantise(commands)
        assert len(back.extrusions) == len(shape.extrusions)
        close = 0.03 if id == CLIPPED else 1e-9
        for one, other in zip(shape.extrusions, back.extrusions, strict=True):
            assert numbers(other) == pytest.approx(numbers(one), abs=close), id


def numbers(extrusion: Extrusion) -> list[float]:
    """All that is in it."""
    frame = extrusion.frame
    found = [*frame.origin, *frame.x_axis, *frame.y_axis, *frame.normal, *extrusion.distances]
    for curve in chain.from_iterable(loop.curves for loop in extrusion.loops):
        match curve:
            case Line():
                found += [*curve.start, *curve.end]
            case Arc():
                found += [*curve.start, *curve.middle, *curve.end]
            case Circle():
                found += [*curve.center, curve.radius]
    return found


@pytest.mark.parametrize(
    "script",
    [
        "import os",
        "solid = open('x')",
        "solid = cq.importers.importStep('x')",
        "while True: pass",
        "wp = cq.Workplane(cq.Plane(cq.Vector(0, 0, f()), cq.Vector(1, 0, 0), cq.Vector(0, 0, 1)))",
    ],
)
def test_anything_else_is_no_script(script: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        gencad.read(script)
