"""The recipe's JSON Schema, for editors. Regenerate the shipped copy after a change of `zerofit.config.schema`:

python -m zerofit.config.json_schema > zerofit/recipes/recipe.schema.json
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from zerofit.config.schema import STRATEGIES, Recipe, Strategy


def schema_json() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a recipe, short forms of the strategy included."""
    schema = Recipe.model_json_schema()
    strategy = schema["properties"]["strategy"]
    mapping = {"$ref": strategy.pop("$ref")}
    strategy["anyOf"] = [{"enum": short_strategies(), "type": "string"}, mapping]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def short_strategies() -> list[str]:
    """Every short form that stands for a possible strategy."""
    forms = [name + addition for name in STRATEGIES for addition in ("", "+offload_optimizer", "+offload_all")]
    return [form for form in forms if _possible(form)]


def schema_text() -> str:
    """The JSON Schema as the text of a file, newline at its end."""
    return json.dumps(schema_json(), indent=2) + "\n"


def _possible(form: str) -> bool:
    try:
        Strategy.model_validate(form)
    except ValidationError:
        return False
    return True


if __name__ == "__main__":
    print(schema_text(), end="")
