"""`zerofit doctor --calibrate`: measures this machine for real; on a CPU what there is of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_runs import environment, zerofit_process

from zerofit.launch.calibrating import common
from zerofit.plan.calibration import Calibration
from zerofit.plan.calibration_file import stored


def test_a_cpu_is_measured_and_kept(tmp_path: Path) -> None:
    kept = environment(ZEROFIT_CACHE=str(tmp_path / "cache"))
    done = zerofit_process("doctor", "--calibrate", "--json", cwd=tmp_path, env=kept)
    assert done.returncode == 0, done.stderr
    found = Calibration.model_validate_json(done.stdout)
    assert "measuring matrix products in fp32" in done.stderr, "progress is past standard output"
    assert found.device == "cpu"
    assert stored(found.name, tmp_path / "cache" / "rates") == found
    assert [path.name for path in (tmp_path / "cache" / "rates").iterdir()] == [
        next((tmp_path / "cache" / "rates").glob("*.json")).name
    ]
    (products,) = found.products.values()
    assert [(one.tokens, one.inputs, one.outputs) for one in products] == common("cpu")
    (links,) = found.links.values()
    assert links.backend == "gloo"
    assert [one.mib for one in links.messages] == sorted(one.mib for one in links.messages)
    assert found.context_gib is None
    assert found.pcie_up is None


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The cache of a calibration on all GPUs, and what it printed."""
    directory = tmp_path_factory.mktemp("gpu")
    kept = {**environment(ZEROFIT_CACHE=str(directory / "cache")), "ZEROFIT_DEVICE": ""}
    command = [sys.executable, "-m", "zerofit", "doctor", "--calibrate", "--json"]
    done = subprocess.run(command, cwd=directory, env=kept, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return directory, json.loads(done.stdout)


@pytest.mark.gpu
def test_a_gpu_is_measured_whole(gpu: tuple[Path, dict[str, Any]]) -> None:
    import torch

    found = Calibration.model_validate(gpu[1])
    assert (found.device, stored(found.name, gpu[0] / "cache" / "rates")) == ("cuda", found)
    low = "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16"
    rising = sorted(found.products[low], key=lambda one: one.flops)  # type: ignore[index]
    assert rising[-1].tera > rising[0].tera, "large products are faster"
    assert max(one.tera for one in found.products[low]) > max(one.tera for one in found.products["fp32"])  # type: ignore[index]
    assert found.kernel_s is not None
    assert found.kernel_s < found.launch_s, "a kernel of a graph is shorter than its launch"
    assert found.pcie_up is not None
    assert found.pcie_up < found.memory, "PCIe is slower than the card's memory"
    assert found.context_gib is not None, "NVML tells"
    assert found.modules_gib is not None
    assert 0.1 < found.context_gib <= found.modules_gib < 3.0
    if torch.cuda.device_count() > 1:
        (links,) = found.links.values()
        assert links.backend == "nccl"
        assert links.messages[-1].all_reduce > links.messages[0].all_reduce, "large messages are faster"
        assert links.communicators_gib is not None
        assert 0.0 < links.communicators_gib < 6.0


@pytest.mark.gpu
def test_the_plan_of_this_machine_takes_what_was_measured(gpu: tuple[Path, dict[str, Any]]) -> None:
    kept = {**environment(ZEROFIT_CACHE=str(gpu[0] / "cache")), "ZEROFIT_DEVICE": ""}
    done = zerofit_process("plan", "digits", "strategy=ddp", "--json", cwd=gpu[0], env=kept)
    assert done.returncode == 0, done.stderr
    (stage,) = json.loads(done.stdout)["stages"]
    (own,) = (one for one in stage["strategies"] if one["own"])
    assert own["prediction"]["fit"]["outside_from"] == f"calibrated {gpu[1]['measured']}"
    assert own["prediction"]["speed"]["rates"] == f"calibrated {gpu[1]['measured']}"
