from __future__ import annotations

import json

import pytest

from zerofit.config.json_schema import schema_json
from zerofit.config.load import RECIPES, load_recipe, recipe_names, recipe_path


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_parses_and_says_what_it_does(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert "\n" not in recipe.description
    assert load_recipe(str(recipe_path(name))) == recipe


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_opens_with_schema_command_expectation_and_time(name: str) -> None:
    schema, command, expected, time = recipe_path(name).read_text().splitlines()[:4]
    assert schema == "# yaml-language-server: $schema=./recipe.schema.json"
    assert command.startswith(f"# zerofit train {name}")
    assert expected.startswith("# expected: ")
    assert time.startswith("# time: ")
    overrides = command.removeprefix(f"# zerofit train {name}").split()
    assert load_recipe(name, overrides).name == name


def test_the_shipped_schema_is_the_generated_one() -> None:
    shipped = json.loads((RECIPES / "recipe.schema.json").read_text())
    assert shipped == schema_json(), "python -m zerofit.config.json_schema > zerofit/recipes/recipe.schema.json"


def test_the_main_recipes_are_shipped() -> None:
    assert {"digits", "vit-tiny-cifar10", "vit-huge-food101", "qwen3-8b-cifar100"} <= set(recipe_names())
