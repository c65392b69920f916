"""GenCAD-Code's models (Doris et al. 2025): CadQuery scripts read, never run, and written in a layout that data takes.

A script makes workplanes, draws loops on them, extrudes loops, and unites and cuts what was extruded. That is all that
is read: anything else is a ValueError. Whether a union was a new body is lost in a script, and so is that an extrusion
went two ways, which is written as two. The numbers are DeepCAD's 8 bits, so that the commands come back as they were.
"""

from __future__ import annotations

import ast
import json
import math
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path as File
from typing import Any

from zerofit.cad.planes import angles_of
from zerofit.cad.quantise import CENTER, LEVELS, REACH
from zerofit.cad.sequence import ArcTo, CircleAt, Command, Extrude, LineTo, Path, Place, Sequence
from zerofit.cad.shape import Arc, Circle, Curve, Extent, Extrusion, Frame, Line, Loop, Operation, Point, Shape, Vector
from zerofit.cad.vectors import to_vector

OPERATIONS = {"union": Operation.JOIN, "cut": Operation.CUT}
CLOSED = 1e-9
"""Nearer to its start a loop is closed."""
WHOLE = 1e-6
"""So near to a whole number a coordinate is one."""


@dataclass(frozen=True)
class Call:
    """A method and what it is given."""

    name: str
    given: list[ast.expr]
    keywords: dict[str, ast.expr]


def scripts(directory: File) -> dict[str, str]:
    """The script of each id."""
    lines = (directory / "cadquery_gt.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return {str(row["image"]).partition("_")[0]: row["ground_truth"] for row in rows}


def convert(source: File, target: File) -> int:
    """Write vec/ID.h5 and images/ID.png of every model; returns how many."""
    import h5py

    for name in ("vec", "images"):
        (target / name).mkdir(parents=True)
    found = scripts(source)
    with zipfile.ZipFile(source / "images.zip") as images:
        for id, script in found.items():
            with h5py.File(target / "vec" / f"{id}.h5", "w") as file:
                file["vec"] = to_vector(commands(read(script)))
            with images.open(f"{id}.png") as packed, (target / "images" / f"{id}.png").open("wb") as written:
                shutil.copyfileobj(packed, written)
    return len(found)


def read(script: str) -> Shape:
    """The shape that a script would make. Raises ValueError for what it may not say."""
    planes: dict[str, Frame] = {}
    loops: dict[str, Loop] = {}
    bodies: dict[str, tuple[Extrusion, ...]] = {}
    for statement in ast.parse(script).body:
        match statement:
            case ast.Import(names=[ast.alias(name="cadquery", asname="cq")]):
                continue
            case ast.Assign(targets=[ast.Name(id=target)], value=value):
                name, calls = _chain(value)
            case _:
                raise ValueError(ast.unparse(statement))
        names = [call.name for call in calls]
        if name == "cq" and names == ["Workplane"]:
            planes[target] = _plane(calls[0])
        elif name in planes and names[-1:] == ["extrude"]:
            drawn = tuple(loops[_name(call)] for call in calls[:-1])
            bodies[target] = (_extrusion(planes[name], drawn, calls[-1]),)
        elif name in planes:
            loops[target] = _loop(calls)
        elif name in bodies and not calls:
            bodies[target] = bodies[name]
        elif name in bodies and len(calls) == 1:
            operation = OPERATIONS[names[0]]
            bodies[target] = bodies[name] + tuple(replace(one, operation=operation) for one in bodies[_name(calls[0])])
        else:
            raise ValueError(ast.unparse(statement))
    return Shape(bodies["solid"])


def commands(shape: Shape) -> Sequence:
    """The commands that the shape of a script was made of. Raises ValueError where its numbers are no 8 bits."""
    return Sequence(tuple(map(_extrude, shape.extrusions)))


def _extrude(extrusion: Extrusion) -> Extrude:
    size = _size(extrusion.loops)
    step = size / CENTER / REACH
    px, py, pz = map(_length, extrusion.frame.origin)
    theta, phi, gamma = (min(round((angle / math.pi + 1) * CENTER), LEVELS - 1) for angle in angles_of(extrusion.frame))
    one, two = map(_length, extrusion.distances)
    return Extrude(
        paths=tuple(Path(tuple(_command(curve, step) for curve in loop.curves)) for loop in extrusion.loops),
        angles=(theta, phi, gamma),
        origin=(px, py, pz),
        size=size,
        distances=(one, two),
        operation=extrusion.operation,
        extent=extrusion.extent,
    )


def _size(loops: tuple[Loop, ...]) -> int:
    """The level of a sketch's size: the least of which all coordinates are whole, and in the grid."""
    numbers = [number for loop in loops for curve in loop.curves for number in _coordinates(curve)]
    for size in range(1, LEVELS):
        levels = [number / (size / CENTER / REACH) for number in numbers]
        if all(abs(level - round(level)) < WHOLE and -CENTER <= round(level) < CENTER for level in levels):
            return size
    raise ValueError(f"no grid of 8 bits has {numbers}")


def _coordinates(curve: Curve) -> tuple[float, ...]:
    return (*curve.center, curve.radius) if isinstance(curve, Circle) else curve.end


def _length(value: float) -> int:
    return min(round((value + 1) * CENTER), LEVELS - 1)


def _command(curve: Curve, step: float) -> Command:
    def place(point: Point) -> Place:
        return round(point[0] / step) + CENTER, round(point[1] / step) + CENTER

    match curve:
        case Line(end=end):
            return LineTo(place(end))
        case Circle(center=center, radius=radius):
            return CircleAt(place(center), round(radius / step))
        case Arc(start=(ax, ay), middle=(bx, by), end=(cx, cy)):
            ux, uy, vx, vy = bx - ax, by - ay, cx - bx, cy - by
            turn = 2 * math.atan2(ux * vy - uy * vx, ux * vx + uy * vy)
            return ArcTo(place(curve.end), round(abs(turn) / math.tau * LEVELS), turn > 0)


def _chain(node: ast.expr) -> tuple[str, list[Call]]:
    """`a.b(1).c(2)`: a, and the calls."""
    calls: list[Call] = []
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        calls.insert(0, Call(node.func.attr, node.args, {str(one.arg): one.value for one in node.keywords}))
        node = node.func.value
    if not isinstance(node, ast.Name):
        raise ValueError(ast.unparse(node))
    return node.id, calls


def _name(call: Call) -> str:
    """Of what a call is given."""
    (given,) = call.given
    if not isinstance(given, ast.Name):
        raise ValueError(ast.unparse(given))
    return given.id


def _numbers(nodes: list[ast.expr]) -> Iterator[float]:
    for node in nodes:
        value: Any = ast.literal_eval(node)
        if not isinstance(value, float | int):
            raise ValueError(ast.unparse(node))
        yield float(value)


def _plane(call: Call) -> Frame:
    """cq.Workplane(cq.Plane(origin, x axis, normal)), each a cq.Vector."""
    _, (plane,) = _chain(call.given[0])
    origin, x, n = (_vector(node) for node in plane.given)
    y = (n[1] * x[2] - n[2] * x[1], n[2] * x[0] - n[0] * x[2], n[0] * x[1] - n[1] * x[0])
    return Frame(origin, x, y, n)


def _vector(node: ast.expr) -> Vector:
    x, y, z = _numbers(_chain(node)[1][0].given)
    return x, y, z


def _loop(calls: list[Call]) -> Loop:
    """The line that closes it, where there is one, is first: DeepCAD's loops start where they end."""
    start: Point = (0.0, 0.0)
    curves: list[Curve] = []
    here = start
    for call in calls:
        match call.name:
            case "moveTo":
                start = here = _point(call.given)
            case "lineTo":
                end = _point(call.given)
                curves.append(Line(here, end))
                here = end
            case "threePointArc":
                middle, end = (_point(node.elts) for node in call.given if isinstance(node, ast.Tuple))
                curves.append(Arc(here, middle, end))
                here = end
            case "circle":
                (radius,) = _numbers(call.given)
                curves.append(Circle(here, radius))
            case "close" if math.dist(here, start) > CLOSED:
                curves.insert(0, Line(here, start))
            case "close":
                pass
            case _:
                raise ValueError(call.name)
    return Loop(tuple(curves))


def _point(nodes: list[ast.expr]) -> Point:
    x, y = _numbers(nodes)
    return x, y


def _extrusion(frame: Frame, loops: tuple[Loop, ...], call: Call) -> Extrusion:
    (distance,) = _numbers(call.given)
    both = "both" in call.keywords
    return Extrusion(
        frame=frame,
        loops=loops,
        distances=(distance, 0.0),
        operation=Operation.NEW_BODY,
        extent=Extent.SYMMETRIC if both else Extent.ONE_SIDE,
    )
