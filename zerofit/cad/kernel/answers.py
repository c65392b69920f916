"""What a process of the kernel can be asked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zerofit.cad.kernel.build import build
from zerofit.cad.kernel.files import content
from zerofit.cad.kernel.measure import iou, measure
from zerofit.cad.kernel.surface import points
from zerofit.cad.kernel.wire import Reply, Request


def answer(request: Request) -> Reply:
    """The reply to a request. Raises CadError, or what OpenCASCADE raises."""
    body, *others = [build(shape) for shape in request.shapes]
    arguments: dict[str, Any] = dict(request.arguments)
    match request.method:
        case "measure":
            return Reply(value=measure(body))
        case "iou":
            return Reply(value=iou(body, *others))
        case "points":
            return Reply(array=points(body, **arguments))
        case "render":
            from zerofit.cad.kernel.picture import render  # Embree is not there on every machine

            return Reply(array=render(body, **arguments))
    assert request.method == "content", request.method
    file: NDArray[np.uint8] = np.frombuffer(content(body, **arguments), np.uint8)
    return Reply(array=file)
