"""The directory of compiled ops, its locks, and what is switched off in DeepSpeed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from zerofit.launch.ops_cache import clear_stale_locks, directory

HOLDER = """\
import sys
from pathlib import Path
from zerofit.launch.ops_cache import hold
hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""

BACKEND = """\
import importlib, os
from zerofit.launch import workarounds
workarounds.apply()
backend = importlib.import_module("deepspeed.comm.torch")
assert backend.build_shm_op() is None
os.environ["CUDA_VISIBLE_DEVICES"] = "GPU-8932f937"
cuda = importlib.import_module("deepspeed.accelerator.cuda_accelerator")
cuda.pynvml = object()
workarounds.apply()
assert cuda.pynvml is None
import torch.distributed as dist
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
import deepspeed
deepspeed.init_distributed()
assert deepspeed.comm.comm.cdb.shm_comm_op is None
dist.destroy_process_group()
"""


def test_each_environment_has_its_own_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    here = directory({"XDG_CACHE_HOME": "/c"})
    assert here.parent == Path("/c/torch_extensions")
    chosen = directory({"XDG_CACHE_HOME": "/c", "TORCH_EXTENSIONS_DIR": "/scratch/ops"})
    assert chosen == Path("/scratch/ops") / here.name
    assert directory({"TORCH_EXTENSIONS_DIR": str(chosen)}) == chosen
    monkeypatch.setattr(sys, "prefix", "/another/venv")
    assert directory({"XDG_CACHE_HOME": "/c"}) != here


def test_a_lock_goes_once_its_builder_is_dead_however_it_died(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert clear_stale_locks(cache) == []  # no directory yet
    lock = cache / "async_io" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    command = [sys.executable, "-c", HOLDER, str(cache)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert clear_stale_locks(cache) == []
        assert lock.exists()
        holder.kill()
    assert clear_stale_locks(cache) == [lock]
    assert not lock.exists()


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs DeepSpeed")
def test_deepspeed_starts_on_cpu_without_a_compiler(tmp_path: Path) -> None:
    environ = {**os.environ, "DS_ACCELERATOR": "cpu", "TORCH_EXTENSIONS_DIR": str(tmp_path), "PATH": "/nowhere"}
    done = subprocess.run(
        [sys.executable, "-c", BACKEND], env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
