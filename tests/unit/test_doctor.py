"""`zerofit doctor`: what it says of a machine, and of which of it a run would fail."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from plan_examples import CPU, gpus
from test_calibration import calibration
from typer.testing import CliRunner

from zerofit import cli
from zerofit.launch import doctor, ops_cache
from zerofit.launch.doctor import built_for, diagnose, drive
from zerofit.launch.environment import World
from zerofit.plan.calibration_file import default_root, path_of, store
from zerofit.plan.diagnosis import Check, Diagnosis, Status
from zerofit.plan.versions import ranges
from zerofit.report.diagnosis import text


@pytest.fixture(autouse=True)
def _machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU, a cache and a directory of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZEROFIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "ops"))
    monkeypatch.setenv("ZEROFIT_DEVICE", "cpu")


def found(diagnosis: Diagnosis) -> dict[str, Check]:
    return {one.name: one for one in diagnosis.checks}


def test_a_machine_that_trains_is_said_to(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.app, ["doctor", "--json"])
    diagnosis = Diagnosis.model_validate_json(done.stdout)
    assert done.exit_code == (2 if diagnosis.worst == "error" else 0)
    checks = found(diagnosis)
    assert checks["GPUs"].status == "ok"
    assert "torch" in checks["libraries"].found
    assert checks["drive: runs"].status in ("ok", "warning")
    assert all(one.advice for one in diagnosis.checks if one.status != "ok")
    assert not list(tmp_path.iterdir()), "nothing is made by looking"
    assert json.loads(done.stdout)["version"] == 1


def test_what_makes_every_run_fail_is_exit_code_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROFIT_DEVICE", "tpu")
    done = CliRunner().invoke(cli.app, ["doctor"])
    assert done.exit_code == 2
    assert "error" in done.stdout
    assert "ZEROFIT_DEVICE is 'tpu'" in done.stdout


@pytest.mark.parametrize(
    ("free", "writable", "status"),
    [(100.0, True, "ok"), (5.0, True, "warning"), (0.01, True, "error"), (100.0, False, "error")],
)
def test_a_drive_is_judged_by_its_room(free: float, writable: bool, status: Status) -> None:
    judged, advice = drive(free, writable)
    assert judged == status
    assert bool(advice) == (status != "ok")


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((9, 0), ["sm_80", "sm_90"], True),
        ((8, 6), ["sm_80"], True),
        ((8, 0), ["sm_86"], False),
        ((7, 0), ["sm_75", "sm_80"], False),
        ((12, 0), ["sm_90a"], False),
        ((12, 0), ["sm_90", "compute_90"], True),
        ((10, 0), ["sm_100a"], True),
    ],
)
def test_kernels_run_on_cards_of_their_generation(
    capability: tuple[int, int], architectures: list[str], runs: bool
) -> None:
    assert built_for(capability, architectures) == runs


def test_a_release_that_this_one_is_not_made_for_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"torch", "transformers"} <= set(ranges())
    assert not {"wandb", "pytest"} & set(ranges()), "extras are not asked for"
    real = doctor.importlib.metadata.version
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: "9.9" if name == "trl" else real(name))
    trl = found(diagnose())["trl"]
    assert trl.status == "warning"
    assert trl.advice.startswith("pip install 'trl")


def test_a_lock_that_a_killed_build_left_is_named_and_left(tmp_path: Path) -> None:
    lock = ops_cache.directory(os.environ) / "async_io" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    check = found(diagnose())["DeepSpeed's operators"]
    assert (check.status, str(lock) in check.found, lock.exists()) == ("warning", True, True)
    assert ops_cache.clear_stale_locks(lock.parents[1]) == [lock]


def rates() -> Iterator[Check]:
    return doctor._rates(gpus(2).model_copy(update={"name": "NVIDIA H200"}), os.environ)


def test_rates_are_missing_damaged_old_or_there(monkeypatch: pytest.MonkeyPatch) -> None:
    root = default_root(os.environ)
    (none,) = rates()
    assert (none.status, none.advice) == ("warning", "zerofit doctor --calibrate")
    assert not list(doctor._rates(CPU, os.environ)), "of a CPU nothing is predicted"
    today, torch = doctor.date.today(), doctor.importlib.metadata.version("torch")
    store(calibration(measured=today, versions={"torch": torch}), root)
    (there,) = rates()
    assert (there.status, there.advice) == ("ok", "")
    assert f"calibrated {today.isoformat()} (4 ranks)" in there.found
    store(calibration(measured=today, versions={"torch": "2.0.0"}), root)
    (other,) = rates()
    assert (other.status, "of PyTorch 2.0.0" in other.advice) == ("warning", True)
    store(calibration(measured=today.replace(year=today.year - 1, day=1), versions={"torch": torch}), root)
    (old,) = rates()
    assert (old.status, "days old" in old.advice) == ("warning", True)
    path_of("NVIDIA H200", root).write_text("{")
    (damaged,) = rates()
    assert (damaged.status, "left out" in damaged.found) == ("warning", True)


def test_gpus_that_pytorch_cannot_use_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    check = doctor._devices(gpus(2))
    assert check.status == "error"
    assert "install a PyTorch that fits the driver" in check.advice
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75"])
    assert doctor._devices(gpus(2)).status == "error"
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_90"])
    assert doctor._devices(gpus(2)).status == "ok"


def test_without_a_compiler_cuda_operators_are_not_to_be_had(tmp_path: Path) -> None:
    bare = {"PATH": str(tmp_path), "TORCH_EXTENSIONS_DIR": str(tmp_path / "ops")}
    (check,) = doctor._ops(gpus(1), bare)
    assert (check.status, check.found) == ("warning", "cannot be built without a C++ compiler, ninja, nvcc")
    for name in ("c++", "ninja", "nvcc"):
        (tmp_path / name).symlink_to(sys.executable)
    (check,) = doctor._ops(gpus(1), bare)
    assert check.status == "ok"
    assert not list(doctor._ops(CPU, bare))


def test_text_says_what_to_do_under_what_is_wrong() -> None:
    checks = (
        Check(name="a", status="ok", found="fine"),
        Check(name="bc", status="warning", found="so so", advice="mend it"),
    )
    assert text(Diagnosis(checks=checks)).splitlines() == [
        "ok       a   fine",
        "warning  bc  so so",
        "             -> mend it",
        "1 warning",
    ]
    assert text(Diagnosis(checks=checks[:1])).splitlines()[-1] == "nothing is in the way of a run"


def test_what_asks_for_no_calibration_that_can_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(cli.app, ["doctor", "digits"])
    assert done.exit_code == 2
    assert "leave digits out, or give --calibrate" in done.output
    for name, value in World(0, 2, 0, 2, "127.0.0.1", 1).variables().items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(cli.app, ["doctor", "--calibrate"])
    assert done.exit_code == 2
    assert "run it without an outer launcher" in done.output
