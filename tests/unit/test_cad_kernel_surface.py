"""Points, pictures and files of known solids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cad_solids import COMMON, CUBE, PLATE, block, box, disc, extrusion, rectangle, shape, stl_triangles
from PIL import Image

from zerofit.cad.kernel import Invalid, Kernel, Solid
from zerofit.cad.kernel.kernel import VIEWS
from zerofit.cad.shape import Shape
from zerofit.config.errors import UserError

NOTHING = shape(block((0, 0, 0), (1, 1, 1)), block((2, 0, 0), (3, 1, 1), COMMON))


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel() as one:
        yield one


def test_points_of_a_cube_lie_on_its_sides_and_look_outward(kernel: Kernel) -> None:
    cloud = kernel.points(CUBE, 6000, seed=3)
    assert not isinstance(cloud, Invalid)
    assert (cloud.dtype, cloud.shape) == (np.float32, (6000, 6))
    places, normals = cloud[:, :3], cloud[:, 3:]
    side = np.argmax(np.abs(normals), axis=1)
    outward = np.take_along_axis(normals, side[:, None], 1)[:, 0]
    assert np.array_equal(np.abs(outward), np.ones(6000))
    assert np.take_along_axis(places, side[:, None], 1)[:, 0] == pytest.approx((outward + 1) / 2, abs=1e-7)
    sides = Counter(zip(side.tolist(), outward.tolist(), strict=True))
    assert len(sides) == 6
    assert all(abs(count - 1000) < 5 * 1000**0.5 for count in sides.values())
    for axis in range(3):
        within = places[side != axis, axis]
        assert np.histogram(within, 10, (0, 1))[0] == pytest.approx(400, abs=5 * 20)


def test_points_of_a_round_part_lie_on_it_and_not_on_its_triangles(kernel: Kernel) -> None:
    """A hole's points are on its circle exactly and look into it; flat points are in no hole, but for its triangles."""
    cloud = kernel.points(PLATE, 4000, seed=0)
    assert not isinstance(cloud, Invalid)
    x, y, z, *_ = cloud.T.astype(np.float64)
    across = cloud[:, 3:5]
    flat = np.abs(cloud[:, 5]) == 1
    assert np.isin(z[flat], (0, 1)).all()
    for center, radius in (((1, 1), 0.5), ((3, 2), 0.25)):
        away = np.stack([x, y], 1) - center
        distance = np.linalg.norm(away, axis=1)
        here = ~flat & (distance < radius * 1.1)
        assert here.sum() > 30
        assert distance[here] == pytest.approx(radius, abs=1e-6)
        assert np.einsum("nc,nc->n", across[here], away[here] / radius) == pytest.approx(-1, abs=5e-6)  # float32
        assert distance[flat].min() > radius * (1 - 4e-4)
    round_share = 2 * np.pi * 0.75 / (2 * (12 - np.pi * 0.3125) + 14 + 2 * np.pi * 0.75)
    sides = ~flat & (np.minimum.reduce([x, 4 - x, y, 3 - y]) > 0.01)
    assert sides.mean() == pytest.approx(round_share, abs=5 * (round_share / 4000) ** 0.5)


def test_points_follow_their_seed_whatever_was_asked_before(kernel: Kernel) -> None:
    one = kernel.points(PLATE, 100, seed=1)
    kernel.render(PLATE, 16, 0)
    kernel.measure(CUBE)
    kernel.iou(PLATE, CUBE)
    assert np.array_equal(one, kernel.points(PLATE, 100, seed=1))
    assert not np.array_equal(one, kernel.points(PLATE, 100, seed=2))
    with Kernel() as other:
        assert np.array_equal(one, other.points(PLATE, 100, seed=1))


def test_a_picture_shows_the_whole_part_on_white(kernel: Kernel) -> None:
    """A cube from a corner: a hexagon in the middle, its outline dark, three sides in three shades, the same again."""
    for view in range(VIEWS):
        picture = kernel.render(CUBE, 96, view)
        assert not isinstance(picture, Invalid)
        assert (picture.dtype, picture.shape) == (np.uint8, (96, 96, 3))
        part = (picture != 255).any(axis=2)
        hexagon = 3**0.5 * 96**2 / (3 * 1.04**2)  # of the cube's projection, over its diagonal squared
        assert part.sum() == pytest.approx(hexagon, rel=0.05)
        assert np.argwhere(part).mean(axis=0) == pytest.approx([47.5, 47.5], abs=0.6)
        shades = Counter(map(tuple, picture[part].tolist())).most_common(3)
        assert len(shades) == 3
        assert sum(count for _, count in shades) > 0.75 * part.sum()
        assert np.array_equal(picture, kernel.render(CUBE, 96, view))


def test_each_side_of_a_part_is_seen_in_some_view(kernel: Kernel) -> None:
    """A pit in one side of a cube, and no other, changes a picture."""
    for axis in range(3):
        for at in (0.0, 0.9):
            low, high = np.full(3, 0.4), np.full(3, 0.6)
            low[axis], high[axis] = at, at + 0.1
            pit = block(tuple(low), tuple(high), operation=2)  # type: ignore[arg-type]
            changed = [
                not np.array_equal(kernel.render(CUBE, 64, view), kernel.render(shape(*CUBE.extrusions, pit), 64, view))
                for view in range(VIEWS)
            ]
            assert sum(changed) == 2


def test_an_stl_is_watertight_and_has_the_volume(kernel: Kernel, tmp_path: Path) -> None:
    assert kernel.write(PLATE, tmp_path / "plate.stl") is None
    corners = stl_triangles((tmp_path / "plate.stl").read_bytes())
    edges = Counter((tuple(triangle[at]), tuple(triangle[at - 1])) for triangle in corners.tolist() for at in range(3))
    assert all(edges[end, start] == count == 1 for (start, end), count in edges.items())
    double = corners.astype(np.float64)
    volume = np.einsum("nc,nc->n", double[:, 0], np.cross(double[:, 1], double[:, 2])).sum() / 6
    assert volume == pytest.approx(12 - np.pi * 0.3125, rel=1e-4)


def test_a_step_that_is_read_back_has_the_volume(kernel: Kernel, tmp_path: Path) -> None:
    from OCP.BRepGProp import BRepGProp
    from OCP.GProp import GProp_GProps
    from OCP.IFSelect import IFSelect_RetDone
    from OCP.STEPControl import STEPControl_Reader

    assert kernel.write(PLATE, tmp_path / "plate.step") is None
    reader, properties = STEPControl_Reader(), GProp_GProps()
    assert reader.ReadFile(str(tmp_path / "plate.step")) == IFSelect_RetDone
    reader.TransferRoots()
    BRepGProp.VolumeProperties_s(reader.OneShape(), properties)
    measured = kernel.measure(PLATE)
    assert isinstance(measured, Solid)
    assert properties.Mass() == pytest.approx(measured.volume, rel=1e-9)


def test_a_png_is_the_first_view(kernel: Kernel, tmp_path: Path) -> None:
    assert kernel.write(PLATE, tmp_path / "plate.png") is None
    with Image.open(tmp_path / "plate.png") as picture:
        assert np.array_equal(np.asarray(picture), kernel.render(PLATE, 512, 0))


def test_what_cannot_be_written_leaves_no_file(kernel: Kernel, tmp_path: Path) -> None:
    assert isinstance(kernel.write(NOTHING, tmp_path / "nothing.step"), Invalid)
    with pytest.raises(UserError, match=r"part.obj: a CAD model is written as one of .step, .stl, .png"):
        kernel.write(CUBE, tmp_path / "part.obj")
    with pytest.raises(FileNotFoundError):
        kernel.write(CUBE, tmp_path / "nowhere" / "part.stl")
    assert list(tmp_path.iterdir()) == []


def test_a_part_is_invalid_whatever_is_asked(kernel: Kernel) -> None:
    reason = Invalid("extrusion 2: nothing is left of the body")
    answers = [kernel.measure(NOTHING), kernel.points(NOTHING, 9, 0), kernel.render(NOTHING, 9, 0)]
    assert [*answers, kernel.iou(CUBE, NOTHING)] == [reason] * 4


def test_a_batch_comes_in_order_from_all_workers() -> None:
    parts = [box((0, 0, 0), (1, 1, height)) for height in range(1, 12)]
    parts.insert(4, NOTHING)
    done: list[int] = []

    def volume(part: Shape) -> float | None:
        measured = kernel.measure(part)
        return measured.volume if isinstance(measured, Solid) else None

    with Kernel(workers=2) as kernel:
        found = list(kernel.map(volume, parts, done.append))
        first = next(kernel.map(volume, iter(parts)))
    assert found.pop(4) is None
    assert found == pytest.approx(list(range(1, 12)))
    assert done == list(range(1, 13))
    assert first == found[0]


def test_many_holes_are_all_there(kernel: Kernel) -> None:
    holes = [disc(x + 0.5, y + 0.5, 0.25) for x in range(6) for y in range(6)]
    measured = kernel.measure(shape(extrusion(rectangle((0, 0), (6, 6)), *holes)))
    assert isinstance(measured, Solid)
    assert measured.volume == pytest.approx(36 * (1 - np.pi / 16), rel=1e-5)
