"""`init_from`: the same weights out of every kind of file, what is said of the rest, and what is refused."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import CPU, GPT2, QWEN3, VIT, build, equal_weights, pixels, tiny_spec
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)

from zerofit.config.errors import UserError
from zerofit.launch.origin import resolve
from zerofit.models.build import build_model
from zerofit.models.classifier import ImageClassifier
from zerofit.models.placement import WholePlacement

LM = {"kind": "patch_lm", "shape": QWEN3, "image_size": 8}
VISION = {"kind": "vit", "shape": VIT, "image_size": 8}


def built_from(path: Path, model: dict[str, Any], *, trust: bool = False, task: str = "classify", **plan: Any) -> Any:
    """The model of the recipe, with the weights at `path`, seed 1."""
    spec = tiny_spec(model, seed=1, **plan)
    recipe = spec.recipe.model_copy(update={"task": task})
    spec = spec.model_copy(update={"recipe": recipe, "origin": path, "trust": trust})
    return build_model(spec, WholePlacement(CPU, torch.float32), torch.float32)


def weights(model: ImageClassifier) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def saved(path: Path, value: Any, **options: Any) -> Path:
    torch.save(value, path, **options)
    return path


@pytest.mark.parametrize("form", ["bare", "model", "state_dict", "ddp", "old", "safetensors", "directory"])
def test_every_kind_of_file_gives_the_same_weights(tmp_path: Path, form: str) -> None:
    source = build(LM)
    state = weights(source)
    path = tmp_path / "weights.pth"
    if form == "bare":
        saved(path, state)
    elif form in ("model", "state_dict"):
        saved(path, {form: state, "epoch": 3, "optimizer": {"state": {}}})
    elif form == "ddp":
        saved(path, {"model": {f"module.{name}": value for name, value in state.items()}})
    elif form == "old":
        saved(path, state, _use_new_zipfile_serialization=False)
    else:
        path = tmp_path / "model.safetensors"
        save_file(state, path)
    assert equal_weights(built_from(tmp_path if form == "directory" else path, LM), source)


def test_transformers_names_are_known_and_their_head_with_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = {**VIT, "image_size": 8, "num_labels": 5}
    published = ViTForImageClassification(ViTConfig(**fields)).eval()
    path = saved(tmp_path / "vit.pth", {"model": published.state_dict()})
    ours = built_from(path, VISION).eval()
    images = pixels()
    with torch.no_grad():
        torch.testing.assert_close(ours(images), published(pixel_values=images).logits)
    published.save_pretrained(tmp_path / "hub")
    assert equal_weights(built_from(tmp_path / "hub", VISION), ours)
    capsys.readouterr()
    other = built_from(path, VISION, classes=7)
    assert torch.equal(other.head.weight, build(VISION, classes=7, seed=1).head.weight)
    said = capsys.readouterr().out
    assert re.search(r"drawn fresh +2  head.weight, head.bias \(head.weight has shape \(5, 32\) there, \(7, 32\)", said)


def test_a_language_model_gives_its_blocks_and_patches_are_fresh(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = Qwen3ForCausalLM(Qwen3Config(**QWEN3))
    path = saved(tmp_path / "qwen.bin", published.state_dict())
    fresh, ours = weights(build(LM, seed=1)), weights(built_from(path, LM))
    theirs = {f"backbone.{name}": value for name, value in published.model.state_dict().items()}
    assert {name for name in ours if name in theirs} == {name for name in ours if name.startswith("backbone.")}
    for name, value in ours.items():
        assert torch.equal(value, theirs.get(name, fresh[name])), name
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"weights from {path}"
    assert [line.split()[:2] for line in lines[1:]] == [["read", "23"], ["drawn", "fresh"], ["not", "used"]]
    assert "head.weight, head.bias, patch_embedding.weight and 1 more" in lines[2]
    assert "lm_head.weight" in lines[3]


def test_split_and_fused_tensors_are_converted(tmp_path: Path) -> None:
    model = {"kind": "patch_lm", "shape": GPT2, "image_size": 8}
    published = GPT2LMHeadModel(GPT2Config(**GPT2))
    ours = built_from(saved(tmp_path / "gpt2.pt", published.state_dict()), model)
    assert torch.equal(ours.backbone.h[1].attn.c_attn.weight, published.transformer.h[1].attn.c_attn.weight)
    assert torch.equal(ours.backbone.wpe.weight, published.transformer.wpe.weight)


def test_positions_of_another_image_size_are_resampled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = build({**VISION, "image_size": 4})
    ours = built_from(saved(tmp_path / "small.pth", weights(source)), VISION)
    place = "backbone.embeddings.position_embeddings"
    assert source.get_parameter(place).shape == (1, 5, 32)
    assert ours.get_parameter(place).shape == (1, 17, 32)
    assert torch.equal(ours.get_parameter(place)[:, 0], source.get_parameter(place)[:, 0])
    assert torch.equal(ours.head.weight, source.head.weight)
    assert f"resampled       1  {place}" in capsys.readouterr().out


def test_a_probe_never_takes_the_head(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = build(LM)
    state = {**weights(source), "head_norm.running_mean": torch.zeros(32)}
    probe = built_from(saved(tmp_path / "run.pth", state), LM, task="probe")
    assert torch.equal(probe.head.weight, build(LM, seed=1).head.weight)
    assert torch.equal(probe.patch_embedding.weight, source.patch_embedding.weight)
    said = capsys.readouterr().out
    assert "head.weight, head.bias (a probe's head always is)" in said
    assert "not used        3  head.weight, head.bias, head_norm.running_mean" in said


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = weights(build(LM))
    path = tmp_path / "weights.pth"

    def refusal(model: dict[str, Any], **changes: Tensor | None) -> str:
        left = {**state, **changes}
        saved(path, {name: value for name, value in left.items() if value is not None})
        with pytest.raises(UserError) as caught:
            built_from(path, model)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    name = "backbone.layers.0.mlp.up_proj.weight"
    wider = {**LM, "shape": {**QWEN3, "intermediate_size": 64}}
    assert re.search(rf"{re.escape(name)}|gate_proj.*\(48, 32\) there, but \(64, 32\)", refusal(wider))
    assert f"lacks {name}, which" in refusal(LM, **{name: None})
    assert "lacks patch_embedding.weight" in refusal(LM, **{"patch_embedding.weight": None})
    assert "lacks cls_token" in refusal({**LM, "pool": "cls"})
    assert "int8" in refusal(LM, **{name: state[name].to(torch.int8)})
    deeper = {**LM, "shape": {**QWEN3, "num_hidden_layers": 4}}
    said = refusal(deeper)
    assert "backbone.layers.2.self_attn.q_proj.weight" in said
    assert "and 19 more" in said
    assert "lacks backbone." in refusal(VISION)


class Hostile:
    """Makes a directory when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


class Settings:
    """A class that a training script has put beside the weights."""


@pytest.mark.parametrize("form", ["zip", "old", "bare pickle", "deepspeed"])
def test_a_hostile_pickle_does_nothing(tmp_path: Path, form: str) -> None:
    made = tmp_path / "made"
    value = {"args": Hostile(made), "model": weights(build(LM))}
    path = tmp_path / "weights.pth"
    if form == "bare pickle":
        path.write_bytes(pickle.dumps(value, protocol=2))
    elif form == "deepspeed":
        path = tmp_path / "global_step1"
        path.mkdir()
        saved(path / "mp_rank_00_model_states.pt", {"module": value["model"], "args": Hostile(made)})
    else:
        saved(path, value, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(UserError, match=r"needs posix\.mkdir") as caught:
        built_from(path, LM)
    assert "--trust" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not made.exists()


def test_trust_reads_what_needs_more(tmp_path: Path) -> None:
    source = build(LM)
    path = saved(tmp_path / "weights.pth", {"model": weights(source), "args": Settings()})
    with pytest.raises(UserError, match=rf"needs {Settings.__module__}\.Settings"):
        built_from(path, LM)
    assert equal_weights(built_from(path, LM, trust=True), source)


def test_what_holds_no_weights_is_refused_in_one_line(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole.pth", weights(build(LM)))
    files = {
        "cut.pth": whole.read_bytes()[:-2000],
        "empty.pth": b"",
        "noise.bin": bytes(range(256)) * 8,
        "cut.safetensors": b"\x40\0\0\0\0\0\0\0{",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    saved(tmp_path / "numbers.pt", {"epoch": 3, "loss": 0.1})
    saved(tmp_path / "list.pt", [torch.zeros(1)])
    for name, said in {
        "cut.pth": "is broken",
        "empty.pth": "is broken",
        "noise.bin": "is broken",
        "cut.safetensors": "is broken",
        "numbers.pt": "it has no tensors, but epoch, loss",
        "list.pt": "holds a list",
    }.items():
        with pytest.raises(UserError, match=re.escape(said)) as caught:
            built_from(tmp_path / name, LM)
        assert "\n" not in str(caught.value), name
        assert str(caught.value).startswith(f"init_from: {tmp_path / name} "), caught.value


def test_paths_are_looked_at_before_anything_begins(tmp_path: Path) -> None:
    def refusal(path: Path) -> str:
        with pytest.raises(UserError) as caught:
            resolve(str(path))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "does not exist" in refusal(tmp_path / "gone")
    (tmp_path / "notes.txt").touch()
    assert "notes.txt is of no known kind" in refusal(tmp_path / "notes.txt")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "looked for model.safetensors" in refusal(empty)
    assert "there is nothing" in refusal(empty)
    (empty / "weights.pth").touch()
    assert f"there is weights.pth; did you mean {empty / 'weights.pth'}?" in refusal(empty)
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").touch()
    assert "no complete checkpoint" in refusal(run)
    part = tmp_path / "part"
    part.mkdir()
    save_file({"head.weight": torch.zeros(1)}, part / "model.safetensors")
    (part / "frozen.json").write_text("{}")
    assert "zerofit export RUN DIR" in refusal(part)
    (part / "frozen.json").unlink()
    assert resolve(str(part)) == part


def test_deepspeed_directories_that_cannot_be_whole_are_refused(tmp_path: Path) -> None:
    def refusal(*names: str) -> str:
        tag = tmp_path / f"tag{len(list(tmp_path.iterdir()))}"
        tag.mkdir()
        for name in names:
            saved(tag / name, {"module": {}, "param_shapes": [{}], "optimizer_state_dict": {"partition_count": 2}})
        with pytest.raises(UserError) as caught:
            built_from(tag, LM)
        return str(caught.value)

    assert "tensor-parallel" in refusal("mp_rank_00_model_states.pt", "mp_rank_01_model_states.pt")
    assert "pipeline" in refusal("layer_00-model_00-model_states.pt", "mp_rank_00_model_states.pt")
    zero, one = (f"zero_pp_rank_{rank}_mp_rank_00" for rank in (0, 1))
    assert "lacks the file of rank 0" in refusal(f"{one}_model_states.pt")
    both = (f"{zero}_model_states.pt", f"{one}_model_states.pt")
    assert "of 1 ranks, but was written by 2" in refusal(*both, f"{zero}_optim_states.pt")
    assert "has no fp32_flat_groups" in refusal(*both, f"{zero}_optim_states.pt", f"{one}_optim_states.pt")
    assert "there is zero_pp_rank_0_mp_rank_00_optim_states.pt" in refusal(f"{zero}_optim_states.pt")
    latest = tmp_path / "latest"
    latest.write_text("global_step9")
    with pytest.raises(UserError, match="names global_step9, which is not there"):
        resolve(str(tmp_path))
