"""A shape that crashes the CAD kernel, hangs it or fills the memory is Invalid, and those after it are served."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from zerofit.cad.kernel import Invalid, Kernel, Solid
from zerofit.cad.shape import Circle, Extent, Extrusion, Frame, Line, Loop, Operation, Shape
from zerofit.config.errors import UserError

FRAME = Frame((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
DISC = Extrusion(FRAME, (Loop((Circle((0.0, 0.0), 1.0),)),), (1.0, 0.0), Operation.NEW_BODY, Extent.ONE_SIDE)
GOOD = Shape((DISC,))
SEGFAULT, ABORT, KILLED, SPIN, SLEEP, HOARD, ERROR = (Shape((DISC,) * number) for number in range(10, 17))


class Broken(Kernel):
    program = "broken_kernel"


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    monkeypatch.setenv("PYTHONPATH", path)


@pytest.fixture
def kernel() -> Iterator[Broken]:
    with Broken(timeout_s=1.0) as one:
        yield one


def workers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "zerofit.cad.kernel.worker" in child.cmdline()]


FAULTS = {
    "segfault": (SEGFAULT, "OpenCASCADE's process was ended by SIGSEGV"),
    "abort": (ABORT, "OpenCASCADE's process was ended by SIGABRT"),
    "kill": (KILLED, "OpenCASCADE's process was ended by SIGKILL"),
    "spin": (SPIN, "OpenCASCADE took more than 1 s of processor time"),
    "sleep": (SLEEP, "OpenCASCADE took more than 5 s"),
    "hoard": (HOARD, "OpenCASCADE needs more than 4096 MiB"),
}


@pytest.mark.parametrize(("part", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_invalid_and_the_next_shape_is_served(kernel: Broken, part: Shape, reason: str) -> None:
    before = kernel.measure(GOOD)
    assert isinstance(before, Solid)
    assert kernel.measure(part) == Invalid(reason)
    assert kernel.measure(GOOD) == before


def test_faults_in_a_batch_cost_the_others_nothing() -> None:
    parts = [GOOD, SEGFAULT, GOOD, GOOD, KILLED, ABORT, GOOD, GOOD]
    with Broken(workers=2) as kernel:
        found = list(kernel.map(kernel.measure, parts))
    assert [isinstance(one, Solid) for one in found] == [part is GOOD for part in parts]


def test_a_mistake_of_the_program_is_not_taken_for_a_bad_shape(
    kernel: Broken, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError, match="exit status 1"):
        kernel.measure(ERROR)
    assert "LookupError: a mistake in the program" in capfd.readouterr().err
    assert isinstance(kernel.measure(GOOD), Solid)


def test_the_real_process_is_killed_between_and_during_requests() -> None:
    """kill -9 while it waits costs nothing; while it works, the shape that it works on; nor does a stop hold us up."""
    holes = tuple(Loop((Circle((x / 40, y / 40), 0.01),)) for x in range(-20, 21) for y in range(-20, 21))
    square = Loop(
        tuple(Line(a, b) for a, b in ((((-1, -1)), (1, -1)), ((1, -1), (1, 1)), ((1, 1), (-1, 1)), ((-1, 1), (-1, -1))))
    )
    slow = Shape((Extrusion(FRAME, (square, *holes), (1.0, 0.0), Operation.NEW_BODY, Extent.ONE_SIDE),))
    with Kernel(timeout_s=0.5) as kernel:
        first = kernel.measure(GOOD)
        (worker,) = workers()
        worker.kill()
        worker.wait()
        assert kernel.measure(GOOD) == first
        (worker,) = workers()
        worker.suspend()
        assert kernel.measure(slow) == Invalid("OpenCASCADE took more than 2.5 s")
        assert kernel.measure(slow) == Invalid("OpenCASCADE took more than 0.5 s of processor time")
    with Kernel() as kernel:
        assert kernel.measure(GOOD) == first
        (worker,) = workers()
        found: list[Solid | Invalid] = []
        asking = threading.Thread(target=lambda: found.append(kernel.measure(slow)))
        asking.start()
        busy = worker.cpu_times().user
        while worker.cpu_times().user < busy + 0.1:
            pass
        worker.send_signal(signal.SIGSEGV)
        asking.join()
        assert found == [Invalid("OpenCASCADE's process was ended by SIGSEGV")]
        assert kernel.measure(GOOD) == first
    assert workers() == []


def test_a_process_ends_with_whoever_asked_even_when_that_is_killed() -> None:
    script = (
        "from zerofit.cad.kernel import Kernel\nfrom test_cad_kernel import GOOD, workers\n"
        "kernel = Kernel()\nkernel.measure(GOOD)\nprint(workers()[0].pid, flush=True)\ninput()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        worker = psutil.Process(int(asking.stdout.readline()))
        asking.kill()
        worker.wait(30)


def test_an_interrupt_leaves_no_reply_behind_for_the_next_request() -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Broken() as kernel:
            kernel.measure(GOOD)
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(KeyboardInterrupt):
                kernel.measure(SLEEP)
            cloud = kernel.points(GOOD, 10, 0)
            assert isinstance(cloud, np.ndarray)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_request_that_nobody_reads_does_not_hold_us_up() -> None:
    """One that is longer than a pipe, to a process that is stopped."""
    long = Shape((DISC,) * 2000)
    with Kernel(timeout_s=0.2) as kernel:
        kernel.measure(GOOD)
        workers()[0].suspend()
        assert kernel.measure(long) == Invalid("OpenCASCADE took more than 1 s")
        assert isinstance(kernel.measure(GOOD), Solid)


def test_without_the_extra_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zerofit.cad.kernel.kernel.find_spec", lambda module: None)
    with pytest.raises(UserError, match=r"needs OpenCASCADE: pip install 'zerofit\[cad\]'"):
        Kernel()


def test_a_library_of_the_system_that_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "OCP").mkdir()
    (tmp_path / "OCP" / "__init__.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
    with Kernel() as kernel, pytest.raises(UserError, match=r"libGL.so.1: cannot open .*apt install libgl1"):
        kernel.measure(GOOD)
