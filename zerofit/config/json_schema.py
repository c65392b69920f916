"""The recipe's JSON Schema, for editors. Regenerate the shipped copy after a change of `zerofit.config.schema`:

python -m zerofit.config.json_schema > zerofit/recipes/recipe.schema.json
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from zerofit.config.schema import Recipe
from zerofit.config.stages import NOT_OF_A_STAGE
from zerofit.config.strategy import AUTO, STRATEGIES, Strategy

STAGES = (
    "Runs that follow one another, each from the weights of the one before: fields that are laid over those above. "
    "A stage's name is that of its directory, runs/<recipe>/<NN-name>; without one it is its task."
)


def schema_json() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a recipe, with or without stages, short forms included."""
    schema = Recipe.model_json_schema()
    strategy = schema["properties"]["strategy"]
    mapping = {"$ref": strategy.pop("$ref")}
    strategy["anyOf"] = [{"enum": [AUTO, *short_strategies()], "type": "string"}, mapping]
    track, to = schema["properties"]["track"], schema["$defs"]["Track"]["properties"]["to"]
    track["anyOf"] = [to["items"], {"items": to["items"], "type": "array"}, {"$ref": track.pop("$ref")}]
    problems, k = schema["$defs"]["Evaluate"]["properties"]["problems"], schema["$defs"]["Problems"]["properties"]["k"]
    problems["anyOf"].append({"items": k["items"], "type": "array", "minItems": 1})
    reward = schema["$defs"]["Reward"]
    weighed = {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": {"type": "number"}}
    schema["$defs"]["Reward"] = {"anyOf": [{"type": "string", "description": "The reward's name."}, reward, weighed]}
    rule = schema["$defs"]["Rule"]
    schema["$defs"]["Rule"] = {"anyOf": [{"type": "string", "description": "The rule's pattern."}, rule]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_with_stages(schema)}


def _with_stages(schema: dict[str, Any]) -> dict[str, Any]:
    """Beside `stages`, and in each of them, any part of a section may stand; without, what is required is."""
    whole = schema["properties"]
    properties = _partial(whole, schema["$defs"])
    fields = {name: field for name, field in properties.items() if name not in NOT_OF_A_STAGE}
    stage = {"additionalProperties": False, "properties": fields, "type": "object"}
    stages = {"description": STAGES, "items": stage, "minItems": 1, "title": "Stages", "type": "array"}
    required = {
        "properties": {name: whole[name] for name in schema["required"]},
        "required": [name for name in schema["required"] if name != "optimizer"],
        "if": {"required": ["probe"], "properties": {"probe": {"required": ["preset"]}}},
        "else": {"required": ["optimizer"]},  # a preset gives one
    }
    others = {name: part for name, part in schema.items() if name not in ("properties", "required")}
    return {**others, "properties": {**properties, "stages": stages}, "if": {"required": ["stages"]}, "else": required}


def _partial(node: Any, sections: dict[str, Any]) -> Any:
    """A part of the schema that requires nothing, save in lists, which a stage gives whole; adds to `sections`."""
    if isinstance(node, list):
        return [_partial(one, sections) for one in node]
    if not isinstance(node, dict):
        return node
    name = node.get("$ref", "").removeprefix("#/$defs/")
    if name:
        part = _partial(sections[name], sections)
        if part == sections[name]:
            return node
        sections[f"PartOf{name}"] = part
        return {**node, "$ref": f"#/$defs/PartOf{name}"}
    kept = {key: value for key, value in node.items() if key not in ("required", "discriminator")}
    if "oneOf" in kept:  # without the field that tells them apart
        kept["anyOf"] = kept.pop("oneOf")
    return {key: value if key in ("items", "prefixItems") else _partial(value, sections) for key, value in kept.items()}


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
