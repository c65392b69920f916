"""Recipes with stages: what is laid over what, and where a mistake is said to stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from zerofit.config.errors import UserError
from zerofit.config.load import load_job, load_recipe
from zerofit.config.stages import Job, lay
from zerofit.plan.job import JobSpec, read_job, spec_of

STAGED = """\
description: tune, then probe
model: {kind: vit, shape: vit-tiny, trainable: ['.']}
data:
  source: digits
  augment: {cutmix: 1.0}
train: {max_steps: 300, micro_batch: 2, global_batch: 4, label_smoothing: 0.1}
optimizer: {lr: 1e-3, betas: [0.9, 0.95], warmup: {steps: 5}, clip_grad: 1.0}
strategy: {name: zero2, precision: fp32}
probe: {head_std: 0.5}
init_from: elsewhere
stages:
  - name: tune
    optimizer: {blr: 0.1, warmup: {fraction: 0.1}}
    strategy: zero1+offload_optimizer
  - task: probe
    train: {global_batch: 8}
    probe: {preset: mae}
    data: {augment: {flip: 0.25}}
"""


@pytest.fixture(autouse=True)
def in_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def job(*overrides: str, text: str = STAGED) -> Job:
    Path("r.yaml").write_text(text)
    return load_job("r.yaml", overrides)


def refused(text: str, *overrides: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        job(*overrides, text=text)
    return str(caught.value).splitlines()


def test_a_stage_is_laid_over_the_shared_part() -> None:
    found = job()
    assert (found.name, found.description, found.run_dir, found.staged) == ("r", "tune, then probe", None, True)
    assert found.directories == ("01-tune", "02-probe")
    tune, _ = found.stages
    assert (tune.task, tune.name, tune.init_from, tune.probe) == ("classify", "tune", "elsewhere", None)
    assert (tune.optimizer.lr, tune.optimizer.blr) == (None, 0.1)
    assert (tune.optimizer.warmup.steps, tune.optimizer.warmup.fraction) == (None, 0.1)
    assert (tune.optimizer.betas, tune.optimizer.clip_grad) == ((0.9, 0.95), 1.0)
    assert (tune.strategy.name, tune.strategy.offload.optimizer, tune.strategy.precision) == ("zero1", "cpu", "fp32")


def test_a_preset_goes_before_the_shared_part_and_behind_the_stage() -> None:
    probe = job().stages[1]
    assert (probe.task, probe.name, probe.init_from) == ("probe", "probe", None)
    assert (probe.optimizer.name, probe.optimizer.blr, probe.optimizer.lr) == ("lars", 0.1, None)
    assert (probe.optimizer.clip_grad, probe.optimizer.warmup.epochs) == (None, 10)  # nothing of the fine-tuning
    assert (probe.train.epochs, probe.train.max_steps, probe.train.label_smoothing) == (90, None, 0)
    assert (probe.train.micro_batch, probe.train.global_batch) == (2, 8)
    assert (probe.data.augment.cutmix, probe.data.augment.crop_scale, probe.data.augment.flip) == (0, (0.08, 1), 0.25)
    assert probe.model.trainable is not None
    assert [rule.pattern for rule in probe.model.trainable] == [r"^head\."]
    assert probe.probe is not None
    assert (probe.probe.batch_norm, probe.probe.head_std) == (True, 0.5)  # the shared part's probe is a probe's


def test_an_override_goes_to_every_stage_it_can_mean_or_to_the_one_it_names() -> None:
    found = job(
        *("name=x", "train.seed=7", "optimizer.lr=2", "probe.batch_norm=false", "init_from=there"),
        *("stages.1.train.epochs=2", "stages.1.name=head", "run_dir=a/b"),
    )
    assert (found.name, found.run_dir, found.directories) == ("x", Path("a/b"), ("01-tune", "02-head"))
    assert [stage.run_dir for stage in found.stages] == [None, None]
    assert [stage.train.seed for stage in found.stages] == [7, 7]
    assert [(stage.optimizer.lr, stage.optimizer.blr) for stage in found.stages] == [(2, None), (2, None)]
    assert [stage.train.epochs for stage in found.stages] == [None, 2]
    assert [stage.init_from for stage in found.stages] == ["there", None]
    assert found.stages[0].probe is None
    assert found.stages[1].probe is not None
    assert found.stages[1].probe.batch_norm is False
    named = job("probe.preset=moco-v3", "stages.1.optimizer.momentum=0.5").stages[1]
    assert (named.optimizer.name, named.optimizer.momentum) == ("sgd", 0.5)


@pytest.mark.parametrize(
    ("below", "above", "whole"),
    [
        ({"a": {"b": 1, "c": [1, 2]}}, {"a": {"c": [3]}}, {"a": {"b": 1, "c": [3]}}),
        ({"model": {"shape": "x"}}, {"model": {"shape": {"d": 1}}}, {"model": {"shape": {"d": 1}}}),
        ({"model": {"shape": "x"}}, {"model": {"pretrained": "y"}}, {"model": {"pretrained": "y"}}),
        ({"strategy": "zero3+offload_all"}, {"strategy": "ddp"}, {"strategy": "ddp"}),
        ({"strategy": "zero2"}, {"strategy": {"compile": True}}, {"strategy": {"name": "zero2", "compile": True}}),
        ({"strategy": "zero2+x"}, {"strategy": {"compile": True}}, {"strategy": "zero2+x"}),
        ({"track": "wandb"}, {"track": {"every": 5}}, {"track": {"to": ["wandb"], "every": 5}}),
        ({"evaluate": {"every_steps": 1}}, {"evaluate": {"every_steps": None}}, {"evaluate": {"every_steps": None}}),
    ],
)
def test_laying(below: dict[str, Any], above: dict[str, Any], whole: dict[str, Any]) -> None:
    assert lay(below, above) == whole


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("blr: 0.1", "blr: -1", "13: stages.0.optimizer.blr: must be above 0, not -1"),
        ("lr: 1e-3", "lrr: 1e-3", "7: optimizer.lrr: unknown field; did you mean lr?"),
        ("micro_batch: 2", "micro_batch: 0", "6: train.micro_batch: must be at least 1, not 0"),
        ("global_batch: 4, ", "", "6: train.global_batch: missing"),
        (
            "micro_batch: 2, ",
            "",
            "15: stages.1: train.micro_batch: probe.batch_norm sees micro-batches, so the numbers depend on them",
        ),
        (
            "task: probe",
            "task: prob",
            "15: stages.1.task: 'prob' is not one of classify, probe, sft, grpo, cad; did you mean probe?",
        ),
        ("  - name: tune", "  - tune: 1", "12: stages.0.tune: unknown field"),
        ("name: tune", "name: a/b", "12: stages.0.name: 'a/b' is not a plain name: it takes no slash and no dot"),
        ("name: tune", "run_dir: a", "12: stages.0.run_dir: a stage's directory lies in the job's"),
        ("name: tune", "stages: []", "12: stages.0.stages: a stage has no stages of its own"),
        ("preset: mae", "preset: mea", "17: stages.1: probe.preset: 'mea' is no preset; did you mean mae?"),
        ("    strategy: zero1", "    probe: {}\n    strategy: zero1", "14: stages.0.probe: settings of the task probe"),
        ("task: probe", "name: a", "17: stages.1.probe: settings of the task probe, and the task is classify"),
        ("init_from: elsewhere", "name: .x", "10: name: '.x' is not a plain name"),
        ("stages:", "stages: []\nx:", "11: stages: must be a list of stages, each a mapping of fields, not []"),
        ("  - task: probe", "  - probe\n  - task: probe", "15: stages.1: must be a mapping of fields, not 'probe'"),
    ],
)
def test_a_mistake_is_said_once_where_it_stands(old: str, new: str, line: str) -> None:
    assert old in STAGED
    said = refused(STAGED.replace(old, new, 1))
    for found, expected in zip(said, line.split("|"), strict=False):
        assert found.removeprefix("r.yaml:").startswith(expected.removeprefix("r.yaml:")), said
    assert len(said) == len(set(said))


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("stages.2.train.seed=1", "stages has entries 0 to 1, not 2"),
        ("stages.one.train.seed=1", "stages has entries 0 to 1, not one"),
        ("stages.1=1", "change a field of one stage: stages.0.train.epochs=2"),
        ("stages.1.run_dir=x", "a stage's directory lies in the job's"),
        ("stages.0.probe.batch_norm=true", "probe: settings of the task probe, and the task is classify"),
        ("stages.1.train.micro_batch=0", "must be at least 1, not 0"),
        ("name=a/b", "'a/b' is not a plain name"),
    ],
)
def test_a_wrong_override_is_one_line(override: str, reason: str) -> None:
    (said,) = refused(STAGED, override)
    assert said.startswith(f"command line: {override}: {reason}")


def test_settings_of_a_task_that_no_stage_has_are_refused() -> None:
    text = STAGED.replace("task: probe", "name: b").replace("    probe: {preset: mae}\n", "")
    assert refused(text, "probe.preset=mae") == [
        "command line: probe.preset=mae: settings of the task probe, which no stage has",
        "r.yaml:9: probe: settings of the task probe, which no stage has",
    ]


def test_a_recipe_without_stages_is_a_job_of_one() -> None:
    Path("r.yaml").write_text(STAGED[: STAGED.index("probe:")])
    found = load_job("r.yaml", ["train.seed=3"])
    assert found.stages == (load_recipe("r.yaml", ["train.seed=3"]),)
    assert (found.name, found.staged) == ("r", False)
    with pytest.raises(UserError, match=r"command line: stages\.0\.train\.seed=1: r\.yaml has no stages"):
        load_job("r.yaml", ["stages.0.train.seed=1"])


def test_one_run_cannot_be_read_from_a_recipe_with_stages() -> None:
    Path("r.yaml").write_text(STAGED)
    with pytest.raises(UserError, match=r"r\.yaml:11: stages: one run is wanted.*`zerofit train` runs them all"):
        load_recipe("r.yaml")


def test_the_job_file_keeps_what_was_given_and_says_where_each_stage_starts(tmp_path: Path) -> None:
    spec = spec_of(job(), 2)
    (tmp_path / "job.json").write_text(spec.model_dump_json())
    assert read_job(tmp_path) == spec
    moved = tmp_path / "moved"
    assert [spec.recipe(number, moved).init_from for number in (1, 2)] == ["elsewhere", str(moved / "01-tune")]
    assert spec.recipe(2, moved).run_dir == moved / "02-probe"
    own = spec_of(job("stages.1.init_from=own"), None)
    assert own.recipe(2, moved).init_from == "own"
    (tmp_path / "job.json").write_text('{"name": "x", "stages": []}')
    with pytest.raises(UserError, match=r"job\.json is not a job of this version of zerofit: stages"):
        read_job(tmp_path)
    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec


def test_a_misspelt_list_of_stages_is_no_recipe_without_them() -> None:
    said = refused(STAGED.replace("stages:", "stage:"))
    assert "r.yaml:11: stage: unknown field; did you mean stages?" in said


def test_a_stage_that_the_next_one_starts_from_saves_at_its_end() -> None:
    (line,) = refused(STAGED.replace("init_from: elsewhere\n", ""), "stages.0.checkpoint.at_end=false")
    assert "stages.0: checkpoint.at_end" in line
    assert not job("checkpoint.at_end=false", "stages.1.init_from=runs/other").stages[0].checkpoint.at_end
