"""Memory that ran out, as PyTorch, DeepSpeed and the system say it."""

from __future__ import annotations

import pytest

from zerofit.report.shortage import shortage

NEW = (
    "OutOfMemoryError: CUDA out of memory. Tried to allocate 12.00 GiB. GPU 3 has a total capacity of 139.80 GiB of "
    "which 1.17 GiB is free. Including non-PyTorch memory, this process has 138.62 GiB memory in use. Of the allocated "
    "memory 134.88 GiB is allocated by PyTorch, with 256.00 MiB allocated in private pools (e.g., CUDA Graphs), and "
    "2.13 GiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting "
    "PYTORCH_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
)
CAPPED = (
    "OutOfMemoryError: CUDA out of memory. Tried to allocate 64.00 KiB. GPU 0 has a total capacity of 10.75 GiB of "
    "which 9.00 GiB is free. Process 7 has 1.60 GiB memory in use. 1.00 GiB allowed; Of the allocated memory "
    "1023.94 MiB is allocated by PyTorch, and 0 bytes is reserved by PyTorch but unallocated."
)
OLD = (
    "RuntimeError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 10.76 GiB total capacity; 9.50 GiB already "
    "allocated; 14.44 MiB free; 9.73 GiB reserved in total by PyTorch)"
)
CPU = (
    "RuntimeError: [enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
    "to allocate 8589934592 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize(
    ("message", "of", "tried", "needed", "capacity"),
    [
        (NEW, "GPU", 12.0, 146.88, 139.8),
        (CAPPED, "GPU", 64 / 2**20, (64 / 1024 + 1023.94) / 1024, 10.75),
        (OLD, "GPU", 20 / 1024, 20 / 1024 + 9.5, 10.76),
        (CPU, "host", 8.0, None, None),
        ("MemoryError: Unable to allocate 1.50 TiB for an array with shape (3,)", "host", 1536.0, None, None),
        ("MemoryError: ", "host", None, None, None),
        ("AcceleratorError: CUDA error: out of memory\nCUDA kernel errors might be ...", "GPU", None, None, None),
        ("DistBackendError: NCCL error: unhandled cuda error, Cuda failure 2 'out of memory'", "GPU", None, None, None),
        ("OSError: [Errno 12] Cannot allocate memory", "host", None, None, None),
        ("killed by SIGKILL: most often by the kernel, out of memory", "host", None, None, None),
    ],
)
def test_amounts_are_read(
    message: str, of: str, tried: float | None, needed: float | None, capacity: float | None
) -> None:
    found = shortage(message)
    assert found is not None
    assert found.of == of
    for value, wanted in ((found.tried, tried), (found.needed, needed), (found.capacity, capacity)):
        assert value == (None if wanted is None else pytest.approx(wanted))


@pytest.mark.parametrize(
    "message",
    ["ValueError: the loss is nan", "RuntimeError: [../gloo/transport] Connection closed by peer", "", "roomy"],
)
def test_other_errors_are_not_of_memory(message: str) -> None:
    assert shortage(message) is None


def test_it_is_said_in_one_line() -> None:
    said = {message: shortage(message) for message in (NEW, CPU, "MemoryError: ")}
    assert said[NEW].words() == (  # type: ignore[union-attr]
        "12.00 GiB more could not be had of the GPU's memory, of which PyTorch held 134.88 GiB; it has 139.80 GiB"
    )
    assert said[CPU].words() == "8.00 GiB more could not be had of the host's memory"  # type: ignore[union-attr]
    assert said["MemoryError: "].words() == "the host's memory ran out"  # type: ignore[union-attr]
