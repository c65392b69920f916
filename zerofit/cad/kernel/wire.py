"""What goes to a kernel's process and back: a line of JSON, and after that of a reply the bytes of an array."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from zerofit.cad.shape import Shape

_SHAPES = TypeAdapter(tuple[Shape, ...])


@dataclass(frozen=True)
class Request:
    """One of the worker's methods, the shapes that it is about, and its other arguments."""

    method: str
    shapes: tuple[Shape, ...]
    arguments: dict[str, int | str]


@dataclass(frozen=True)
class Reply:
    """A value or an array, or why there is none."""

    value: Any = None
    array: NDArray[Any] | None = None
    invalid: str | None = None


def pack_request(method: str, shapes: Sequence[Shape], arguments: dict[str, int | str]) -> bytes:
    """A request as a line."""
    content = {"method": method, "shapes": [asdict(shape) for shape in shapes], "arguments": arguments}
    return json.dumps(content).encode() + b"\n"


def unpack_request(line: bytes) -> Request:
    """The request of a line. Which curve a curve is, its fields say: pydantic takes the class that has most of them."""
    content = json.loads(line)
    return Request(content["method"], _SHAPES.validate_python(content["shapes"]), content["arguments"])


def pack_reply(reply: Reply) -> bytes:
    """A reply as a line and the bytes of its array."""
    array = reply.array
    form = None if array is None else {"type": array.dtype.str, "shape": array.shape}
    line = json.dumps({"value": reply.value, "invalid": reply.invalid, "array": form}).encode() + b"\n"
    return line if array is None else line + array.tobytes()


def following(line: bytes) -> int:
    """How many bytes come after the line of a reply."""
    form = json.loads(line)["array"]
    return 0 if form is None else np.dtype(form["type"]).itemsize * math.prod(form["shape"])


def unpack_reply(line: bytes, rest: bytes) -> Reply:
    """The reply of a line and of the bytes after it."""
    content = json.loads(line)
    form = content["array"]
    array = None if form is None else np.frombuffer(bytearray(rest), form["type"]).reshape(form["shape"])
    return Reply(content["value"], array, content["invalid"])
