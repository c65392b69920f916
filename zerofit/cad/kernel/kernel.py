"""The kernel: what OpenCASCADE makes of a shape, asked from outside the processes in which it works."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from zerofit.cad.kernel.process import Process
from zerofit.cad.kernel.results import Invalid, Solid
from zerofit.cad.kernel.wire import Reply, pack_request
from zerofit.cad.shape import Shape
from zerofit.config.errors import UserError

VIEWS = 4
"""From the corners of a tetrahedron, so that each side of a part is seen: 0 and 1 from above, 2 and 3 from below."""
SUFFIXES = (".step", ".stl", ".png")
MEBIBYTES = 4096
"""Of address space for each process, which begins with 650."""
PICTURES = "a picture of a CAD model needs Embree (which has no wheel for Linux on ARM)"

Item = TypeVar("Item")
Result = TypeVar("Result")


class Kernel:
    """A context manager that owns `workers` processes. Threads may share it; a forked process may not use it.

    `timeout_s` is for one call: seconds of processor time (on the clock, five times as many). All geometry is in the
    shape's own units. What crashes OpenCASCADE, hangs it or needs more than 4 GiB is Invalid; the next call is served
    by a new process. Two calls in a row about one shape build it once. Raises UserError without the extra `cad`.
    """

    program = "zerofit.cad.kernel.worker"
    """The module that each process runs."""

    def __init__(self, timeout_s: float = 20.0, workers: int = 1) -> None:
        _check_installed("OCP", "what makes solids of sequences needs OpenCASCADE")
        _check_installed("manifold3d", "what makes solids of sequences needs Manifold")
        self.workers = workers
        self._free: list[tuple[Process, Shape | None]] = [
            (Process(self.program, timeout_s, MEBIBYTES), None) for _ in range(workers)
        ]
        self._change = threading.Condition()

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, after the calls that are underway."""
        with self._change:
            self._change.wait_for(lambda: len(self._free) == self.workers)
            for process, _ in self._free:
                process.end()

    def measure(self, shape: Shape) -> Solid | Invalid:
        """Volume, area, bounding box, and how many faces and bodies there are."""
        reply = self._ask("measure", shape)
        if isinstance(reply, Invalid):
            return reply
        low, high = (tuple(corner) for corner in reply.value.pop("box"))
        return Solid(box=(low, high), **reply.value)

    def points(self, shape: Shape, count: int, seed: int) -> NDArray[np.float32] | Invalid:
        """float32 [count, 6]: points on the surface, uniform in its area, and their outward unit normals.

        The same for the same shape, count and seed.
        """
        return self._array("points", shape, count=count, seed=seed)

    def render(self, shape: Shape, size: int, view: int) -> NDArray[np.uint8] | Invalid:
        """uint8 [size, size, 3]: a shaded picture on white with edges drawn; parallel projection, the whole part in it.

        `view` counts from 0; see VIEWS.
        """
        assert 0 <= view < VIEWS, view
        _check_installed("embreex", PICTURES)
        return self._array("render", shape, size=size, view=view)

    def iou(self, a: Shape, b: Shape) -> float | Invalid:
        """Volume of what both have over the volume of what either has, where they lie: nothing is aligned."""
        reply = self._ask("iou", a, b)
        return reply if isinstance(reply, Invalid) else float(reply.value)

    def write(self, shape: Shape, path: Path) -> Invalid | None:
        """Write a .step (whose millimetres are the shape's units), a .stl (binary) or a .png (view 0, 512 pixels).

        The file is whole or not there. Raises UserError for another suffix, OSError where it cannot be written.
        """
        if path.suffix not in SUFFIXES:
            raise UserError(f"{path}: a CAD model is written as one of {', '.join(SUFFIXES)}")
        if path.suffix == ".png":
            _check_installed("embreex", PICTURES)
        content = self._array("content", shape, suffix=path.suffix)
        if isinstance(content, Invalid):
            return content
        part = path.with_name(f"{path.name}.part")
        part.write_bytes(content.tobytes())
        part.replace(path)
        return None

    def map(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        progress: Callable[[int], None] = lambda done: None,
    ) -> Iterator[Result]:
        """What `function`, which asks this kernel, gives for each item, in their order, by all workers at once.

        Few items are worked on ahead of the one that is taken. `progress` is called with how many are done.
        """
        underway: deque[Future[Result]] = deque()
        done = 0
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="cad-kernel")
        try:
            for item in items:
                underway.append(pool.submit(function, item))
                if len(underway) > 2 * self.workers:
                    yield underway.popleft().result()
                    progress(done := done + 1)
            while underway:
                yield underway.popleft().result()
                progress(done := done + 1)
        finally:
            pool.shutdown(cancel_futures=True)

    def _array(self, method: str, shape: Shape, **arguments: int | str) -> NDArray[Any] | Invalid:
        reply = self._ask(method, shape, **arguments)
        if isinstance(reply, Invalid):
            return reply
        assert reply.array is not None
        return reply.array

    def _ask(self, method: str, *shapes: Shape, **arguments: int | str) -> Reply | Invalid:
        request = pack_request(method, shapes, arguments)
        with self._borrowed(shapes[0]) as process:
            return process.ask(request)

    @contextmanager
    def _borrowed(self, shape: Shape) -> Iterator[Process]:
        """A free process, if possible the one that has built this shape."""
        with self._change:
            self._change.wait_for(lambda: len(self._free) > 0)
            at = next((at for at, (_, last) in enumerate(self._free) if last == shape), -1)
            process, _ = self._free.pop(at)
        try:
            yield process
        finally:
            with self._change:
                self._free.append((process, shape))
                self._change.notify_all()


def _check_installed(module: str, who: str) -> None:
    if find_spec(module) is None:
        raise UserError(f"{who}: pip install 'zerofit[cad]'")
