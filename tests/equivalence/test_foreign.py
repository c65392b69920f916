"""DeepSpeed's own checkpoints, of any ZeRO stage, are exported bit by bit, and what they lack is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from starts import run_script
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from zerofit.checkpoint.canonical import read_canonical
from zerofit.config.errors import UserError
from zerofit.launch.convert import convert

TAG = "global_step3"
STAGES = {"0": 0, "1": 1, "2": 2, "1-bf16": 1, "2-bf16": 2, "3": 3, "3-bf16": 3}  # stage 3 changes F.linear for good
ZERO = [name for name in STAGES if name != "0"]


def settings(name: str) -> dict[str, Any]:
    """Small sub-groups: of stage 3 an optimizer group has several shards."""
    zero = {"stage": STAGES[name], "stage3_param_persistence_threshold": 0, "sub_group_size": 60}
    common = {"train_micro_batch_size_per_gpu": 4, "zero_allow_untested_optimizer": True, "gradient_clipping": 1.0}
    return {**common, "zero_optimization": zero, "bf16": {"enabled": name.endswith("bf16")}}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("deepspeed")
    cases = [[f"stage-{name}", settings(name)] for name in STAGES]
    (directory / "works.json").write_text(json.dumps({"directory": str(directory), "cases": cases}))
    run_script("deepspeed_worker.py", directory / "works.json", world=2)
    return directory


def live(written: Path, name: str) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """What the engine held, by name: weights and buffers, and moments."""
    held = torch.load(written / f"stage-{name}.live.pth", weights_only=True)
    return {**held["weights"], **held["buffers"]}, held["moments"]


def differing(found: dict[str, Tensor], right: dict[str, Tensor]) -> list[str]:
    return [
        name
        for name in found.keys() | right.keys()
        if name not in found or name not in right or found[name].dtype != right[name].dtype
        if not torch.equal(found[name], right[name])
    ] + [name for name in found.keys() & right.keys() if not torch.equal(found[name], right[name])]


@pytest.mark.parametrize("name", STAGES)
def test_every_tensor_is_there_as_the_engine_held_it(written: Path, name: str, tmp_path: Path) -> None:
    right, _ = live(written, name)
    assert torch.equal(right["head.weight"], right["embedding.weight"])
    assert right["scale"].shape == (1,)
    assert right["lora_B.weight"].any()
    source = written / f"stage-{name}"
    for weights_only in (True, False):
        out = tmp_path / f"{weights_only}"
        assert convert(source, to="safetensors", weights_only=weights_only, output=out) == 0
        assert differing(load_file(out / "model.safetensors"), right) == []
    assert convert(source / TAG, to="pytorch", weights_only=True, output=tmp_path / "out.pth") == 0
    loaded = torch.load(tmp_path / "out.pth", weights_only=True)
    assert loaded.keys() == {"model"}
    assert differing(loaded["model"], right) == []


@pytest.mark.parametrize("name", ZERO)
def test_the_optimizer_is_there_by_names(written: Path, name: str, tmp_path: Path) -> None:
    _, moments = live(written, name)
    convert(written / f"stage-{name}", to="pytorch", output=tmp_path / "out.pth")
    optimizer = torch.load(tmp_path / "out.pth", weights_only=True)["optimizer"]
    trained = moments.keys() - {"head.weight"}  # which is the embedding
    assert optimizer["state"].keys() == trained
    for one, kinds in optimizer["state"].items():
        assert kinds.pop("step") == 3
        assert differing(kinds, moments[one]) == []
    first, second = optimizer["param_groups"]
    assert set(first["params"]) == {"scale", "norm.weight", "norm.bias", "head.bias"}
    assert set(second["params"]) == {"embedding.weight", "lora_A.weight", "lora_B.weight"}
    assert (first["weight_decay"], second["weight_decay"]) == (0.0, 0.1)
    assert first["lr"] == second["lr"] == pytest.approx(1e-3)
    convert(written / f"stage-{name}", to="safetensors", output=tmp_path / "out")
    state = read_canonical(tmp_path / "out")
    assert {one: state.counts[one] for one in trained} == dict.fromkeys(trained, 3.0)
    assert all(differing({k: r() for k, r in state.moments[one].items()}, moments[one]) == [] for one in trained)
    assert state.schedule["last_epoch"] == 3


def test_without_optimizer_files_weights_alone_are_written(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    shutil.copytree(written / "stage-2-bf16", source)
    for path in source.glob("*/*_optim_states.pt"):
        path.unlink()
    convert(source, to="pytorch", output=tmp_path / "out.pth")
    assert "has no optimizer files: weights are those of mp_rank_00_model_states.pt" in capsys.readouterr().out
    loaded = torch.load(tmp_path / "out.pth", weights_only=True)
    right, _ = live(written, "2-bf16")
    floats = {name: value for name, value in right.items() if name not in ("running", "seen", "mask")}
    assert loaded.keys() == {"model"}
    assert all(torch.equal(loaded["model"][name], value.bfloat16().float()) for name, value in floats.items())
    for path in (source / TAG, written / "stage-3" / TAG):
        part = tmp_path / f"part-{path.parent.name}"
        shutil.copytree(path, part)
        for file in part.glob("*optim_states.pt"):
            file.unlink()
    with pytest.raises(UserError, match=r"none of the files that hold its trained weights: zero_pp_rank_N_mp_rank_00"):
        convert(tmp_path / "part-stage-3", to="pytorch", output=tmp_path / "other.pth")


@pytest.mark.parametrize("name", STAGES)
def test_inspect_says_what_it_is(written: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(written / f"stage-{name}", inspect=True) == 0
    said = {line[:12].strip(): line[12:].strip() for line in capsys.readouterr().out.splitlines()}
    right, _ = live(written, name)
    buffers = {"running", "seen", "mask", "head.weight"}  # the head's is the embedding's
    assert said["strategy"] == "DeepSpeed"
    assert said["ZeRO stage"] == ("none" if name == "0" else name[0])
    assert (said["world size"], said["step"], said["complete"]) == ("2", "3", "yes")
    assert int(said["parameters"]) == sum(one.numel() for key, one in right.items() if key not in buffers)
    assert said["dtype"] == ("bf16" if name.endswith("bf16") else "fp32")


@pytest.mark.parametrize("name", ["1", "2-bf16", "3", "3-bf16"])
def test_inspect_names_each_missing_file(
    written: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = written / f"stage-{name}"
    files = sorted(path.relative_to(source).as_posix() for path in source.glob(f"{TAG}/*.pt"))
    assert len(files) == (4 if name[0] == "3" else 3)
    for number, lost in enumerate(files):
        copy = tmp_path / str(number)
        shutil.copytree(source, copy)
        (copy / lost).unlink()
        assert convert(copy, inspect=True) == 2
        lines = capsys.readouterr().out.splitlines()
        assert [line for line in lines if line.startswith(("missing", "wrong"))] == [f"missing: {lost}"]
        assert "complete     no" in lines or "complete    no" in lines
    shutil.rmtree(tmp_path / "0" / TAG)
    assert convert(tmp_path / "0", inspect=True) == 2
    assert f"missing: {TAG}/\n" in capsys.readouterr().out


def test_a_file_too_few_stops_the_export(written: Path, tmp_path: Path) -> None:
    for name in ("1", "3"):
        copy = tmp_path / name
        shutil.copytree(written / f"stage-{name}", copy)
        (copy / TAG / "zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
        with pytest.raises(UserError, match=r"^(?!init_from).*\*_optim_states.pt of 1 ranks, but was written by 2"):
            convert(copy, to="pytorch", output=tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize(
    "broken",
    [
        {"param_shapes": 5},
        {"param_shapes": [{"embedding.weight": (10**9, 10**9)}]},
        {"shared_params": ["head.weight"]},
        {"buffer_names": 3},
        {"dp_world_size": 10**12, "global_steps": "three", "ds_config": ["x"]},
    ],
    ids=lambda broken: "-".join(broken),
)
@pytest.mark.parametrize("name", ["2", "3"])
def test_metadata_of_strangers_is_no_crash(
    written: Path, name: str, broken: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(written / f"stage-{name}", copy)
    for path in (copy / TAG).glob("*model_states.pt"):
        torch.save({**torch.load(path, weights_only=True), **broken}, path)
    said = []
    for words in ({"inspect": True}, {"to": "pytorch", "output": tmp_path / "out.pth"}):
        try:
            convert(copy, **words)  # type: ignore[arg-type]
        except UserError as error:
            said += str(error).splitlines()
    assert len(said) <= 2
    assert len(capsys.readouterr().out) < 5000
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_transformers_loads_a_foreign_one_with_its_config(tmp_path: Path) -> None:
    config = GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=8, vocab_size=20, tie_word_embeddings=True)
    model, source = GPT2LMHeadModel(config), tmp_path / "source"
    (source / TAG).mkdir(parents=True)
    (source / "latest").write_text(TAG)
    torch.save({"module": model.state_dict(), "buffer_names": []}, source / TAG / "mp_rank_00_model_states.pt")
    with pytest.raises(UserError, match=r"--to hf needs the model's config.json, and there is none in .*source: copy"):
        convert(source, to="hf", output=tmp_path / "hf")
    model.config.architectures = ["GPT2LMHeadModel"]
    model.config.to_json_file(source / "config.json")
    convert(source, to="hf", dtype="bf16", output=tmp_path / "hf")
    found, said = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not any(said[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert found.dtype == torch.bfloat16
    right = {name: value.bfloat16() for name, value in model.state_dict().items()}
    assert differing(dict(found.state_dict()), right) == []


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks for it
@pytest.mark.parametrize("rooted", [False, True])
def test_peft_adapters_of_a_foreign_one_are_merged(tmp_path: Path, rooted: bool) -> None:
    torch.manual_seed(0)
    config = GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=8, vocab_size=20, tie_word_embeddings=True)
    targets = {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, "init_lora_weights": False}
    lora = LoraConfig(r=2, lora_alpha=5, use_rslora=rooted, modules_to_save=["ln_f"], **targets)
    model, source = get_peft_model(GPT2LMHeadModel(config), lora), tmp_path / "source"
    with torch.no_grad():
        model.base_model.model.transformer.ln_f.modules_to_save["default"].weight.mul_(2)
    (source / TAG).mkdir(parents=True)
    (source / "latest").write_text(TAG)
    torch.save({"module": model.state_dict(), "buffer_names": []}, source / TAG / "mp_rank_00_model_states.pt")
    with pytest.raises(UserError, match=r"--merge-lora needs peft's adapter_config.json in .*source: copy it there"):
        convert(source / TAG, to="safetensors", weights_only=True, merge_lora=True, output=tmp_path / "out")
    lora.save_pretrained(source)
    convert(source / TAG, to="safetensors", weights_only=True, merge_lora=True, output=tmp_path / "out")
    convert(source, to="safetensors", weights_only=True, output=tmp_path / "apart")
    apart = load_file(tmp_path / "apart" / "model.safetensors")
    assert differing(apart, model.state_dict()) == []
    assert all(value.any() for name, value in apart.items() if ".lora_" in name)
    found, right = load_file(tmp_path / "out" / "model.safetensors"), model.merge_and_unload().state_dict()
    assert found.keys() == right.keys()
    for name, value in right.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-6)
    (source / "adapter_config.json").write_text(json.dumps({"lora_alpha": 5, "use_dora": True}))
    with pytest.raises(UserError, match="has use_dora, which is not known here: merge with peft"):
        convert(source, to="safetensors", weights_only=True, merge_lora=True, output=tmp_path / "other")
