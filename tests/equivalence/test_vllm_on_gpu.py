"""vLLM on a GPU: it sleeps while ranks train, and as a server it gets their weights by NCCL.

One GPU is enough for all of it: each process is told that it is a host of its own (bench/one_gpu.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

sys.path += [str(Path(__file__).parents[1] / name) for name in ("e2e", "faults")]
from cli_runs import steps
from language_runs import SFT
from test_on_gpus import ON_CPU, ONE_GPU, done
from test_vllm import RECIPE

from zerofit.plan.rollout_engine import vllm_is_installed

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not vllm_is_installed(), reason="vllm is not installed")]
PORT = 8321
MEMORY = "grpo.rollout.vllm_memory=0.1"
VARIED = """\
import torch
def worth(completion, row):
    free, total = torch.cuda.mem_get_info()
    with open("used", "a") as file:
        print((total - free) / 2**30, file=file)
    return (sum(map(ord, completion)) % 97) / 97
"""
"""A reward that differs from completion to completion; it notes the GiB of the GPU that are taken, vLLM asleep."""
ALONE = {
    "NCCL_HOSTID": "a-server-of-its-own",
    "NCCL_SOCKET_IFNAME": "lo",
    "NCCL_IB_DISABLE": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What this process has, those that it starts have."""
    for name, value in {**ALONE, "NCCL_HOSTID": "a-trainer-of-its-own"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", ""))))


def trained(cwd: Path, ranks: int, *words: str) -> tuple[list[dict[str, Any]], str]:
    """What each step of the recipe recorded, on so many ranks, and what was printed and logged."""
    (cwd / "varied.py").write_text(VARIED)
    (cwd / "tiny.yaml").write_text(RECIPE)
    program = ("-m", "zerofit") if ranks == 1 else (str(ONE_GPU), str(ranks))
    printed = done(cwd, "train", "tiny.yaml", "run_dir=runs/tiny", *words, program=program)
    run = cwd / "runs" / "tiny"
    return steps(run), printed + "".join(path.read_text() for path in run.glob("logs/rank-*.log"))


def newest(found: list[dict[str, Any]]) -> None:
    """Each rollout was of the weights that are trained."""
    assert len(found) == 4
    for step in found:
        assert step["logprob_difference_max"] < 0.05
        assert step["grad_norm"] > 0.01


@pytest.mark.parametrize(("strategy", "ranks"), [("single", 1), ("ddp", 2), ("zero3", 2), ("fsdp2", 2)])
def test_it_sleeps_while_ranks_train(tmp_path: Path, strategy: str, ranks: int) -> None:
    found, said = trained(tmp_path, ranks, f"strategy={strategy}", MEMORY)
    newest(found)
    freed = [float(gib) for gib in re.findall(r"Sleep mode freed ([\d.]+) GiB", said)]
    used = [float(gib) for gib in (tmp_path / "used").read_text().split()]
    print(strategy, "freed", sorted(set(freed)), "used", min(used), max(used))
    assert len(freed) == 5 * ranks  # as it was made, and after each of four rollouts
    assert min(freed) > 10
    assert max(used) < 10 * ranks


@contextlib.contextmanager
def served(model: Path) -> Iterator[str]:
    """The address of a server of `model`, with the flags that TRL names."""
    config = json.dumps({"backend": "nccl"})
    words = ("serve", str(model), "--port", str(PORT), "--weight-transfer-config", config, "--max-logprobs", "-1")
    more = ("--logprobs-mode", "processed_logprobs", "--gpu-memory-utilization", "0.1", "--enforce-eager")
    environ = {**{name: value for name, value in os.environ.items() if name not in ON_CPU}, **ALONE}
    environ["VLLM_SERVER_DEV_MODE"] = "1"
    address, log = f"http://127.0.0.1:{PORT}", model.parent / "server.log"
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", *words, *more]
    with log.open("w") as file, subprocess.Popen(command, env=environ, stdout=file, stderr=file) as server:
        try:
            end = time.monotonic() + 200
            while not answers(address):
                assert server.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < end, log.read_text()[-3000:]
                time.sleep(0.5)
            yield address
        finally:
            server.terminate()


def answers(address: str) -> bool:
    try:
        return requests.get(f"{address}/health", timeout=2).ok
    except requests.ConnectionError:
        return False


def test_a_server_has_the_newest_weights(tmp_path: Path) -> None:
    """Of whatever model it was started with."""
    (tmp_path / "before.yaml").write_text(SFT.replace("head_dim: 16", "head_dim: 32"))
    done(tmp_path, "train", "before.yaml", "strategy=single", "train.max_steps=1")
    done(tmp_path, "export", "runs/before", "before")
    with served(tmp_path / "before") as address:
        fields = ("grpo.rollout.vllm=server", f"grpo.rollout.server={address}")
        for strategy, ranks in (("single", 1), ("zero3", 2)):
            shutil.rmtree(tmp_path / "runs" / "tiny", ignore_errors=True)
            newest(trained(tmp_path, ranks, f"strategy={strategy}", *fields)[0])
