"""`zerofit convert`: what does not fit is refused in one line; a full drive leaves nothing behind."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import GPT2, LLAMA, QWEN3, VIT, tiny_spec
from torch import Tensor
from typer.testing import CliRunner, Result

from zerofit import cli
from zerofit.checkpoint.content import Content
from zerofit.checkpoint.hf import as_transformers
from zerofit.config.errors import UserError
from zerofit.models.whole import describe_model
from zerofit.plan.files import write_spec

MOE = {**LLAMA, "model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}


def call(*words: str) -> Result:
    return CliRunner().invoke(cli.app, ["convert", *words])


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """weights.safetensors, some MiB of it."""
    monkeypatch.chdir(tmp_path)
    tensors = {"a.weight": torch.randn(1024, 1024), "b": torch.randn(3).bfloat16(), "count": torch.tensor(7)}
    save_file(tensors, "weights.safetensors")
    return tensors


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "convert needs --to (pytorch, safetensors, hf, peft, single, ddp"),
        (("--to", "onnx"), "--to onnx is none of pytorch, safetensors, hf, peft, single, ddp"),
        (("--to", "pytorch", "--dtype", "int8"), "--dtype int8 is none of bf16, fp16, fp32"),
        (("--to", "pytorch", "--world", "2"), "--world: --to pytorch is of no world size; leave it out"),
        (("--to", "zero2", "--dtype", "bf16"), "--dtype: --to zero2 keeps the whole state as it is; leave it out"),
        (("--to", "ddp", "--merge-lora"), "--merge-lora: --to ddp keeps"),
        (("--inspect", "--to", "hf"), "--to: --inspect says what is there, and writes nothing; leave it out"),
        (("--to", "pytorch", "--merge-lora"), "add --weights-only"),
        (("--to", "safetensors", "--dtype", "bf16"), "master weights are written in fp32: add --weights-only"),
        (("--to", "pytorch", "--output", "out"), "--output out: --to pytorch writes one file"),
        (("--to", "hf", "--output", "out.pth"), "--output out.pth: --to hf writes a directory"),
        (("--to", "pytorch", "--output", "taken.pth"), "taken.pth exists: name a new file with --output"),
        (("--to", "safetensors", "--output", "taken"), "taken exists: name a new directory with --output"),
        (("--to", "pytorch", "--weights-only", "--merge-lora"), "--merge-lora needs peft's adapter_config.json in"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_does_not_fit_is_refused_in_one_line(
    weights: dict[str, Tensor], words: tuple[str, ...], said: str
) -> None:
    Path("taken").mkdir()
    Path("taken/file").touch()
    Path("taken.pth").touch()
    done = call("weights.safetensors", *words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in Path().iterdir()) == ["taken", "taken.pth", "weights.safetensors"]


def test_what_is_not_there_is_named(weights: dict[str, Tensor]) -> None:
    for words in (("--inspect",), ("--to", "pytorch")):
        done = call("nowhere", *words)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert "nowhere does not exist: give RUN, RUN@STEP, or a checkpoint's directory or file" in done.stderr
    Path("empty").mkdir()
    assert "empty holds no weights: looked for model.safetensors" in call("empty", "--inspect").stderr
    assert "error: /" in call("empty", "--to", "pytorch").stderr


def test_plain_weights_there_and_back(weights: dict[str, Tensor]) -> None:
    done = call("weights.safetensors", "--to", "pytorch")
    assert done.exit_code == 0, done.output
    assert "it holds weights alone, so no optimizer is written" in done.stdout
    assert "next: zerofit train RECIPE init_from=weights.safetensors-pytorch.pth" in done.stdout
    loaded = torch.load("weights.safetensors-pytorch.pth", weights_only=True)["model"]
    assert {name: value.dtype for name, value in loaded.items()} == {
        "a.weight": torch.float32, "b": torch.float32, "count": torch.int64
    }  # fmt: skip
    assert all(torch.equal(loaded[name].to(value.dtype), value) for name, value in weights.items())
    assert call("weights.safetensors-pytorch.pth", "--to", "safetensors", "--output", "back").exit_code == 0
    assert all(torch.equal(value, loaded[name]) for name, value in load_file("back/model.safetensors").items())
    assert call("back", "--inspect").exit_code == 0
    Path("back/model.safetensors").write_bytes(Path("back/model.safetensors").read_bytes()[:-1])
    done = call("back", "--inspect")
    assert done.exit_code == 2
    assert "wrong: model.safetensors has " in done.stdout


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As on a drive that is nearly full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Amid the first tensor; and where each tensor still fits and the whole file does not.
@pytest.mark.parametrize(("form", "size"), [("pytorch", 2**21), ("pytorch", 2**22 + 99), ("safetensors", 2**21)])
def test_a_full_drive_leaves_nothing(weights: dict[str, Tensor], form: str, size: int) -> None:
    output = "out.pth" if form == "pytorch" else "out"
    with files_of_at_most(size):
        done = call("weights.safetensors", "--to", form, "--output", output)
    assert done.exit_code == 2, done.output
    assert f"{output} cannot be written: " in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["weights.safetensors"]


def test_inspect_a_directory_of_shards(weights: dict[str, Tensor]) -> None:
    Path("model").mkdir()
    index = {"a.weight": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    save_file({"a.weight": weights["a.weight"]}, "model/model-00001-of-00002.safetensors")
    Path("model/model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    Path("model/config.json").write_text("{}")
    done = call("model", "--inspect")
    assert done.exit_code == 2
    assert "a directory of Hugging Face" in done.stdout
    assert "parameters  1,048,576\n" in done.stdout
    assert "missing: model-00002-of-00002.safetensors\n" in done.stdout
    Path("model/model.safetensors.index.json").unlink()
    assert "missing: model.safetensors.index.json\n" in call("model", "--inspect").stdout


def test_a_pickle_that_needs_more_is_refused(weights: dict[str, Tensor]) -> None:
    torch.save({"model": weights, "path": Path("x")}, "odd.pth")
    for words in (("--inspect",), ("--to", "safetensors", "--output", "out")):
        done = call("odd.pth", *words)
        assert done.exit_code == 2
        assert "error: " in done.stderr
        assert "odd.pth is a pickle that needs pathlib." in done.stderr
        assert "--trust" in done.stderr
    assert call("odd.pth", "--to", "safetensors", "--output", "out", "--trust").exit_code == 0


@pytest.mark.parametrize("shape", [QWEN3, GPT2, VIT, MOE], ids=lambda shape: shape["model_type"])
def test_names_that_transformers_cannot_undo_are_refused(shape: dict[str, object]) -> None:
    kind = "vit" if shape["model_type"] == "vit" else "patch_lm"
    described = describe_model(tiny_spec({"kind": kind, "shape": shape, "image_size": 8}))
    names = [*described.plain.state_dict()]
    content = Content("test", names, lambda: iter(()))
    if shape is MOE:
        with pytest.raises(UserError, match=r"fuses tensors of a qwen3_moe .* use --to safetensors"):
            as_transformers(content, described, torch.float32)
    else:
        found = as_transformers(content, described, torch.float32)
        assert any("left out" in note for note in found.notes) == (kind == "patch_lm")


def test_a_run_without_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = tiny_spec({"kind": "patch_lm", "shape": QWEN3, "image_size": 8})
    write_spec(spec.model_copy(update={"run_dir": Path("runs/a").absolute()}))
    assert "runs/a has no checkpoint yet" in call("runs/a", "--inspect").stderr
    assert "has no complete checkpoint" in call("runs/a", "--to", "hf").stderr
