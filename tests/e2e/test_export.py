"""`zerofit export`: the directory that it writes is the run's model, and another run can start from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from cli_runs import TINY, refused, result, steps, tiny, trained, zerofit
from safetensors.torch import load_file

from zerofit.checkpoint.export import to_weights
from zerofit.checkpoint.own import own_content
from zerofit.launch import rundir
from zerofit.models.build import build_model
from zerofit.models.classifier import ImageClassifier
from zerofit.models.placement import WholePlacement
from zerofit.models.whole import describe_model
from zerofit.plan.spec import RunSpec

pytestmark = pytest.mark.thorough

LORA = "model.lora={rank: 2, alpha: 8}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA run with two checkpoints."""
    directory = tmp_path_factory.mktemp("export")
    options = (LORA, "optimizer.lr=0.1", "checkpoint.every_steps=3", "strategy=zero3")
    return trained(str(tiny(directory)), *options, cwd=directory)


@pytest.fixture(scope="module")
def exported(run: Path) -> tuple[Path, str]:
    """Its newest checkpoint, exported on the command line, and what that said."""
    done = zerofit("export", str(run), "out", cwd=run.parents[1])
    assert done.returncode == 0, done.stderr
    return run.parents[1] / "out", done.stdout


def whole(spec: RunSpec, weights: Path) -> ImageClassifier:
    return build_model(spec, WholePlacement(torch.device("cpu"), torch.float32), torch.float32, weights).eval()


def pixels() -> torch.Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def without_lora(spec: RunSpec) -> RunSpec:
    model = spec.recipe.model.model_copy(update={"lora": None})
    return spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"model": model})})


def test_adapters_are_merged(run: Path, exported: tuple[Path, str]) -> None:
    (out, said), spec = exported, rundir.load(run)
    assert "adapters merged" in said
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "export.json", "model.safetensors"]
    adapted = whole(spec, run / "checkpoints" / "step-000006" / "model.safetensors")
    logits = adapted(pixels())
    merged = whole(without_lora(spec), out / "model.safetensors")
    assert (merged(pixels()) - logits).abs().max() < 1e-5 * logits.abs().max()
    assert load_file(out / "model.safetensors").keys() == merged.state_dict().keys()
    fresh = build_model(without_lora(spec), WholePlacement(torch.device("cpu"), torch.float32), torch.float32).eval()
    assert (fresh(pixels()) - logits).abs().max() > 0.01 * logits.abs().max()
    assert json.loads((out / "config.json").read_text())["model_type"] == "qwen3"
    made = json.loads((out / "export.json").read_text())
    assert (made["run"], made["step"]) == (str(run), 6)
    assert (made["merged"]["rank"], made["merged"]["alpha"]) == (2, 8.0)


def test_another_run_starts_from_an_export(run: Path, exported: tuple[Path, str], tmp_path: Path) -> None:
    """At a learning rate of nearly nothing it ends with the very loss that the LoRA run ended with."""
    still = ("optimizer.lr=1e-12", "optimizer.weight_decay=0", "train.max_steps=1")
    again = trained(str(tiny(tmp_path)), f"init_from={exported[0]}", *still, "--nproc", "1", cwd=tmp_path)
    assert result(again)["test"]["loss"] == pytest.approx(result(run)["test"]["loss"], rel=1e-5)
    assert steps(again)[0]["loss"] != pytest.approx(steps(run)[0]["loss"], rel=1e-3)


def test_an_older_checkpoint_in_shards(run: Path, tmp_path: Path) -> None:
    spec, older = rundir.load(run), run / "checkpoints" / "step-000003"
    content = own_content(describe_model(spec), older, merge=True, optimizer=False)
    to_weights(content, tmp_path / "out", torch.float32, limit=8000)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(index.values())) > 1
    model = whole(spec, run / "checkpoints" / "step-000003" / "model.safetensors")
    origin = without_lora(spec).model_copy(update={"origin": tmp_path / "out"})
    merged = build_model(origin, WholePlacement(torch.device("cpu"), torch.float32), torch.float32).eval()
    logits = model(pixels())
    assert (merged(pixels()) - logits).abs().max() < 1e-5 * logits.abs().max()


def test_a_run_without_adapters_is_written_as_it_is(tmp_path: Path) -> None:
    run = trained(str(tiny(tmp_path, TINY.replace("max_steps: 6", "max_steps: 1"))), "--nproc", "1", cwd=tmp_path)
    assert zerofit("export", str(run), "out", "--checkpoint", "1", cwd=tmp_path).returncode == 0
    held = load_file(run / "checkpoints" / "step-000001" / "model.safetensors")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert held.keys() == written.keys()
    assert all(torch.equal(held[name], written[name]) for name in held)
    assert json.loads((tmp_path / "out" / "export.json").read_text())["merged"] is None


def test_what_cannot_be_exported_is_refused_in_one_line(run: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    refused(zerofit("export", str(run), "taken", cwd=tmp_path), "taken exists", "new directory")
    refused(zerofit("export", str(run), "out", "--checkpoint", "5", cwd=tmp_path), "5", "there are: 3, 6")
    refused(zerofit("export", "nowhere", "out", cwd=tmp_path), "nowhere")
    assert not (tmp_path / "out").exists()
