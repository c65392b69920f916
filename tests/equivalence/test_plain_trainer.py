"""With what `zerofit plan --write-accelerate` writes, a plain Trainer script takes the very steps of a run of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import CPU, OPTIMIZER, SMALL, VIT, furthest, plan, recipe
from starts import column, train_together
from transformers import ViTConfig, ViTForImageClassification

from zerofit.launch.environment import prepare
from zerofit.launch.planning import plan as plan_command
from zerofit.models.build import build_model
from zerofit.models.placement import WholePlacement
from zerofit.plan.accelerate_write import script_arguments
from zerofit.plan.spec import RunSpec

pytestmark = pytest.mark.thorough

STEPS, BATCH, LIMIT = 20, 16, 300
ENGINES = {
    "ddp": ("DistributedDataParallel", None),
    "zero2": ("DeepSpeedEngine", 2),
    "zero3": ("DeepSpeedEngine", 3),
}
# Trainer decays class token and positions, which the usual rules of ours do not.
RULES = [{"pattern": r"bias$|layernorm", "weight_decay": 0.0}, {"pattern": "."}]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunSpec]:
    """Our runs, of two micro-batches a step."""
    base = tmp_path_factory.mktemp("plain")
    train = {"max_steps": STEPS, "micro_batch": BATCH // 4, "global_batch": BATCH}
    model = {**VIT, "trainable": RULES}
    specs = {name: plan(recipe(model, name, train=train), 2, base / name) for name in ENGINES}
    train_together(list(specs.values()), 2, base / "start")
    return specs


def model_of(spec: RunSpec, directory: Path) -> None:
    """Write the model with which our run begins as transformers has it."""
    begun = build_model(spec, WholePlacement(torch.device("cpu"), torch.float32), torch.float32)
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = ViTConfig(**SMALL, **no_dropout, patch_size=4, image_size=8, num_labels=10)
    model = ViTForImageClassification(config)
    names = {"backbone.": "vit.", "head.": "classifier."}
    weights = {}
    for name, value in begun.named_parameters():
        first = next(one for one in names if name.startswith(one))
        weights[name.replace(first, names[first], 1)] = value.detach()
    model.load_state_dict(weights)
    model.save_pretrained(directory)


def launched(spec: RunSpec, name: str) -> dict[str, Any]:
    """What the script leaves, started by `accelerate launch` with the file that is written for the recipe."""
    directory = spec.run_dir.parent / f"plain-{name}"
    directory.mkdir()
    model_of(spec, directory / "model")
    order = np.random.default_rng(np.random.SeedSequence([0, 0])).permutation(spec.data.train)
    (directory / "order.json").write_text(json.dumps(order[: STEPS * BATCH].tolist()))
    source, file = directory / "recipe.yaml", directory / "launch.yaml"
    source.write_text(spec.recipe.model_dump_json())
    _, said = plan_command(str(source), nproc=2, accelerate=file)
    arguments = " ".join(script_arguments(spec))
    assert arguments in said
    job = {"model": directory / "model", "order": directory / "order.json", "out": directory / "out.json"}
    job |= {"output_dir": directory / "output", "train_sampling_strategy": "sequential", "logging_steps": 1}
    job |= {"save_strategy": "no", "report_to": "none"}
    environ = dict(os.environ)
    prepare(environ, CPU, local_size=2)
    environ["OMP_NUM_THREADS"] = "1"
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(file),
        "--main_process_port",
        "0",
    ]
    command += [str(Path(__file__).with_name("plain_trainer.py")), *arguments.split()]
    command += [word for key, value in job.items() for word in (f"--{key}", str(value))]
    done = subprocess.run(command, cwd=directory, env=environ, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr[-4000:]
    left: dict[str, Any] = json.loads((directory / "out.json").read_text())
    return left


@pytest.mark.parametrize("name", ENGINES)
def test_a_plain_script_takes_our_steps(ours: dict[str, RunSpec], name: str) -> None:
    spec = ours[name]
    left = launched(spec, name)
    assert (left["engine"], left["stage"], left["ranks"]) == (*ENGINES[name], 2)
    print("furthest", furthest(left["losses"], column(spec, "loss")))
    assert len(left["losses"]) == STEPS
    assert furthest(left["losses"], column(spec, "loss")) <= 1e-6
    assert OPTIMIZER["vit"]["clip_grad"] == spec.recipe.optimizer.clip_grad
