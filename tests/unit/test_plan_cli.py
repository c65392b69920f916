"""`zerofit plan`: what it says, what it writes, and what it refuses, with nothing started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from plan_examples import gpus
from typer.testing import CliRunner, Result

from zerofit import cli
from zerofit.launch import planning

TEXT = """\
model: {kind: vit, shape: vit-tiny, patch_size: 2}
data: {source: digits}
train: {epochs: 2, micro_batch: 4, global_batch: 64}
optimizer: {blr: 1e-3, warmup: {fraction: 0.1}, clip_grad: 1.0}
"""


@pytest.fixture(autouse=True)
def _recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe here, and a machine with 8 GPUs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(planning, "detect", lambda: gpus(8))
    Path("r.yaml").write_text(TEXT)


def call(*words: str) -> Result:
    return CliRunner().invoke(cli.app, ["plan", "r.yaml", "--quick", *words])


def lines(done: Result) -> dict[str, list[str]]:
    """The table's lines by their first words, in words."""
    assert done.exit_code == 0, done.output
    return {line[:13].strip(): line[13:].split() for line in done.output.splitlines()}


def test_the_plan_says_where_each_value_comes_from() -> None:
    said = lines(call("--nproc", "4"))
    assert said["ranks"] == ["4", "on", "Some", "GPU", "--nproc"]
    assert said["accumulation"] == ["4", "64", "/", "(4", "x", "4", "ranks)"]
    assert said["learning rate"] == ["0.00025", "blr", "0.001", "x", "64", "/", "256"]
    assert said["steps"][0] == "44"
    assert said["precision"] == ["bf16", "auto:", "what", "Some", "GPU", "does", "best"]
    assert "as many as divide the global batch" in call().output
    assert not list(Path().glob("runs*"))


def test_a_strategy_is_written_and_read_again() -> None:
    done = call("strategy=zeropp+offload_all", "--write-accelerate", "a/z.yaml")
    assert "written: a/z.deepspeed.json\nwritten: a/z.yaml\n" in done.output
    assert "--gradient_accumulation_steps 2" in done.output
    config = yaml.safe_load(Path("a/z.yaml").read_text())
    assert config["deepspeed_config"]["deepspeed_config_file"] == str(Path("a/z.deepspeed.json").absolute())
    assert json.loads(Path("a/z.deepspeed.json").read_text())["zero_optimization"]["zero_quantized_weights"] is True
    said = lines(call("strategy={accelerate: a/z.yaml}"))
    assert said["strategy"][:5] == ["zeropp,", "optimizer", "on", "cpu,", "weights"]
    assert said["strategy"][-2:] == ["file", "a/z.yaml"]
    assert said["ranks"][-3:] == ["the", "strategy's", "file"]
    call("strategy=zero2", "--write-accelerate", "b.yaml", "--write-deepspeed", "ds.json")
    assert Path("ds.json").exists()
    assert not Path("b.deepspeed.json").exists()


def test_what_exists_is_left_alone_unless_forced() -> None:
    Path("ds.json").write_text("mine")
    refused = call("strategy=zero2", "--write-accelerate", "b.yaml", "--write-deepspeed", "ds.json")
    assert refused.exit_code == 2
    assert "ds.json exists: name another file, or give --force to write over it" in refused.output
    assert (Path("ds.json").read_text(), Path("b.yaml").exists()) == ("mine", False)
    assert call("strategy=zero2", "--write-deepspeed", "ds.json", "--force").exit_code == 0
    assert json.loads(Path("ds.json").read_text())["train_batch_size"] == 64


def test_stages_are_planned_one_by_one() -> None:
    stages = "stages:\n- {name: one, strategy: zero2}\n- {task: probe, strategy: ddp, probe: {}}\n"
    Path("r.yaml").write_text(TEXT + stages)
    done = call()
    assert done.output.startswith("one\ntask")
    assert "\nprobe\ntask" in done.output
    assert "those of the stage before" in done.output
    refused = call("--write-accelerate", "a.yaml")
    assert refused.exit_code == 2
    assert "r.yaml has 2 stages, each with a strategy of its own: say which with --stage N" in refused.output
    assert call("--write-accelerate", "a.yaml", "--stage", "2").exit_code == 0
    assert yaml.safe_load(Path("a.yaml").read_text())["distributed_type"] == "MULTI_GPU"
    assert call("--stage", "3").exit_code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["strategy=ddp", "--write-deepspeed", "a.json"], "strategy ddp is not DeepSpeed's"),
        (["strategy={accelerate: no.yaml}"], "strategy.accelerate: cannot read no.yaml"),
        (["--nproc", "3"], "is not a multiple of micro_batch 4 x 3 ranks"),
        (["--nproc", "16"], "16 ranks need as many GPUs"),
    ],
)
def test_what_cannot_be_is_one_line(words: list[str], said: str) -> None:
    done = call(*words)
    assert done.exit_code == 2
    assert done.output.startswith("error: ")
    assert done.output.count("\n") == 1
    assert said in done.output
