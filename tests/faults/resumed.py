"""The run that faults happen to, the same run without any, and whether two runs are one: bit by bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from commands import Zygote

from zerofit.checkpoint.manifest import newest, read_manifest, step_name, steps
from zerofit.models.zero_states import zero_states

RECIPE = """\
name: small
model:
  kind: vit
  patch_size: 4
  dropout: 0.1
  shape: {hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 33}
data: {source: digits, limit: 96}
train: {max_steps: 40, micro_batch: 8, global_batch: 16}
optimizer: {lr: 1e-3, warmup: {steps: 2}}
evaluate: {micro_batch: 60, every_steps: 4}
"""
STEPS = 40
CLOCKED = (
    "samples_s",
    "mfu",
    "_gib",
    "data_wait_s",
    "optimizer_s",
    "duration_s",
    "gpu_utilisation",
    "gpu_temperature_c",
    "gpu_power_w",
)


def recipe(directory: Path, **checkpoint: int) -> Path:
    """Write the recipe, to be saved after every step or as said."""
    path = directory / "small.yaml"
    path.write_text(RECIPE + f"checkpoint: {json.dumps({'every_steps': 1, 'keep': 2, **checkpoint})}\n")
    return path


class References:
    """Runs without faults, of which every checkpoint is kept; made when they are asked for."""

    def __init__(self, zygote: Zygote, directory: Path) -> None:
        self.zygote, self.directory = zygote, directory

    def get(self, strategy: str) -> Path:
        """The run directory."""
        run = self.directory / strategy
        if not run.exists():
            made = recipe(self.directory, keep=STEPS)
            words = ("train", made, f"strategy={strategy}", "--nproc", 2, f"run_dir={run}")
            command = self.zygote.run(*words, cwd=self.directory)
            assert command.code == 0, command.said
        assert list(steps(run / "checkpoints")) == list(range(1, STEPS + 1))
        return run


def records(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl, but what depends on clocks and memory."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [unclocked(line) for line in lines]


def unclocked(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if not name.endswith(CLOCKED)}


def whole(run: Path) -> Path | None:
    """The newest checkpoint that holds; nothing is swept before."""
    return newest(run / "checkpoints", lambda *_: None)


def assert_same_checkpoint(checkpoint: Path, reference: Path, lost: int | None = None) -> None:
    """Against the same step's of that run: weights, optimizer, random state and Trainer's state are to be equal."""
    other = reference / "checkpoints" / checkpoint.name
    assert files(checkpoint) == files(other)
    assert trainer_state(checkpoint, lost) == trainer_state(other, lost)
    mine, others = optimizer(checkpoint), optimizer(other)
    assert mine.keys() == others.keys()
    for name, value in mine.items():
        assert torch.equal(value, others[name]), name


def files(checkpoint: Path) -> dict[str, str]:
    """Hashes by name, of the files that have the same bytes in every run."""
    listed = read_manifest(checkpoint).files.items()
    odd = (".metadata", "_optim_states.pt", "trainer_state.json")  # a random identity; what pads ZeRO-3's shards; times
    return {name: "" if name.endswith(odd) else entry.xxh3_128 for name, entry in listed}


def trainer_state(checkpoint: Path, lost: int | None) -> dict[str, Any]:
    """trainer_state.json, but times, the directory of the best one, and the validation that was `lost`."""
    state: dict[str, Any] = json.loads((checkpoint / "trainer_state.json").read_text())
    logged = [unclocked(record) for record in without(lost, state["log_history"])]
    return {**state, "best_model_checkpoint": None, "log_history": logged}


def optimizer(checkpoint: Path) -> dict[str, torch.Tensor]:
    """DeepSpeed's master weights and moments; nothing of other engines, whose files are compared."""
    tags = list(checkpoint.glob("global_step*"))
    if not tags:
        return {}
    stored = zero_states(tags[0])
    found = {name: read() for name, read in stored.weights.items()}
    found |= {f"{name} {kind}": read() for name, kinds in stored.moments.items() for kind, read in kinds.items()}
    return found | {f"{name} count": torch.tensor(count) for name, count in stored.counts.items()}


def without(lost: int | None, logged: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records but that of the validation of this step, which was cut off by a signal and is not made up for."""
    return [record for record in logged if record["step"] != lost or "loss" in record]


def assert_same_run(run: Path, reference: Path, keep: int = 2, lost: int | None = None) -> None:
    """A finished run is as if nothing had happened to it, but for the validation of the step that is `lost`."""
    assert without(lost, records(run)) == without(lost, records(reference))
    result, expected = (json.loads((one / "result.json").read_text()) for one in (run, reference))
    assert {name: result[name] for name in ("exit", "test", "steps")} == {
        name: expected[name] for name in ("exit", "test", "steps")
    }
    checkpoints = run / "checkpoints"
    best = (checkpoints / "best.json").read_text()
    assert best == (reference / "checkpoints" / "best.json").read_text()
    kept = {json.loads(best)["step"], *range(STEPS - keep + 1, STEPS + 1)}
    assert sorted(path.name for path in checkpoints.iterdir()) == ["best.json", *map(step_name, sorted(kept))]
    for path in steps(checkpoints).values():
        assert_same_checkpoint(path, reference, lost)


def cut_off(reference: Path, run: Path, step: int, keep: int = 2) -> None:
    """Make `run` what is left of the reference where it was killed after `step`."""
    shutil.copytree(reference, run, ignore=lambda *_: ["result.json", "checkpoints"])
    spec = json.loads((run / "run.json").read_text())
    spec["recipe"]["checkpoint"]["keep"] = keep
    (run / "run.json").write_text(json.dumps(spec))
    (run / "checkpoints").mkdir()
    shutil.copyfile(reference / "checkpoints" / "best.json", run / "checkpoints" / "best.json")
    for number in range(step - keep + 1, step + 1):
        shutil.copytree(reference / "checkpoints" / step_name(number), run / "checkpoints" / step_name(number))
