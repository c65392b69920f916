"""The run that faults happen to, the same run without any, and whether two runs are one: bit by bit."""

from __future__ import annotations

import json
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
CLOCKED = ("samples_s", "mfu", "peak_alloc_gib", "peak_reserved_gib", "host_rss_gib", "data_wait_s", "duration_s")


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


def assert_same_checkpoint(checkpoint: Path, reference: Path) -> None:
    """Each is of its run and of the same step; weights, optimizer, random state and Trainer's state are to be equal."""
    other = reference / "checkpoints" / checkpoint.name
    assert files(checkpoint) == files(other)
    assert trainer_state(checkpoint) == trainer_state(other)
    mine, others = optimizer(checkpoint), optimizer(other)
    assert mine.keys() == others.keys()
    for name, value in mine.items():
        assert torch.equal(value, others[name]), name


def files(checkpoint: Path) -> dict[str, str]:
    """Hashes by name, of the files that have the same bytes in every run."""
    listed = read_manifest(checkpoint).files.items()
    odd = (".metadata", "_optim_states.pt", "trainer_state.json")  # a random identity; what pads ZeRO-3's shards; times
    return {name: "" if name.endswith(odd) else entry.xxh3_128 for name, entry in listed}


def trainer_state(checkpoint: Path) -> dict[str, Any]:
    """trainer_state.json, but times and the directory of the best one."""
    state: dict[str, Any] = json.loads((checkpoint / "trainer_state.json").read_text())
    logged = [unclocked(record) for record in state["log_history"]]
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


def assert_same_run(run: Path, reference: Path, keep: int = 2) -> None:
    """A finished run is as if nothing had happened to it."""
    assert records(run) == records(reference)
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
        assert_same_checkpoint(path, reference)
