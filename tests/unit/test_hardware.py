from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from zerofit.config.errors import UserError
from zerofit.plan.hardware import detect, uuids

MIXED = """\
0, GPU-aaaa1111-0000-0000-0000-000000000000, NVIDIA H100 80GB HBM3, 81559, 9.0, Disabled
1, GPU-bbbb2222-0000-0000-0000-000000000000, NVIDIA GeForce RTX 2080 Ti, 11264, 7.5, [N/A]
2, GPU-cccc3333-0000-0000-0000-000000000000, NVIDIA H100 80GB HBM3, 81559, 9.0, Disabled"""
DIVIDED = """\
0, GPU-aaaa1111-0000-0000-0000-000000000000, NVIDIA A100-SXM4-80GB, 81920, 8.0, Enabled
1, GPU-bbbb2222-0000-0000-0000-000000000000, NVIDIA A100-SXM4-80GB, 81920, 8.0, Disabled"""
DIVIDED_LIST = """\
GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-aaaa1111-0000-0000-0000-000000000000)
  MIG 3g.40gb     Device  0: (UUID: MIG-11111111-0000-5000-8000-000000000000)
  MIG 1g.10gb+me  Device  1: (UUID: MIG-22222222-0000-5000-8000-000000000000)
GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-bbbb2222-0000-0000-0000-000000000000)"""


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH that holds only what the test puts there."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("ZEROFIT_DEVICE", raising=False)
    return tmp_path


def install(machine: Path, query: str, listing: str = "", status: int = 0) -> None:
    (machine / "query").write_text(query + "\n")
    (machine / "listing").write_text(listing + "\n")
    script = f"""#!/bin/sh
case "$1" in -L) file=listing ;; --query-gpu=*) file=query ;; *) exit 6 ;; esac
while IFS= read -r line; do echo "$line"; done < "{machine}/$file"
exit {status}
"""
    (machine / "nvidia-smi").write_text(script)
    (machine / "nvidia-smi").chmod(0o755)


def test_no_nvidia_smi_is_the_cpu() -> None:
    found = detect()
    assert (found.device, found.count, found.capability) == ("cpu", 1, None)
    assert found.memory_gib > 0
    assert found.cpus >= 1
    assert found.name


def test_an_nvidia_smi_without_a_driver_or_without_gpus_is_the_cpu(machine: Path) -> None:
    install(machine, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", status=9)
    assert detect().device == "cpu"
    install(machine, "")
    assert detect().device == "cpu"


def test_all_gpus_count_and_the_smallest_is_described(machine: Path) -> None:
    install(machine, MIXED)
    found = detect()
    assert (found.device, found.count, found.name) == ("cuda", 3, "NVIDIA GeForce RTX 2080 Ti")
    assert found.memory_gib == 11.0
    assert found.capability == (7, 5)


@pytest.mark.parametrize(
    ("visible", "count", "capability"),
    [
        ("0", 1, (9, 0)),
        ("2,1", 2, (7, 5)),
        ("0, 2", 2, (9, 0)),
        ("0,7,2", 1, (9, 0)),  # CUDA stops at the first that does not exist
        ("GPU-cccc3333-0000-0000-0000-000000000000", 1, (9, 0)),
        ("GPU-bbbb,GPU-aaaa1111", 2, (7, 5)),  # abbreviated
    ],
)
def test_cuda_visible_devices_by_index_and_by_uuid(
    machine: Path, monkeypatch: pytest.MonkeyPatch, visible: str, count: int, capability: tuple[int, int]
) -> None:
    install(machine, MIXED)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = detect()
    assert (found.count, found.capability) == (count, capability)
    assert [uuid.split("-")[0] for uuid in uuids()] == ["GPU"] * count


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles", "GPU-dddd"])
def test_cuda_visible_devices_that_leave_none(machine: Path, monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    install(machine, MIXED)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert detect().device == "cpu"


@pytest.mark.parametrize(
    ("visible", "memory", "name"),
    [
        (None, 40.0, "MIG 3g.40gb"),
        ("0", 40.0, "MIG 3g.40gb"),
        ("MIG-22222222-0000-5000-8000-000000000000", 10.0, "MIG 1g.10gb+me"),
        ("MIG-22222222-0000-5000-8000-000000000000,MIG-11111111-0000-5000-8000-000000000000", 10.0, "MIG 1g.10gb+me"),
    ],
)
def test_of_mig_instances_cuda_shows_one(
    machine: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, memory: float, name: str
) -> None:
    install(machine, DIVIDED, DIVIDED_LIST)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = detect()
    assert (found.device, found.count, found.memory_gib, found.capability) == ("cuda", 1, memory, (8, 0))
    assert found.name.endswith(name)


def test_the_whole_gpu_beside_a_divided_one(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(machine, DIVIDED, DIVIDED_LIST)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert detect().memory_gib == 80.0


def test_a_gpu_that_shares_the_hosts_memory(machine: Path) -> None:
    install(machine, "0, GPU-aaaa, NVIDIA GB10, [N/A], 12.1, [N/A]")
    found = detect()
    assert found.capability == (12, 1)
    assert found.memory_gib > 0


def test_the_environment_can_force_the_cpu_and_nothing_else(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(machine, MIXED)
    monkeypatch.setenv("ZEROFIT_DEVICE", "cpu")
    assert detect().device == "cpu"
    monkeypatch.setenv("ZEROFIT_DEVICE", "gpu")
    with pytest.raises(UserError, match="ZEROFIT_DEVICE is 'gpu': it takes cpu alone"):
        detect()


def test_an_nvidia_smi_that_cannot_be_used_is_named(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(machine, "0, GPU-aaaa, Odd GPU")
    with pytest.raises(UserError, match=r"cannot read nvidia-smi's line '0, GPU-aaaa, Odd GPU'"):
        detect()

    def hangs(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("nvidia-smi", 60)

    monkeypatch.setattr(subprocess, "run", hangs)
    with pytest.raises(UserError, match="did not answer within 60 s"):
        detect()
