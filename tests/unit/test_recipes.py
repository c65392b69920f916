from __future__ import annotations

import json
from pathlib import Path

import pytest

from zerofit.config.json_schema import schema_json
from zerofit.config.load import RECIPES, load_job, recipe_names, recipe_path


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_parses_and_says_what_it_does(name: str) -> None:
    job = load_job(name)
    assert job.name == name
    assert job.description
    assert "\n" not in job.description
    assert load_job(str(recipe_path(name))) == job


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_opens_with_its_command_what_to_expect_and_where_that_is_from(name: str) -> None:
    opening = recipe_path(name).read_text().partition("description:")[0].splitlines()
    assert opening[0] == "# yaml-language-server: $schema=./recipe.schema.json"
    command, *facts = opening[1:]
    told = [line.split(":")[0] for line in facts if not line.startswith("#  ")]  # what is indented goes on
    assert told == ["# expected", "# memory", "# time", "# from"]
    assert command.startswith(f"# zerofit train {name}")
    overrides = command.removeprefix(f"# zerofit train {name}").split()
    assert load_job(name, overrides).name == name


def test_the_shipped_schema_is_the_generated_one() -> None:
    shipped = json.loads((RECIPES / "recipe.schema.json").read_text())
    assert shipped == schema_json(), "python -m zerofit.config.json_schema > zerofit/recipes/recipe.schema.json"


def test_the_probe_alone_is_the_second_stage_of_the_job() -> None:
    """The same settings, from a run directory that the job makes."""
    job, (alone,) = load_job("qwen3-8b-cifar100"), load_job("qwen3-8b-cifar100-probe").stages
    assert alone.init_from == str(Path("runs") / job.name / job.directories[0])
    same = {"name": "probe", "description": "", "init_from": None}
    shape = {"shape": None, "pretrained": "Qwen/Qwen3-8B"}
    model = alone.model.model_copy(update=shape)
    assert alone.model_copy(update={**same, "model": model}) == job.stages[1]


def test_what_can_be_run_is_listed() -> None:
    assert set(recipe_names()) == {
        "arithmetic",
        "cad-mllm",
        "cad-small",
        "deepseek-r1-7b",
        "deepseek-r1-7b-grpo",
        "deepseek-r1-7b-sft",
        "digits",
        "digits-probe",
        "qwen3-8b-cifar10",
        "qwen3-8b-cifar100",
        "qwen3-8b-cifar100-probe",
        "qwen3-8b-sft",
        "qwen3-8b-tiny-imagenet",
        "tinystories-sft",
        "vit-base-cifar100-lora",
        "vit-huge-food101",
        "vit-tiny-cifar10",
    }
