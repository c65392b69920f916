"""`zerofit doctor`: what of this machine would be in the way of a run, before there is one."""

from __future__ import annotations

import importlib.metadata
import os
import resource
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import date
from pathlib import Path

import psutil

from zerofit.config.errors import UserError
from zerofit.launch import ops_cache
from zerofit.plan.calibration_file import default_root, stored
from zerofit.plan.diagnosis import Check, Diagnosis, Status
from zerofit.plan.hardware import GIB, cpu, detect, driver_version, host_memory_gib
from zerofit.plan.host_memory import PROCESS
from zerofit.plan.spec import Hardware
from zerofit.plan.versions import ranges

WITHOUT = ("deepspeed",)
"""Libraries without which some runs go all the same."""
LIBRARIES = ("torch", "transformers", "accelerate", "deepspeed", "trl", "peft", "datasets", "kornia")
"""Whose releases have changed numbers, or names that we use."""
SHARED_GIB = 1.0
"""Of /dev/shm: NCCL takes some 30 MiB a rank, and loaders hand batches on in it."""
LEAST_GIB, ROOM_GIB = 0.1, 10.0
"""Of a drive: with less than the first nothing can be written, with less than the second a checkpoint may not fit."""
FILES = 4096
"""Open files: loaders' workers hand every tensor on as one."""
OLD_DAYS = 180
"""After which measured rates are to be measured again: drivers and libraries have changed by then."""


def diagnose(environ: Mapping[str, str] | None = None) -> Diagnosis:
    """All checks of this machine, as it is for this process. Nothing is changed."""
    environ = os.environ if environ is None else environ
    checks, hardware = [], cpu()
    try:
        hardware = detect()
    except UserError as error:
        checks.append(Check(name="GPUs", status="error", found="not known", advice=str(error)))
    else:
        checks.append(_devices(hardware))
    checks += [*_libraries(), *_ops(hardware, environ), *_memory(hardware), *_drives(environ), *_limits()]
    checks += _rates(hardware, environ)
    return Diagnosis(checks=tuple(checks))


def _devices(hardware: Hardware) -> Check:
    """GPUs, and whether PyTorch can use them."""
    if hardware.device == "cpu":
        return Check(name="GPUs", status="ok", found=f"none; the CPU, {hardware.name}, {hardware.cpus} cores")
    import torch

    capability = hardware.capability or (0, 0)
    found = (
        f"{hardware.count} x {hardware.name}, {hardware.memory_gib:g} GiB, compute capability "
        f"{capability[0]}.{capability[1]}; driver {driver_version() or 'unknown'}, CUDA {torch.version.cuda or 'none'}"
    )
    usable = torch.cuda.device_count()
    if usable < hardware.count:
        status: Status = "error" if usable == 0 else "warning"
        advice = (
            f"PyTorch {torch.__version__} can use {usable} of them: install a PyTorch that fits the driver, or set "
            "ZEROFIT_DEVICE=cpu"
        )
        return Check(name="GPUs", status=status, found=found, advice=advice)
    if not built_for(capability, torch.cuda.get_arch_list()):
        advice = f"PyTorch {torch.__version__} has no kernels for them: install one that has"
        return Check(name="GPUs", status="error", found=found, advice=advice)
    return Check(name="GPUs", status="ok", found=found)


def built_for(capability: tuple[int, int], architectures: list[str]) -> bool:
    """Whether kernels for `sm_80` or `compute_90` run on a GPU of this capability: of its major version, or as PTX."""
    for one in architectures:
        kind, _, number = one.rstrip("af").partition("_")
        if not number.isdigit():
            continue
        major, minor = int(number[:-1]), int(number[-1])
        if (kind == "sm" and major == capability[0] and minor <= capability[1]) or (
            kind == "compute" and (major, minor) <= capability
        ):
            return True
    return False


def _libraries() -> Iterator[Check]:
    """Versions against what this release asks for, one line for all that are as they should be."""
    asked, fine = ranges(), list[str]()
    for name in LIBRARIES:
        if name not in asked:
            continue
        wanted = asked[name].specifier
        install = f"pip install '{name}{wanted}'"
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            status: Status = "warning" if name in WITHOUT else "error"
            more = "; single, ddp and fsdp2 work without it" if name in WITHOUT else ""
            yield Check(name=name, status=status, found="not installed", advice=install + more)
            continue
        if wanted.contains(version, prereleases=True):
            fine.append(f"{name} {version}")
        else:
            found = f"{version}, which this release is not made for ({wanted})"
            yield Check(name=name, status="warning", found=found, advice=install)
    yield Check(name="libraries", status="ok", found=", ".join(fine) or "none is known")


def _ops(hardware: Hardware, environ: Mapping[str, str]) -> Iterator[Check]:
    """Whether DeepSpeed could build its CUDA operators: zeropp and offload to NVMe need some."""
    cache = ops_cache.directory(environ)
    stale = ops_cache.stale_locks(cache)
    if stale:
        yield Check(
            name="DeepSpeed's operators",
            status="warning",
            found=f"a build was killed and has left {stale[0]}",
            advice="nothing: the next run under DeepSpeed removes it",
        )
    if hardware.device == "cpu":
        return
    tools = {"a C++ compiler": environ.get("CXX") or "c++", "ninja": "ninja", "nvcc": _nvcc(environ)}
    lacking = [what for what, program in tools.items() if shutil.which(program, path=environ.get("PATH")) is None]
    if lacking:
        yield Check(
            name="DeepSpeed's operators",
            status="warning",
            found=f"cannot be built without {', '.join(lacking)}",
            advice="strategy zeropp and offload to NVMe need them; install what is missing, and set CUDA_HOME",
        )
    elif not stale:
        yield Check(name="DeepSpeed's operators", status="ok", found=f"can be built, in {cache}")


def _nvcc(environ: Mapping[str, str]) -> str:
    home = environ.get("CUDA_HOME") or environ.get("CUDA_PATH")
    return str(Path(home, "bin", "nvcc")) if home else "nvcc"


def _memory(hardware: Hardware) -> Iterator[Check]:
    """Of the host, and what of it processes share."""
    free = min(psutil.virtual_memory().available / GIB, host_memory_gib())
    ranks = hardware.count if hardware.device == "cuda" else 1
    needed = PROCESS * ranks if hardware.device == "cuda" else 1.0
    found = f"{free:.1f} of {host_memory_gib():.1f} GiB free"
    status: Status = "ok" if free >= needed else "warning"
    advice = "" if status == "ok" else f"{ranks} ranks take {needed:.1f} GiB before they hold anything: free some"
    yield Check(name="host memory", status=status, found=found, advice=advice)
    with suppress(OSError):  # not Linux
        shared = shutil.disk_usage("/dev/shm")
        little = shared.free < SHARED_GIB * GIB
        yield Check(
            name="/dev/shm",
            status="warning" if little else "ok",
            found=f"{shared.free / GIB:.2f} of {shared.total / GIB:.2f} GiB free",
            advice="NCCL and loaders' workers need it: in a container, docker run --shm-size=8g" if little else "",
        )


def _drives(environ: Mapping[str, str]) -> Iterator[Check]:
    """Where runs and caches are written."""
    cache = default_root(environ).parent
    for name, path in (("runs", Path("runs")), ("cache", cache), ("operators' cache", ops_cache.directory(environ))):
        there = next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
        free = shutil.disk_usage(there).free / GIB
        found = f"{free:,.1f} GiB free at {path}"
        status, advice = drive(free, os.access(there, os.W_OK | os.X_OK))
        if status == "error" and name != "runs":
            status = "warning"  # not every run writes there
        yield Check(name=f"drive: {name}", status=status, found=found, advice=advice)


def drive(free: float, writable: bool) -> tuple[Status, str]:
    """What `free` GiB of a directory come to, and what to do."""
    if not writable:
        return "error", "it cannot be written to: change its owner, or take another (run_dir, ZEROFIT_CACHE)"
    if free < LEAST_GIB:
        return "error", "it is full: make room, or take another (run_dir, ZEROFIT_CACHE)"
    if free < ROOM_GIB:
        return "warning", "a checkpoint has weights and optimizer, 14 bytes a trained parameter: it may not fit"
    return "ok", ""


def _limits() -> Iterator[Check]:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    few = files != resource.RLIM_INFINITY and files < FILES
    yield Check(
        name="open files",
        status="warning" if few else "ok",
        found="unlimited" if files == resource.RLIM_INFINITY else f"{files:,} at most",
        advice="loaders' workers may run out of them: ulimit -n 65536" if few else "",
    )
    if sys.platform == "linux" and Path("/sys/class/infiniband").is_dir():
        locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
        limited = locked != resource.RLIM_INFINITY
        yield Check(
            name="locked memory",
            status="warning" if limited else "ok",
            found=f"{locked / 2**20:,.0f} MiB at most" if limited else "unlimited",
            advice="InfiniBand between machines needs it: ulimit -l unlimited" if limited else "",
        )


def _rates(hardware: Hardware, environ: Mapping[str, str]) -> Iterator[Check]:
    """Whether the planner has measured rates of this card."""
    told: list[str] = []
    found = stored(hardware.name, default_root(environ), told.append)
    if told:
        yield Check(name="measured rates", status="warning", found=told[0], advice="zerofit doctor --calibrate")
    elif found is None and hardware.device == "cuda":
        said = "none of this card: datasheets' are taken, within 30 % at best"
        yield Check(name="measured rates", status="warning", found=said, advice="zerofit doctor --calibrate")
    elif found is not None:
        age = (date.today() - found.measured).days
        torch = importlib.metadata.version("torch")
        before = found.versions.get("torch")
        why = f"{age} days old" if age > OLD_DAYS else f"of PyTorch {before}" if before != torch else ""
        yield Check(
            name="measured rates",
            status="warning" if why else "ok",
            found=f"{found.source} ({', '.join(f'{count} ranks' for count in found.links) or 'one rank'})",
            advice=f"they are {why}: zerofit doctor --calibrate" if why else "",
        )
