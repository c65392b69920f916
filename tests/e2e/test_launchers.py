"""The same run under other people's launchers: same losses, one voice."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runs import environment, refused, result, steps, tiny, trained, zerofit_process


def free_port() -> str:
    """A port below the ephemeral range, and below what zerofit's own launcher takes, that nothing listens on."""
    first = 11000 + os.getpid() * 7 % 8000
    for port in range(first, first + 500):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return str(port)
    raise AssertionError("no free port")


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    cwd = tmp_path_factory.mktemp("ours")
    run = trained(str(tiny(cwd)), "--nproc", "2", cwd=cwd, start=zerofit_process)
    return [record["loss"] for record in steps(run)]


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in steps(run)]


TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port")
ACCELERATE = ("accelerate", "launch", "--cpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no")


@pytest.mark.parametrize("launcher", ["torchrun", pytest.param("accelerate", marks=pytest.mark.thorough)])
def test_an_outer_launcher_gives_the_same_losses(tmp_path: Path, ours: list[float], launcher: str) -> None:
    bin_dir = Path(sys.executable).parent
    words: tuple[str, ...] = ()
    if launcher == "torchrun":
        before: tuple[str, ...] = (*TORCHRUN, free_port(), "-m")
        words = ("strategy=auto", "train.micro_batch=auto")  # rank 0 chooses, for all of them
    else:
        before = (str(bin_dir / ACCELERATE[0]), *ACCELERATE[1:], "--main_process_port", free_port(), "-m")
    done = subprocess.run(
        [*before, "zerofit", "train", str(tiny(tmp_path)), *words],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "runs" / "tiny"
    assert losses(run) == pytest.approx(ours, rel=1e-6)
    assert done.stdout.count("auto: ddp, micro-batch 8 x 1, ") == (launcher == "torchrun")
    assert (run / "logs" / "rank-1.log").exists()
    assert done.stdout.count("run directory") == 1  # rank 0 alone prints


def ranks(tmp_path: Path, variables: list[dict[str, str]], *arguments: str) -> list[subprocess.CompletedProcess[str]]:
    """Start one command line per rank, as srun and the deepspeed launcher do."""
    command = [sys.executable, "-m", "zerofit", "train", *arguments]
    started = [
        subprocess.Popen(
            command, cwd=tmp_path, env=environment(**extra), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for extra in variables
    ]
    try:
        ended = [process.communicate(timeout=400) for process in started]
    finally:
        for process in started:
            process.kill()
    return [
        subprocess.CompletedProcess(command, process.returncode, *texts)
        for process, texts in zip(started, ended, strict=True)
    ]


def test_srun(tmp_path: Path, ours: list[float]) -> None:
    shared = {"SLURM_NTASKS": "2", "SLURM_STEP_ID": "0", "SLURM_JOB_ID": str(int(free_port()) % 10000)}
    shared |= {"SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1"}
    each = [{**shared, "SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NODEID": "0"} for rank in "01"]
    done = ranks(tmp_path, each, str(tiny(tmp_path)))
    assert [one.returncode for one in done] == [0, 0], done[0].stderr[-3000:]
    assert losses(tmp_path / "runs" / "tiny") == pytest.approx(ours, rel=1e-6)


@pytest.mark.thorough
def test_the_deepspeed_launcher(tmp_path: Path, ours: list[float]) -> None:
    """Its per-node part, which `deepspeed` starts through ssh or pdsh: variables, and --local_rank=N in argv."""
    hosts = base64.urlsafe_b64encode(json.dumps({"localhost": [0, 1]}).encode()).decode()
    launcher = [sys.executable, "-u", "-m", "deepspeed.launcher.launch", f"--world_info={hosts}"]
    where = ["--master_addr=127.0.0.1", f"--master_port={free_port()}", "--module", "zerofit"]
    done = subprocess.run(
        [*launcher, *where, "train", str(tiny(tmp_path)), "strategy=zero2"],
        cwd=tmp_path,
        env=environment(DS_ACCELERATOR="cpu"),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses(tmp_path / "runs" / "tiny") == pytest.approx(ours, rel=1e-6)
    assert result(tmp_path / "runs" / "tiny")["exit"] == "finished"


def test_bad_input_under_an_outer_launcher_is_said_once(tmp_path: Path) -> None:
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    each = [{**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    first, second = ranks(tmp_path, each, str(tiny(tmp_path)), "train.global_batch=15")
    refused(first, "global_batch")
    assert second.returncode == 2
    assert "error:" not in second.stderr


@pytest.mark.thorough
def test_foreign_device_names_do_not_matter_on_cpu(tmp_path: Path) -> None:
    env = environment(CUDA_VISIBLE_DEVICES="MIG-3eb87630-93d5-b2b6-b8ff-9b359caf4ee2")
    done = zerofit_process("train", str(tiny(tmp_path)), "strategy=zero2", "--nproc", "2", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
