"""What this machine offers, found without torch: nvidia-smi, and what CUDA_VISIBLE_DEVICES leaves of its list."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from zerofit.config.errors import UserError
from zerofit.plan.spec import Hardware

GIB = 2**30
QUERY = "index,uuid,name,memory.total,compute_cap,mig.mode.current"
MIG_LINE = re.compile(r"^\s+MIG\s+(?P<profile>\S+)\s+Device\s+\d+:\s+\(UUID:\s*(?P<uuid>MIG-[^)]+)\)")
GPU_LINE = re.compile(r"^GPU\s+(?P<index>\d+):")


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi lists it, or one of its MIG instances."""

    index: str
    uuid: str
    name: str
    memory_gib: float
    capability: tuple[int, int]
    divided: bool
    """A GPU in MIG mode: programs get one of its instances, never the whole."""


def detect() -> Hardware:
    """The GPUs that CUDA would show this process, or the CPU where there are none.

    The figures are those of the smallest GPU. `ZEROFIT_DEVICE=cpu` forces the CPU. Raises UserError for another
    ZEROFIT_DEVICE and for an nvidia-smi that does not answer.
    """
    forced = os.environ.get("ZEROFIT_DEVICE", "")
    if forced not in ("", "cpu"):
        raise UserError(f"ZEROFIT_DEVICE is {forced!r}: it takes cpu alone; unset it to use this machine's GPUs")
    gpus = [] if forced else _visible(_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    if not gpus:
        return cpu()
    smallest = min(gpus, key=lambda gpu: (gpu.memory_gib, gpu.capability))
    return Hardware(
        device="cuda",
        count=len(gpus),
        name=smallest.name,
        memory_gib=smallest.memory_gib,
        capability=min(gpu.capability for gpu in gpus),
        cpus=_cpus(),
    )


def cpu() -> Hardware:
    """This machine's CPU, whatever else there is."""
    return Hardware(
        device="cpu", count=1, name=_cpu_name(), memory_gib=host_memory_gib(), capability=None, cpus=_cpus()
    )


def uuids() -> list[str]:
    """NVML's names of the GPUs that CUDA would show this process, in its order where they are of one kind."""
    return [gpu.uuid for gpu in _visible(_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))]


def driver_version() -> str | None:
    """Of NVIDIA's driver; null where there is none."""
    rows = _nvidia_smi("--query-gpu=driver_version", "--format=csv,noheader")
    return rows[0].strip() if rows else None


def _gpus() -> list[Gpu]:
    """Every GPU that nvidia-smi lists, each one's MIG instances after it."""
    rows = _nvidia_smi(f"--query-gpu={QUERY}", "--format=csv,noheader,nounits")
    gpus = [_gpu(row) for row in rows]
    if not any(gpu.divided for gpu in gpus):
        return gpus
    return _with_instances(gpus, _nvidia_smi("-L"))


def _gpu(row: str) -> Gpu:
    try:
        index, uuid, name, memory, capability, mig = (field.strip() for field in row.split(","))
        major, minor = (int(part) for part in capability.split("."))
    except ValueError:
        raise UserError(
            f"cannot read nvidia-smi's line {row!r} as {QUERY}: set ZEROFIT_DEVICE=cpu to train without GPUs"
        ) from None
    # GPUs that share the host's memory report none of their own.
    memory_gib = float(memory) / 1024 if memory.isdigit() else host_memory_gib()
    return Gpu(index, uuid, name, round(memory_gib, 2), (major, minor), mig == "Enabled")


def _with_instances(gpus: list[Gpu], listing: list[str]) -> list[Gpu]:
    by_index = {gpu.index: gpu for gpu in gpus}
    found: list[Gpu] = []
    for line in listing:
        if whole := GPU_LINE.match(line):
            found.append(by_index[whole["index"]])
        elif (part := MIG_LINE.match(line)) and (size := re.search(r"(\d+)gb", part["profile"])):
            gpu = next(gpu for gpu in reversed(found) if not gpu.uuid.startswith("MIG-"))
            name = f"{gpu.name} MIG {part['profile']}"
            found.append(replace(gpu, uuid=part["uuid"], name=name, memory_gib=float(size[1]), divided=False))
    return found


def _visible(gpus: list[Gpu], wanted: str | None) -> list[Gpu]:
    """What CUDA shows: it stops at the first entry that it does not know, and shows one MIG instance at most."""
    whole = [gpu for gpu in gpus if not gpu.uuid.startswith("MIG-")]
    if wanted is None:
        chosen = whole
    else:
        chosen = []
        for entry in (part.strip() for part in wanted.split(",")):
            gpu = next((gpu for gpu in whole if gpu.index == entry), None)
            gpu = gpu or next((gpu for gpu in gpus if entry and gpu.uuid.startswith(entry)), None)
            if gpu is None:
                break
            chosen.append(gpu)
    instances = [
        part
        for gpu in chosen
        for part in gpus
        if part.uuid.startswith("MIG-") and (part is gpu or (gpu.divided and part.index == gpu.index))
    ]
    return instances[:1] or [gpu for gpu in chosen if not gpu.divided]


def _nvidia_smi(*arguments: str) -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        raise UserError(
            "nvidia-smi did not answer within 60 s: mend the driver, or set ZEROFIT_DEVICE=cpu to train without GPUs"
        ) from None
    return [line for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def _cpus() -> int:
    """Cores that this process may use, which a container or a batch system can make fewer than the host has."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _cpu_name() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def host_memory_gib() -> float:
    """Of the host, or of the container where that is less."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        limit = "max"
    return round(min(size, int(limit)) / GIB if limit != "max" else size / GIB, 2)
