"""Construction sequences as text: what a language model reads and writes. A line a command, all numbers 0 to 255.

    loop
    line 223 128
    line 223 176
    arc 128 176 64
    line 128 128
    loop
    circle 140 150 8
    extrude top at 64 64 128 size 96 new 160
    end

- `loop`: a loop starts. It is one circle, or lines and arcs that start where its last one ends.
- `line X Y`, `arc X Y SWEEP`: to (X, Y). An arc turns SWEEP / 256 of a whole turn, clockwise where it is negative.
- `circle X Y RADIUS`
- `extrude PLANE at PX PY PZ size SIZE OPERATION [EXTENT] DISTANCE [SECOND]`: the loops before it are extruded.
  PLANE is the side it faces, top (+z), bottom, front (-y), back, right (+x) or left, or the angles THETA PHI GAMMA;
  OPERATION is new, join, cut or intersect; EXTENT is both (symmetric) or two, and nothing where it is one side; SECOND
  is 128, no distance, where it is left out.
- `end`
"""

from __future__ import annotations

from collections.abc import Iterator

from zerofit.cad import grammar
from zerofit.cad.errors import CadError
from zerofit.cad.grammar import EXTENTS, OPERATIONS, PLANES
from zerofit.cad.sequence import ArcTo, CircleAt, Command, Extrude, LineTo, Path, Sequence
from zerofit.cad.shape import Extent

NO_DISTANCE = 128
ANGLES_OF = {name: angles for angles, name in PLANES.items()}
OPERATION_OF = {name: operation for operation, name in OPERATIONS.items()}
EXTENT_OF = {name: extent for extent, name in EXTENTS.items()}


def write(sequence: Sequence) -> str:
    """The text of a sequence; ASCII, without a last line break. Two sequences have two texts."""
    return "\n".join(_lines(sequence))


def read(text: str) -> Sequence:
    """The sequence of a text, as `write` makes it and the grammar has it. Raises CadError, naming line and column."""
    _check(text)
    extrudes: list[Extrude] = []
    loops: list[list[Command]] = []
    for line in text.split("\n"):
        match line.split(" "):
            case ["loop"]:
                loops.append([])
            case ["line", x, y]:
                loops[-1].append(LineTo((int(x), int(y))))
            case ["arc", x, y, sweep]:
                loops[-1].append(ArcTo((int(x), int(y)), abs(int(sweep)), not sweep.startswith("-")))
            case ["circle", x, y, radius]:
                loops[-1].append(CircleAt((int(x), int(y)), int(radius)))
            case ["extrude", *fields]:
                extrudes.append(_extrude(tuple(Path(tuple(loop)) for loop in loops), fields))
                loops = []
    return Sequence(tuple(extrudes))


def _lines(sequence: Sequence) -> Iterator[str]:
    for extrude in sequence.extrudes:
        for path in extrude.paths:
            yield "loop"
            yield from map(_line, path.commands)
        angles, second = extrude.angles, extrude.distances[1]
        fields = (
            "extrude",
            *((PLANES[angles],) if angles in PLANES else angles),
            *("at", *extrude.origin),
            *("size", extrude.size),
            OPERATIONS[extrude.operation],
            *((EXTENTS[extrude.extent],) if extrude.extent in EXTENTS else ()),
            extrude.distances[0],
            *((second,) if second != NO_DISTANCE else ()),
        )
        yield " ".join(map(str, fields))
    yield "end"


def _line(command: Command) -> str:
    match command:
        case LineTo(end=(x, y)):
            return f"line {x} {y}"
        case ArcTo(end=(x, y), sweep=sweep):
            return f"arc {x} {y} {'' if command.counter_clockwise else '-'}{sweep}"
        case CircleAt(center=(x, y), radius=radius):
            return f"circle {x} {y} {radius}"


def _check(text: str) -> None:
    state = grammar.start()
    for position, character in enumerate(text):
        following = state.advance(character)
        if following is None:
            expected = f"one of {''.join(sorted(state.viable))!r}" if state.viable else "the end"
            raise CadError(f"{_place(text, position)}: {character!r}, where {expected} is expected")
        state = following
    if not state.finished:
        raise CadError(f"{_place(text, len(text))}: ends before it is whole")


def _place(text: str, position: int) -> str:
    before = text[:position]
    return f"text: line {before.count(chr(10)) + 1}, column {position - before.rfind(chr(10))}"


def _extrude(paths: tuple[Path, ...], fields: list[str]) -> Extrude:
    at = fields.index("at")
    px, py, pz, _, size, operation, *rest = fields[at + 1 :]
    extent = EXTENT_OF.get(rest[0], Extent.ONE_SIDE)
    one, *second = map(int, rest[extent is not Extent.ONE_SIDE :])
    return Extrude(
        paths=paths,
        angles=_angles(fields[:at]),
        origin=(int(px), int(py), int(pz)),
        size=int(size),
        distances=(one, second[0] if second else NO_DISTANCE),
        operation=OPERATION_OF[operation],
        extent=extent,
    )


def _angles(fields: list[str]) -> tuple[int, int, int]:
    if len(fields) == 1:
        return ANGLES_OF[fields[0]]
    theta, phi, gamma = map(int, fields)
    return theta, phi, gamma
