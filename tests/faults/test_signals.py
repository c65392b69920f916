"""SIGTERM at whatever moment: the run is saved and stopped, or ended with nothing half done; and goes on to the same
end.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from commands import Zygote
from resumed import References, assert_same_run, cut_off, recipe, whole

from zerofit.checkpoint.manifest import step_name

SAVED, ENDED = 4, 128 + signal.SIGTERM
rest = pytest.mark.faults

PROBE = """\
name: probe
task: probe
model:
  kind: vit
  patch_size: 4
  shape: {hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 33}
data: {source: digits, limit: 200}
train: {epochs: 4, micro_batch: 20, global_batch: 40}
optimizer: {name: lars, lr: 1.0, weight_decay: 0.0}
probe: {features: cached, lr_scales: [0.3, 1.0], batch_norms: [false, true]}
"""

# What a rank is about to do, or is doing, when the signal comes; how the command ends; the step that is saved.
MOMENTS = [
    pytest.param({"before": "zerofit.launch.group:join"}, ENDED, None, id="joining", marks=rest),
    pytest.param({"before": "zerofit.tasks.loop:build_model"}, ENDED, None, id="building the model"),
    pytest.param({"before": "zerofit.tasks.online:open_split"}, ENDED, None, id="reading data", marks=rest),
    pytest.param({"phase": "before the first step"}, SAVED, 1, id="before the first step", marks=rest),
    pytest.param({"phase": "step 5: waiting for data"}, SAVED, 5, id="waiting for data", marks=rest),
    pytest.param({"phase": "end of step 5"}, SAVED, 5, id="end of a step", marks=rest),
    pytest.param({"phase": "step 5: saving"}, SAVED, 6, id="saving"),
    pytest.param({"phase": "evaluation"}, SAVED, 4, id="validating", marks=rest),
    pytest.param({"phase": "step 40: saving"}, SAVED, 40, id="saving the last step", marks=rest),
]


@pytest.mark.parametrize(("moment", "code", "saved"), MOMENTS)
def test_a_signal_to_the_launcher(
    moment: dict[str, str], code: int, saved: int | None, zygote: Zygote, references: References, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = ("train", recipe(tmp_path), "strategy=ddp", "--nproc", 2, f"run_dir={run}")
    fault: dict[str, Any] = {"number": signal.SIGTERM, "to": "launcher", "rank": 1, **moment}
    command = zygote.run(*words, cwd=tmp_path, signal=fault)
    assert command.code == code, command.said
    assert "Traceback" not in command.stdout + command.stderr
    assert json.loads((run / "result.json").read_text())["exit"] == "interrupted"
    left = whole(run)
    assert (left and left.name) == (saved and step_name(saved))
    command = zygote.run("train", "--resume", run, cwd=tmp_path)
    if saved == 40:
        assert "zerofit eval" in command.refused()
        return
    assert command.code == 0, command.said
    assert_same_run(run, references.get("ddp"), lost=4 if moment == {"phase": "evaluation"} else None)


def test_a_signal_to_a_rank_that_does_not_listen_yet_is_no_crash(zygote: Zygote, tmp_path: Path) -> None:
    """Schedulers signal all processes at once: which one hears first is not to matter."""
    run = tmp_path / "run"
    words = ("train", recipe(tmp_path), "strategy=ddp", "--nproc", 2, f"run_dir={run}", "--auto-resume", 1)
    fault = {"number": signal.SIGTERM, "to": "rank", "rank": 1, "before": "zerofit.tasks.loop:build_model"}
    command = zygote.run(*words, cwd=tmp_path, signal=fault)
    assert command.code == ENDED, command.said
    assert command.stderr.splitlines() == [f"ended by signal 15; logs: {run}/logs"]
    assert json.loads((run / "result.json").read_text())["exit"] == "interrupted"


@pytest.mark.faults
def test_a_signal_while_a_checkpoint_is_verified(zygote: Zygote, references: References, tmp_path: Path) -> None:
    reference, run = references.get("ddp"), tmp_path / "run"
    cut_off(reference, run, 7)
    (run / "checkpoints" / ".staging-step-000008").mkdir()  # swept before
    before = contents(run)
    fault = {"number": signal.SIGTERM, "to": "launcher", "rank": None, "before": "zerofit.checkpoint.manifest:verify"}
    command = zygote.run("train", "--resume", run, cwd=tmp_path, signal=fault)
    assert command.code == -signal.SIGTERM
    assert contents(run) == before
    assert command.stdout + command.stderr == ""


@pytest.mark.faults
@pytest.mark.parametrize("phase", ["features of train, batch 2", "features of test, batch 1", "heads, step"])
def test_a_signal_to_a_probe_on_cached_features(phase: str, zygote: Zygote, tmp_path: Path) -> None:
    (tmp_path / "probe.yaml").write_text(PROBE)
    results = []
    for name, fault in (
        ("whole", {}),
        ("run", {"signal": {"number": 15, "to": "launcher", "rank": 1, "phase": phase}}),
    ):
        run = tmp_path / name
        words = ("train", "probe.yaml", "--nproc", 2, f"run_dir={run}", f"probe.cache={tmp_path / name}-cache")
        command = zygote.run(*words, cwd=tmp_path, **fault)
        assert command.code == (SAVED if fault else 0), command.said
        if fault:
            assert command.stderr.splitlines()[-1] == "interrupted; go on with: zerofit train --resume run"
            command = zygote.run("train", "--resume", run, cwd=tmp_path)
            assert command.code == 0, command.said
        result = json.loads((run / "result.json").read_text())
        results.append({key: result[key] for key in ("exit", "test", "heads", "chosen", "knn_top1")})
    assert results[0] == results[1]


def contents(directory: Path) -> dict[str, bytes]:
    """All files."""
    paths = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}
