"""A run's recipe with other values, through the same door as a recipe file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from zerofit.config.load import load_recipe
from zerofit.config.schema import Recipe


def override(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """`recipe` with `a.b=c` applied. Raises UserError as `load_recipe` does."""
    with TemporaryDirectory() as directory:
        path = Path(directory, "recipe.yaml")
        path.write_text(recipe.model_dump_json(), encoding="utf-8")  # JSON is YAML
        return load_recipe(str(path), overrides)
