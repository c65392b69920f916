"""vLLM on a GPU: it sleeps while ranks train, and as a server it gets their weights by NCCL.

One GPU is enough for all of it: each process is told that it is a host of its own (bench/one_gpu.py).
"""

from __future__ import annotations

import contextlib
import json
import os
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
VARIED = """\
import torch
def worth(completion, row):
    free, total = torch.cuda.mem_get_info()
    with open("asleep", "a") as file:
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


def trained(cwd: Path, ranks: int, *words: str) -> list[dict[str, Any]]:
    """What each step of the recipe recorded, on so many ranks."""
    (cwd / "varied.py").write_text(VARIED)
    (cwd / "tiny.yaml").write_text(RECIPE)
    program = ("-m", "zerofit") if ranks == 1 else (str(ONE_GPU), str(ranks))
    done(cwd, "train", "tiny.yaml", *words, program=program)
    return steps(cwd / "runs" / "tiny")


def newest(found: list[dict[str, Any]]) -> None:
    """Each rollout was of the weights that are trained."""
    assert len(found) == 4
    for step in found:
        assert step["logprob_difference_max"] < 0.05
        assert step["grad_norm"] > 0.01


def test_it_sleeps_while_the_model_is_trained(tmp_path: Path) -> None:
    with watched(tmp_path / "taken") as taken:
        newest(trained(tmp_path, 1, "strategy=single", "grpo.rollout.vllm_memory=0.1"))
    asleep = [float(gib) for gib in (tmp_path / "asleep").read_text().split()]
    awake = max(map(int, taken.read_text().split())) / 1024
    assert awake > 12
    assert max(asleep) < 6


@contextlib.contextmanager
def watched(file: Path) -> Iterator[Path]:
    """MiB of the GPU that are taken, in this file, ten times a second."""
    words = ("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--loop-ms=100")
    with file.open("w") as into, subprocess.Popen(words, stdout=into) as watching:
        yield file
        watching.terminate()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server of a model that a run has exported, with the flags that TRL names."""
    cwd = tmp_path_factory.mktemp("server")
    (cwd / "before.yaml").write_text(SFT.replace("head_dim: 16", "head_dim: 32"))
    done(cwd, "train", "before.yaml", "strategy=single", "train.max_steps=1")
    done(cwd, "export", "runs/before", "before")
    config = json.dumps({"backend": "nccl"})
    words = ("serve", "before", "--port", str(PORT), "--weight-transfer-config", config, "--max-logprobs", "-1")
    more = ("--logprobs-mode", "processed_logprobs", "--gpu-memory-utilization", "0.1", "--enforce-eager")
    environ = {**{name: value for name, value in os.environ.items() if name not in ON_CPU}, **ALONE}
    environ["VLLM_SERVER_DEV_MODE"] = "1"
    found, log = f"http://127.0.0.1:{PORT}", cwd / "log"
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", *words, *more]
    with log.open("w") as file, subprocess.Popen(command, cwd=cwd, env=environ, stdout=file, stderr=file) as server:
        try:
            end = time.monotonic() + 200
            while not answers(found):
                assert server.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < end, log.read_text()[-3000:]
                time.sleep(0.5)
            yield found
        finally:
            server.terminate()


def answers(address: str) -> bool:
    try:
        return requests.get(f"{address}/health", timeout=2).ok
    except requests.ConnectionError:
        return False


@pytest.mark.parametrize(("strategy", "ranks"), [("single", 1), ("zero3", 2)])
def test_a_server_has_the_newest_weights(tmp_path: Path, address: str, strategy: str, ranks: int) -> None:
    """Whatever model it was started with."""
    fields = ("grpo.rollout.vllm=server", f"grpo.rollout.server={address}")
    newest(trained(tmp_path, ranks, f"strategy={strategy}", *fields))
