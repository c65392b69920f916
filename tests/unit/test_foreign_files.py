"""`zerofit train RECIPE --resume DIR`, of another program's checkpoint: what is taken and what refused."""

from __future__ import annotations

import argparse
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_checkpoints import RECIPE, vit_weights, write_zero3
from torch import Tensor

from zerofit.checkpoint.foreign_resume import fitted
from zerofit.config.errors import UserError
from zerofit.config.load import load_recipe
from zerofit.launch.dispatch import Launch
from zerofit.launch.start import begin, go_on, train
from zerofit.plan.files import read_spec
from zerofit.plan.spec import Hardware

CPU = Hardware(device="cpu", count=1, name="CPU", memory_gib=8.0, capability=None, cpus=2)
SGD = ("optimizer.name=sgd", "optimizer.lr=0.1")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with the recipe."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZEROFIT_DEVICE", "cpu")
    (tmp_path / "vit.yaml").write_text(RECIPE)
    return tmp_path


def begun(directory: Path, *overrides: str, trust: bool = False) -> Launch:
    """A run that would be started now."""
    launch = begin(load_recipe("vit.yaml", overrides), CPU, 1, trust=trust, resume=directory)
    assert launch.lock is not None
    os.close(launch.lock)
    return launch


def refusal(directory: Path, *overrides: str, **options: Any) -> str:
    """The line that is said; nothing is left behind."""
    with pytest.raises(UserError) as caught:
        train("vit.yaml", overrides, resume=directory, **options)
    said = str(caught.value)
    assert "\n" not in said
    assert not Path("runs").exists()
    return said


def test_state_comes_under_our_names(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = vit_weights()
    launch = begun(write_zero3(here / "program", weights))
    spec = read_spec(launch.run_dir)
    assert (spec.origin, spec.origin_step) == ((here / "program/global_step3").resolve(), 3)
    assert launch.arguments == (str(launch.run_dir),)
    assert capsys.readouterr().out.splitlines() == [
        f"goes on from step 3: weights and AdamW moments of {len(weights)} parameters from {spec.origin} "
        "(zero3 on 2 ranks) are taken over by ddp on 1 rank",
        "its learning rate schedule is not taken: the recipe's holds, at that step",
    ]
    state = fitted(spec).state
    assert len(state.weights) == len(weights)
    for name, value in weights.items():
        ours = name.replace("vit.", "backbone.", 1).replace("classifier.", "head.", 1)
        assert torch.equal(state.weights[ours](), value)
        assert torch.equal(state.moments[ours]["exp_avg"](), -value)
        assert torch.equal(state.moments[ours]["exp_avg_sq"](), value.square())
        assert state.counts[ours] == 3


def test_names_of_earlier_releases_are_known(here: Path) -> None:
    def old(name: str) -> str:
        name = name.replace("vit.layers.", "vit.encoder.layer.")
        name = re.sub(r"attention\.([qkv])_proj", lambda found: f"attention.attention.{LONG[found[1]]}", name)
        name = name.replace("attention.o_proj", "attention.output.dense")
        return name.replace("mlp.fc1", "intermediate.dense").replace("mlp.fc2", "output.dense")

    weights = vit_weights()
    renamed = {old(name): value for name, value in weights.items()}
    assert renamed.keys() != weights.keys()
    state = fitted(read_spec(begun(write_zero3(here / "program", renamed)).run_dir)).state
    name = "layers.0.attention.q_proj.weight"
    assert torch.equal(state.weights[f"backbone.{name}"](), weights[f"vit.{name}"])
    assert torch.equal(state.moments[f"backbone.{name}"]["exp_avg"](), -weights[f"vit.{name}"])


LONG = {"q": "query", "k": "key", "v": "value"}


def test_a_crash_before_the_first_checkpoint_begins_there_again(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = write_zero3(here / "program", vit_weights())
    run = begun(program).run_dir
    first = capsys.readouterr().out
    write_zero3(program, vit_weights(), step=5)  # the program has gone on, too
    launch = go_on(run, None, ("strategy=fsdp2",), CPU, 1)
    assert launch.lock is not None
    os.close(launch.lock)
    assert launch.arguments == (str(run),)
    assert capsys.readouterr().out == first.replace("by ddp", "by fsdp2")
    assert read_spec(run).origin_step == 3
    shutil.rmtree(program / "global_step3")
    with pytest.raises(UserError, match=r"^--resume: .*global_step3 is not there"):
        go_on(run, None, (), CPU, 1)


def test_what_is_not_taken_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = vit_weights()
    program = write_zero3(here / "program", weights, lr_scheduler=None, global_samples=3 * 64)
    torch.save({"step": 700, "epoch": 9}, program / "client_state.pt")
    begun(program, r"model.trainable=[{pattern: 'layers', freeze: true}, .]")
    lines = capsys.readouterr().out.splitlines()
    frozen = sum("layers" in name for name in weights)
    assert lines[0].startswith(f"goes on from step 3: weights and AdamW moments of {len(weights) - frozen} parameters")
    assert lines[1] == "client_state.pt says step 700, DeepSpeed 3: 3 is taken"
    assert lines[2].startswith(f"moments of {frozen} parameters that are frozen here are dropped: backbone.layers.0.")
    assert lines[3:] == [
        "its steps took 64 samples, the recipe's take 16",
        "its epoch is 9; in the recipe's order of samples that step is in epoch 0.0",
    ]


@pytest.mark.parametrize("where", ["client_state.pt", "the model states", "trainer_state.json"])
def test_who_says_the_step(here: Path, where: str) -> None:
    program = write_zero3(here / "program", vit_weights(), global_steps=None)
    if where == "client_state.pt":
        torch.save({"global_step": 4, "epoch": 0}, program / where)
    elif where == "trainer_state.json":  # Trainer counts on where the engine began anew
        shutil.rmtree(program)
        write_zero3(program, vit_weights())
        (program / where).write_text('{"global_step": 4}')
    else:
        shutil.rmtree(program)
        write_zero3(program, vit_weights(), global_steps=None, step=4).joinpath("latest").unlink()
        program = program / "global_step4"
        model = program / "zero_pp_rank_0_mp_rank_00_model_states.pt"
        torch.save({**torch.load(model, weights_only=True), "step": 4}, model)
    assert read_spec(begun(program).run_dir).origin_step == 4


def test_weights_that_were_frozen_there_are_taken(here: Path) -> None:
    weights = vit_weights()
    head = {name: value for name, value in weights.items() if name.startswith("classifier.")}
    body = {name: value for name, value in weights.items() if name not in head}
    rules = r"model.trainable=[{pattern: '^backbone', freeze: true}, .]"
    whole = write_zero3(here / "whole", head, frozen=body)
    assert set(fitted(read_spec(begun(whole, rules).run_dir)).state.weights) == {"head.weight", "head.bias"}
    shutil.rmtree("runs")
    assert "has no optimizer state of backbone.embeddings.cls_token" in refusal(whole)
    assert "lacks backbone.embeddings.cls_token" in refusal(write_zero3(here / "part", head), rules)


Damage = Callable[[Path], object]
RANK_1 = "global_step3/zero_pp_rank_1_mp_rank_00"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: (path / f"{RANK_1}_optim_states.pt").unlink(), "rank_1_mp_rank_00_optim_states.pt is missing"),
        (lambda path: (path / f"{RANK_1}_model_states.pt").unlink(), "rank_1_mp_rank_00_model_states.pt is missing"),
        (lambda path: [one.unlink() for one in path.glob("*/*optim*")], "has no optimizer states"),
        (lambda path: [one.unlink() for one in path.glob("*/*model*")], "has no model states"),
        (lambda path: shutil.rmtree(path / "global_step3"), "names global_step3, which is not there"),
        (lambda path: (path / "latest").unlink(), "did you mean"),
        (lambda path: (path / f"{RANK_1}_optim_states.pt").write_bytes(b"PK\3\4"), "is broken"),
        (lambda path: torch.save([3], path / "client_state.pt"), "holds a list, not a dict"),
        (
            lambda path: torch.save(
                {"optimizer_state_dict": {"partition_count": 2}}, path / f"{RANK_1}_optim_states.pt"
            ),
            "is no such file of DeepSpeed",
        ),
    ],
)
def test_files_that_are_missing_or_damaged_are_named(here: Path, damage: Damage, said: str) -> None:
    program = write_zero3(here / "program", vit_weights())
    damage(program)
    found = refusal(program)
    assert found.startswith("--resume: ")
    assert said in found


def test_another_model_or_optimizer_is_refused(here: Path) -> None:
    weights = vit_weights()
    program = write_zero3(here / "program", weights)
    for overrides, said in (
        (SGD, "keeps exp_avg, exp_avg_sq of vit.embeddings.cls_token, but sgd keeps momentum_buffer"),
        (("model.image_size=16",), "(1, 5, 16) there, but (1, 17, 16) in the recipe's model"),
        (("train.max_steps=3",), "stands at step 3, and the recipe has 3 in all"),
        (("model.shape.num_hidden_layers=2",), "has no optimizer state of backbone.layers.1."),
        (("model.lora.rank=2",), "has no adapters"),
        (("task=probe", "probe.features=cached", "strategy=single"), "cached features"),
    ):
        found = refusal(program, *overrides)
        assert said in found
        assert f"init_from={program}" in found or "raise train.max_steps" in found
    momentum = write_zero3(here / "momentum", weights, moments={"momentum_buffer": torch.neg})
    assert "keeps momentum_buffer of vit.embeddings.cls_token, but adamw keeps exp_avg" in refusal(momentum)
    begun(momentum, *SGD)
    shutil.rmtree("runs")
    pooler = {**weights, "vit.pooler.dense.weight": torch.zeros(16, 16)}
    assert "trained vit.pooler.dense.weight, which the recipe's" in refusal(write_zero3(here / "pooler", pooler))
    assert "before the first step" in refusal(write_zero3(here / "first", weights, step=0))
    silent = write_zero3(here / "silent", weights, global_steps=None)
    assert "does not say its step" in refusal(silent)
    replicated = write_zero3(here / "replicated", weights, param_shapes=None)
    assert "has no param_shapes" in refusal(replicated)


def test_what_contradicts_itself_is_refused(here: Path) -> None:
    program = write_zero3(here / "program", vit_weights())
    assert "leave one of them out" in refusal(program, f"init_from={program}")
    with pytest.raises(UserError, match="is no run of zerofit: name the recipe"):
        train(None, resume=program)
    other = here / "other"
    other.mkdir()
    assert "there is nothing" in refusal(other)
    (other / "model.safetensors").touch()
    assert "neither latest nor *_states.pt; there is model.safetensors" in refusal(other)
    run = begun(program).run_dir
    with pytest.raises(UserError, match="goes on as it was started"):
        train("vit.yaml", resume=run, trust=True)


@pytest.mark.parametrize("place", ["client_state.pt", f"{RANK_1}_optim_states.pt"])
def test_a_pickle_that_needs_more_is_named(here: Path, place: str) -> None:
    program = write_zero3(here / "program", vit_weights())
    path = program / place
    content: dict[str, Tensor] = torch.load(path, weights_only=True) if path.exists() else {}
    torch.save({**content, "args": argparse.Namespace(lr=1e-3)}, path)
    found = refusal(program)
    assert "needs argparse.Namespace" in found
    assert "--trust" in found
    assert read_spec(begun(program, trust=True).run_dir).trust
