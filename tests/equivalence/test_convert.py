"""A run's checkpoint in other forms, whatever strategy wrote it: the same numbers, and they are taken back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import PATCH_LM, VIT, plan, recipe
from safetensors.torch import load_file
from starts import Work, column, run_together
from torch import Tensor
from transformers import AutoModel, AutoModelForImageClassification

from zerofit.checkpoint.canonical import STATE, canonical_content
from zerofit.checkpoint.export import to_canonical
from zerofit.checkpoint.manifest import verify
from zerofit.checkpoint.native import read_state
from zerofit.config.errors import UserError
from zerofit.launch.convert import convert
from zerofit.launch.export import export
from zerofit.models.build import build_model
from zerofit.models.classifier import ImageClassifier
from zerofit.models.frozen import FROZEN
from zerofit.models.placement import WholePlacement
from zerofit.plan.files import write_spec
from zerofit.plan.spec import RunSpec
from zerofit.train.engine import WEIGHTS
from zerofit.train.optimizers import group_names
from zerofit.train.state import TrainingState

STEPS = 5
LONG = "long"
LORA = {"rank": 2, "alpha": 6}
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_inner": 33, "n_positions": 32}
RULES = [{"pattern": r"layers\.0\.", "freeze": True}, {"pattern": "bias$", "weight_decay": 0.0}, "."]
PROBE = {
    "task": "probe",
    "probe": {"batch_norm": True},
    "optimizer": {"name": "lars", "lr": 0.1, "trust_coefficient": 0.3, "weight_decay": 0.02},
}
RUNS: dict[str, tuple[dict[str, Any], Any, dict[str, Any]]] = {
    "ddp": ({**VIT, "trainable": RULES}, "ddp", {}),
    "fsdp2": ({**VIT, "trainable": RULES}, "fsdp2", {}),
    "zero2": ({**VIT, "trainable": RULES}, {"name": "zero2", "precision": "bf16"}, {}),
    "probe": ({**VIT, "trainable": ["patch_embed", r"^head\."]}, "zero1", PROBE),
    "lm": (PATCH_LM, "ddp", {}),
    "lora-gpt2": ({**PATCH_LM, "shape": GPT2, "pool": "cls", "lora": LORA}, "fsdp2", {}),
    "zero3": ({**VIT, "trainable": RULES}, "zero3", {}),
    "lora-vit": ({**VIT, "lora": LORA}, "zero3", {}),
}
PLAIN = [name for name in RUNS if not name.startswith("lora")]
CPU = WholePlacement(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunSpec]:
    directory = tmp_path_factory.mktemp("convert")
    specs = {}
    for name, (model, strategy, sections) in RUNS.items():
        made = recipe(model, strategy, train={"micro_batch": 4, "max_steps": STEPS}, **sections)
        specs[name] = plan(made, 2, directory / name)
        write_spec(specs[name])
    specs[LONG] = long_run("ddp", directory / LONG)
    specs = {LONG: specs.pop(LONG), **specs}
    run_together([Work(str(spec.run_dir), whole=True) for spec in specs.values()], 2, directory / "start")
    return specs


def long_run(strategy: str, directory: Path, **changes: Any) -> RunSpec:
    """A run with dropout that is saved halfway."""
    made = recipe(
        {**VIT, "dropout": 0.2, "trainable": RULES},
        strategy,
        train={"micro_batch": 4, "max_steps": 2 * STEPS},
        checkpoint={"every_steps": STEPS, "keep": 9},
    )
    spec = plan(made, 2, directory).model_copy(update=changes)
    write_spec(spec)
    return spec


def checkpoint(spec: RunSpec) -> Path:
    return spec.run_dir / "checkpoints" / f"step-{STEPS:06d}"


def built(spec: RunSpec) -> ImageClassifier:
    """The run's model, its frozen weights included, as evaluation makes it."""
    return build_model(spec, CPU, torch.float32, checkpoint(spec) / WEIGHTS).eval()


def live(spec: RunSpec) -> tuple[dict[str, Tensor], TrainingState, list[list[str]]]:
    """All tensors, with float32 masters of what was trained; the state; and the groups."""
    model = built(spec)
    groups = group_names(model, spec)
    state = read_state(checkpoint(spec), groups)
    masters = {name: state.weights[name]() for group in groups for name in group}
    return {**model.state_dict(), **dict(model.named_parameters()), **masters}, state, groups


def logits(spec: RunSpec) -> Tensor:
    with torch.no_grad():
        return built(spec)(pixels())


def pixels() -> Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def equal(found: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    same = [name for name in right if name in found and torch.equal(found[name], right[name])]
    return found.keys() == right.keys() and len(same) == len(right)


def without_lora(spec: RunSpec, origin: Path) -> RunSpec:
    model = spec.recipe.model.model_copy(update={"lora": None})
    return spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"model": model}), "origin": origin})


@pytest.mark.parametrize("name", RUNS)
def test_the_canonical_form_is_the_state_bit_by_bit(runs: dict[str, RunSpec], name: str, tmp_path: Path) -> None:
    right, state, groups = live(runs[name])
    out = tmp_path / "out"
    assert convert(runs[name].run_dir, to="safetensors", output=out) == 0
    assert equal(load_file(out / "model.safetensors"), right)
    assert all(value.dtype == torch.float32 for value in right.values() if value.is_floating_point())
    again = read_state(out, groups)
    trained = [one for group in groups for one in group]
    for one in trained:
        assert again.moments[one].keys() == state.moments[one].keys() != set()
        for kind, read in state.moments[one].items():
            assert torch.equal(again.moments[one][kind](), read())
            assert (read() != 0).any()
    assert again.counts == {one: state.counts[one] for one in trained if one in state.counts}
    assert dict(again.schedule) == json.loads(json.dumps(dict(state.schedule)))
    said = json.loads((out / STATE).read_text())
    assert [group["params"] for group in said["groups"]] == groups
    assert {group["weight_decay"] for group in said["groups"]} >= {0.0} if name in ("ddp", "zero3") else True
    assert [group["lr"] for group in said["groups"]] == state.schedule["_last_lr"]
    assert (said["position"]["step"], said["position"]["samples"]) == (STEPS, STEPS * 16)
    assert verify(out) == []
    for kept in ("rng_state_0.pth", "rng_state_1.pth", "trainer_state.json"):
        assert (out / kept).read_bytes() == (checkpoint(runs[name]) / kept).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_strategies_that_computed_the_same_give_the_same_canonical_form(
    runs: dict[str, RunSpec], tmp_path: Path
) -> None:
    found = []
    for name in ("ddp", "fsdp2", "zero3"):
        convert(runs[name].run_dir, to="safetensors", output=tmp_path / name)
        tensors = {**load_file(tmp_path / name / "model.safetensors")}
        found.append(tensors | load_file(tmp_path / name / "optimizer.safetensors"))
    for other in found[1:]:
        assert found[0].keys() == other.keys()
        for key, value in found[0].items():
            if "k_proj.bias" not in key:  # attention does not depend on it: its gradient is what rounding leaves
                torch.testing.assert_close(other[key], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", PLAIN)
def test_one_file_is_taken_back(runs: dict[str, RunSpec], name: str, tmp_path: Path) -> None:
    right, state, groups = live(runs[name])
    out = tmp_path / "out.pth"
    convert(Path(f"{runs[name].run_dir}@{STEPS}"), to="pytorch", output=out)
    loaded = torch.load(out, weights_only=True)
    assert equal(loaded["model"], right)
    optimizer = loaded["optimizer"]
    assert [group["params"] for group in optimizer["param_groups"]] == groups
    for one in (one for group in groups for one in group):
        kept = dict(optimizer["state"][one])
        assert kept.pop("step", None) == state.counts.get(one)
        assert equal(kept, {kind: read() for kind, read in state.moments[one].items()})
    started = build_model(runs[name].model_copy(update={"origin": out}), CPU, torch.float32)
    taken = dict(started.named_parameters())
    heads = {"head.weight", "head.bias"} if name == "probe" else set()  # a probe's head is always fresh
    assert all(torch.equal(taken[one], right[one]) for one in taken.keys() - heads)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.pth"]


@pytest.mark.parametrize("name", ["lora-vit", "lora-gpt2"])
def test_adapters_are_written_whole_or_merged(runs: dict[str, RunSpec], name: str, tmp_path: Path) -> None:
    spec = runs[name]
    right, _, _ = live(spec)
    apart, merged = tmp_path / "apart", tmp_path / "merged"
    convert(spec.run_dir, to="safetensors", weights_only=True, output=apart)
    held = load_file(apart / "model.safetensors")
    assert equal(held, right)
    adapters = [one for one in held if ".lora_" in one]
    assert adapters
    assert all(held[one].numel() and held[one].any() for one in adapters)
    convert(spec.run_dir, to="safetensors", weights_only=True, merge_lora=True, output=merged)
    assert json.loads((merged / "export.json").read_text())["merged"]["alpha"] == 6.0
    plain = build_model(without_lora(spec, merged), CPU, torch.float32).eval()
    assert load_file(merged / "model.safetensors").keys() == plain.state_dict().keys()
    wanted = logits(spec)
    with torch.no_grad():
        assert (plain(pixels()) - wanted).abs().max() < 1e-5 * wanted.abs().max()
        base = build_model(without_lora(spec, merged).model_copy(update={"origin": None}), CPU, torch.float32).eval()
        assert (base(pixels()) - wanted).abs().max() > 1e-3 * wanted.abs().max()
    export(spec.run_dir, tmp_path / "same")
    for file in merged.iterdir():
        assert (tmp_path / "same" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("name", ["ddp", "lora-vit"])
def test_transformers_classifies_the_same(runs: dict[str, RunSpec], name: str, tmp_path: Path) -> None:
    out = tmp_path / "hf"
    convert(runs[name].run_dir, to="hf", merge_lora=name.startswith("lora"), output=out)
    model, said = AutoModelForImageClassification.from_pretrained(out, output_loading_info=True)
    assert not any(said[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    wanted = logits(runs[name])
    with torch.no_grad():
        assert (model.eval()(pixels()).logits - wanted).abs().max() < 1e-5 * wanted.abs().max()
    assert model.config.id2label[3] == runs[name].data.classes[3]
    again = build_model(without_lora(runs[name], out), CPU, torch.float32).eval()
    with torch.no_grad():
        assert (again(pixels()) - wanted).abs().max() < 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("name", ["lm", "lora-gpt2"])
def test_transformers_loads_the_decoder(
    runs: dict[str, RunSpec], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "hf"
    convert(runs[name].run_dir, to="hf", merge_lora=name.startswith("lora"), output=out)
    printed = capsys.readouterr().out
    assert "has no place for it: " in printed
    assert "head.weight" in printed
    model, said = AutoModel.from_pretrained(out, output_loading_info=True)
    assert not any(said[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ours = built(runs[name])
    if runs[name].recipe.model.lora is not None:
        convert(runs[name].run_dir, to="safetensors", weights_only=True, merge_lora=True, output=tmp_path / "merged")
        ours = build_model(without_lora(runs[name], tmp_path / "merged"), CPU, torch.float32).eval()
    tokens = torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        right = ours.backbone(inputs_embeds=tokens).last_hidden_state
        found = model.eval()(inputs_embeds=tokens).last_hidden_state
    torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-6)


def test_dtypes(runs: dict[str, RunSpec], tmp_path: Path) -> None:
    right, _, _ = live(runs["zero2"])
    convert(runs["zero2"].run_dir, to="safetensors", weights_only=True, dtype="fp16", output=tmp_path / "half")
    assert equal(
        load_file(tmp_path / "half" / "model.safetensors"), {one: value.half() for one, value in right.items()}
    )
    convert(runs["zero2"].run_dir, to="pytorch", dtype="bf16", output=tmp_path / "low.pth")
    loaded = torch.load(tmp_path / "low.pth", weights_only=True)
    assert equal(loaded["model"], {one: value.bfloat16() for one, value in right.items()})
    kept = {value.dtype for kinds in loaded["optimizer"]["state"].values() for value in kinds.values()}
    assert kept == {torch.float32}
    stored = load_file(checkpoint(runs["zero2"]) / WEIGHTS)  # masters are more than what the model file has
    assert any(not torch.equal(stored[one].float(), value) for one, value in right.items())
    right, _, _ = live(runs["probe"])
    convert(runs["probe"].run_dir, to="safetensors", weights_only=True, dtype="bf16", output=tmp_path / "probe")
    low = load_file(tmp_path / "probe" / "model.safetensors")
    assert torch.equal(low["head_norm.running_var"], right["head_norm.running_var"])  # buffers stay as they are
    assert low["head.weight"].dtype == torch.bfloat16


def test_canonical_again_and_in_shards(runs: dict[str, RunSpec], tmp_path: Path) -> None:
    right, state, groups = live(runs["zero3"])
    convert(runs["zero3"].run_dir, to="safetensors", output=tmp_path / "one")
    to_canonical(canonical_content(tmp_path / "one", optimizer=True), tmp_path / "shards", limit=3000)
    files = [path.name for path in (tmp_path / "shards").glob("*.safetensors")]
    assert len([name for name in files if name.startswith("model-")]) > 2
    assert len([name for name in files if name.startswith("optimizer-")]) > 2
    again = read_state(tmp_path / "shards", groups)
    assert equal({one: again.weights[one]() for one in right}, right)
    assert all(torch.equal(again.moments[one]["exp_avg"](), state.moments[one]["exp_avg"]()) for one in groups[0])
    convert(tmp_path / "shards", to="pytorch", output=tmp_path / "out.pth")
    assert equal(torch.load(tmp_path / "out.pth", weights_only=True)["model"], right)


def test_training_goes_on_from_the_canonical_form(runs: dict[str, RunSpec], tmp_path: Path) -> None:
    """Its files say nothing of ddp; a run with as many ranks drops the same activations."""
    convert(checkpoint(runs[LONG]), to="safetensors", output=tmp_path / "canonical")
    told = {"origin": tmp_path / "canonical", "origin_step": STEPS}
    specs = [long_run(strategy, tmp_path / strategy, **told) for strategy in ("fsdp2", "zero2", "zero3")]
    run_together([Work(str(spec.run_dir), whole=True) for spec in specs], 2, tmp_path / "start")
    right = column(runs[LONG], "loss")[STEPS:]
    for spec in specs:
        assert column(spec, "step") == list(range(STEPS + 1, 2 * STEPS + 1))
        assert column(spec, "loss") == pytest.approx(right, rel=1e-6)
        assert column(spec, "lr") == column(runs[LONG], "lr")[STEPS:]


def test_other_frozen_weights_leave_nothing(runs: dict[str, RunSpec], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["lora-vit"].run_dir, run)
    spec = json.loads((run / "run.json").read_text())
    spec["recipe"]["train"]["seed"] += 1  # the frozen weights were drawn from it
    (run / "run.json").write_text(json.dumps(spec))
    for form, output in (("safetensors", tmp_path / "out"), ("pytorch", tmp_path / "out.pth")):
        with pytest.raises(UserError, match="was trained on other frozen weights"):
            convert(run, to=form, output=output)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    moved = tmp_path / "moved"
    shutil.copytree(checkpoint(runs["lora-vit"]), moved)
    assert (moved / FROZEN).is_file()
    with pytest.raises(UserError, match=r"lies outside of that run: give RUN or RUN@STEP"):
        convert(moved, to="pytorch", output=tmp_path / "out.pth")


def test_inspect_names_what_is_missing(
    runs: dict[str, RunSpec], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = runs["zero3"]
    assert convert(spec.run_dir, inspect=True) == 0
    said = {line[:12].strip(): line[12:].strip() for line in capsys.readouterr().out.splitlines()}
    assert (said["strategy"], said["ZeRO stage"], said["world size"]) == ("zero3", "3", "2")
    assert (said["step"], said["dtype"]) == ("5 of 5", "fp32")
    assert int(said["parameters"].replace(",", "")) == sum(one.numel() for one in built(spec).parameters())
    path = tmp_path / f"step-{STEPS:06d}"
    shutil.copytree(checkpoint(spec), path)
    lost = f"global_step{STEPS}/zero_pp_rank_1_mp_rank_00_optim_states.pt"
    (path / lost).unlink()
    assert convert(path, inspect=True) == 2
    assert f"missing: {lost}\n" in capsys.readouterr().out
    (path / "manifest.json").unlink()  # as a crash leaves it
    assert convert(path, inspect=True) == 2
    said_now = capsys.readouterr().out
    assert "missing: manifest.json\n" in said_now
    assert f"missing: {lost}\n" in said_now
