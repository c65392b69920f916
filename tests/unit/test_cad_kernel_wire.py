"""What a kernel's process is told and says arrives as it was."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerofit.cad.kernel.wire import Reply, Request, following, pack_reply, pack_request, unpack_reply, unpack_request
from zerofit.cad.shape import Arc, Circle, Extent, Extrusion, Frame, Line, Loop, Operation, Shape

NUMBERS = st.floats(allow_nan=False)
PLACES = st.tuples(NUMBERS, NUMBERS)
VECTORS = st.tuples(NUMBERS, NUMBERS, NUMBERS)
CURVES = st.builds(Line, PLACES, PLACES) | st.builds(Arc, PLACES, PLACES, PLACES) | st.builds(Circle, PLACES, NUMBERS)
LOOPS = st.builds(Loop, st.lists(CURVES, max_size=3).map(tuple))
FRAMES = st.builds(Frame, VECTORS, VECTORS, VECTORS, VECTORS)
EXTRUSIONS = st.builds(
    Extrusion,
    FRAMES,
    st.lists(LOOPS, max_size=2).map(tuple),
    PLACES,
    st.sampled_from(Operation),
    st.sampled_from(Extent),
)
SHAPES = st.builds(Shape, st.lists(EXTRUSIONS, max_size=2).map(tuple))


@given(st.lists(SHAPES, max_size=2).map(tuple))
def test_a_request_arrives_to_the_last_bit(shapes: tuple[Shape, ...]) -> None:
    line = pack_request("points", shapes, {"count": 3})
    assert line.index(b"\n") == len(line) - 1
    assert unpack_request(line) == Request("points", shapes, {"count": 3})


def test_what_is_not_a_number_arrives_too() -> None:
    frame = Frame(*[(math.nan, math.inf, 0.0)] * 4)
    request = unpack_request(pack_request("measure", [Shape((Extrusion(frame, (), (1, 0), *(0, 0)),))], {}))  # type: ignore[arg-type]
    assert math.isnan(request.shapes[0].extrusions[0].frame.origin[0])


@pytest.mark.parametrize("array", [np.arange(12, dtype=np.float32).reshape(2, 6), np.zeros((0, 6)), np.zeros(3, ">u2")])
def test_an_array_arrives_whole_and_may_be_written_to(array: np.ndarray) -> None:
    packed = pack_reply(Reply(array=array))
    line, rest = packed[: packed.index(b"\n") + 1], packed[packed.index(b"\n") + 1 :]
    assert following(line) == len(rest)
    found = unpack_reply(line, rest).array
    assert found is not None
    assert (found.dtype, found.flags.writeable) == (array.dtype, True)
    assert np.array_equal(found, array)
