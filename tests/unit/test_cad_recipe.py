"""What a recipe of the task cad may say."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from zerofit.config.cad import COMBINATIONS, MODALITIES, Cad, Inputs
from zerofit.config.errors import UserError
from zerofit.config.load import load_job
from zerofit.config.schema import Recipe

MODEL = {"kind": "cad_mllm", "shape": "qwen3-tiny", "tokenizer": "bytes"}
POINTS = {"latents": 4, "width": 16, "depth": 1, "heads": 2}


def recipe(data: dict[str, Any], **model: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "task": "cad",
            "model": {**MODEL, **model},
            "data": {"source": "parts", **data},
            "train": {"max_steps": 1, "micro_batch": 1, "global_batch": 1},
            "optimizer": {"lr": 1e-3},
        }
    )


def test_weights_become_shares_in_one_order() -> None:
    mix = {"image + text+points": 2, "text": 1, "points+text": 1, "points": 0}
    found = recipe({"mix": mix}, points=POINTS, vision={}).cad.shares
    assert [(one.inputs.name, one.share) for one in found] == [
        ("text", 0.25),
        ("text+points", 0.25),
        ("text+points+image", 0.5),
    ]


@pytest.mark.parametrize(("said", "bounds"), [(3, (3, 3)), ([1, 4], (1, 4)), ([2, 2], (2, 2))])
def test_images_at_once_are_a_number_or_a_range(said: Any, bounds: tuple[int, int]) -> None:
    found = Cad(source="parts", views=4, views_at_once=said)
    assert found.views_at_once == bounds
    assert Cad.model_validate_json(found.model_dump_json()) == found
    assert Cad(source="parts", views=4).views_at_once == (1, 1)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_the_name_of_inputs_says_which_they_are(name: str) -> None:
    assert Inputs.named(name).name == name
    seen = Cad(source="parts", mix={name: 1, "text": 0.5})
    assert [one for one in MODALITIES if seen.shows(one)] == [
        one for one in MODALITIES if one in (*name.split("+"), "text")
    ]


@pytest.mark.parametrize(
    ("data", "model", "reason"),
    [
        ({"mix": {"txt": 1}}, {}, "'txt' is none of text, points, .* did you mean text"),
        ({"mix": {"text": 0}}, {}, "shows nothing"),
        ({"mix": {"none": 1}}, {}, "shows nothing"),
        ({"mix": {"text+points": 1, "points+text": 1}}, {}, "the same inputs twice"),
        ({"mix": {"text+points": 1}}, {}, "rows with points need an encoder for it: give model.points"),
        ({"mix": {"image": 1}}, {"points": POINTS}, "rows with image need an encoder for it: give model.vision"),
        ({"path": "somewhere"}, {}, "parts are embedded and take no path"),
        ({"source": "deepcad"}, {}, "deepcad needs a path"),
        ({"source": "arithmetic"}, {}, "nothing for the task cad, which takes parts, deepcad, omni_cad"),
        ({"views": 5}, {}, "less than or equal to 4"),
        (
            {"views": 4, "views_at_once": 5},
            {},
            "5 is neither a number from 1 to 4 nor a range of these: use for .* 2, or",
        ),
        ({"views": 4, "views_at_once": [3, 1]}, {}, r"\[3, 1\] is neither a number"),
        ({"views": 4, "views_at_once": [0, 2]}, {}, r"\[0, 2\] is neither a number"),
        ({"views": 4, "views_at_once": [1, 2, 3]}, {}, r"\[1, 2, 3\] is neither a number"),
        ({"views": 4, "views_at_once": True}, {}, "true is neither a number"),
        (
            {"views": 2, "views_at_once": [1, 3]},
            {},
            "cannot see 3 images at once of models that have 2: set data.views",
        ),
        ({"views_at_once": 2}, {}, "cannot see 2 images at once of models that have 1"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(data: dict[str, Any], model: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        recipe(data, **model)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("5", "5 is neither a number from 1 to 4 nor a range of these: use for example 2, or [1, 4]"),
        ("[3, 1]", "[3, 1] is neither a number from 1 to 4 nor a range of these: use for example 2, or [1, 4]"),
        ("[0, 2]", "[0, 2] is neither a number from 1 to 4 nor a range of these: use for example 2, or [1, 4]"),
        ("[1, 3]", "a row cannot see 3 images at once of models that have 2: set data.views"),
    ],
)
def test_images_that_cannot_be_seen_are_answered_in_a_line(said: str, reason: str) -> None:
    field = f"data.views_at_once={said}"
    with pytest.raises(UserError) as error:
        load_job("cad-small", ["data.views=2", field])
    assert str(error.value) == f"command line: {field}: {reason}"


def test_the_task_takes_no_other_model() -> None:
    with pytest.raises(ValidationError, match="kind causal_lm is no model for the task cad, which takes cad_mllm"):
        recipe({}, kind="causal_lm")
