from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerofit.config.changes import changed_fields
from zerofit.config.errors import UserError
from zerofit.config.load import load_recipe, recipe_path
from zerofit.config.yaml_lines import parse

MINIMAL = """\
model:
  kind: vit
  shape: vit-tiny
data:
  source: digits
train:
  epochs: 1
  micro_batch: 2
  global_batch: 4
optimizer:
  lr: 1e-3
"""


@pytest.fixture(autouse=True)
def in_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(text: str | bytes) -> list[str]:
    """The lines that a recipe file `r.yaml` of this content is refused with."""
    Path("r.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError) as caught:
        load_recipe("r.yaml")
    return str(caught.value).splitlines()


def test_a_recipe_is_named_after_its_file_and_paths_stay_as_written() -> None:
    Path("my job.yaml").write_text(MINIMAL.replace("source: digits", "source: folder\n  path: a/b"))
    recipe = load_recipe("my job.yaml")
    assert (recipe.name, recipe.data.path, recipe.optimizer.lr) == ("my job", "a/b", 1e-3)
    assert load_recipe("my job.yaml", ["name=other"]).name == "other"


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("  lr: 1e-3", "  lr: 1e-3\n  lrr: 2", "12: optimizer.lrr: unknown field; did you mean lr?"),
        (
            "  lr: 1e-3",
            "  lr: 1\nlayer_decay: 1",
            "12: layer_decay: unknown field; did you mean optimizer.layer_decay?",
        ),
        ("shape: vit-tiny", "shap: vit-tiny", "3: model.shap: unknown field; did you mean shape?"),
        ("shape: vit-tiny", "shape: vit-tiny\n  pool: cls", "4: model.pool: is no field of kind vit"),
        ("shape: vit-tiny", "shape: 5", "3: model.shape: 5 is not text or a mapping"),
        ("  shape: vit-tiny\n", "", "1: model: needs exactly one of shape and pretrained"),
        (
            "kind: vit",
            "kind: vti",
            "2: model.kind: 'vti' is not one of vit, patch_lm, causal_lm, cad_mllm; did you mean vit?",
        ),
        ("  kind: vit\n", "", "1: model.kind: missing: one of vit, patch_lm, causal_lm, cad_mllm"),
        ("epochs: 1", "epochs: yes", "7: train.epochs: 'yes' is not a number"),
        ("epochs: 1", "epochs: true", "7: train.epochs: true is not a number"),
        ("micro_batch: 2", "micro_batch: four", "8: train.micro_batch: 'four' is not a whole number or auto"),
        ("micro_batch: 2", "micro_batch: 0", "8: train.micro_batch: must be at least 1, not 0"),
        ("  global_batch: 4\n", "", "6: train.global_batch: missing"),
        ("data:\n  source: digits\n", "", " data: missing"),
        ("data:\n  source: digits\n", "data:\n", "4: data: is empty: give it fields"),
        ("lr: 1e-3", "lr: 1\n  betas: [0.9, 0.9, 0.9]", "12: optimizer.betas: has 3 entries, but takes 2"),
        (
            "shape: vit-tiny",
            "shape: vit-tiny\n  trainable:\n    - pattern: a\n    - pattern: '['",
            "6: model.trainable.1.pattern: '[' is not a regular expression: unterminated character set at position 0",
        ),
        ("model:", "name: a/b\nmodel:", "1: name: 'a/b' is not a plain name: it takes no slash and no dot in front"),
        ("model:", "name: 7\nmodel:", "1: name: 7 is not text: put it in quotes"),
    ],
)
def test_a_wrong_field_is_named_with_line_and_remedy(old: str, new: str, line: str) -> None:
    assert old in MINIMAL
    assert refused(MINIMAL.replace(old, new)) == [f"r.yaml:{line}"]


def test_every_fault_has_a_line() -> None:
    text = MINIMAL.replace("epochs: 1", "epoch: 1").replace("lr: 1e-3", "lr: -1")
    assert refused(text) == [
        "r.yaml:7: train.epoch: unknown field; did you mean epochs?",
        "r.yaml:11: optimizer.lr: must be above 0, not -1",
    ]


def test_a_wrong_strategy_names_the_nearest() -> None:
    assert refused(MINIMAL + "strategy: zero4\n") == [
        "r.yaml:12: strategy.name: 'zero4' is not one of auto, single, ddp, fsdp2, zero1, zero2, zero3, zeropp; "
        "did you mean zero3?"
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "r.yaml: is empty; a recipe is a mapping with model, data, train and optimizer"),
        ("- a", 'r.yaml: a recipe is a mapping with model, data, train and optimizer, not ["a"]'),
        ("a: 1\nb: [", "r.yaml:2: not YAML: expected the node content, but found '<stream end>'"),
        ("a:\n  b: 1\n\tc: 1", "r.yaml:3: a tab indents this line; YAML takes spaces alone"),
        ("a: 1\nb:\n  c: 1\n  c: 2", "r.yaml:4: key c is given twice; the first is on line 3"),
        ("1: a", "r.yaml:1: key 1 is not text; put it in quotes"),
        ("a: &x\n  b: *x", "r.yaml:1: found unconstructable recursive node"),
        ("a: 1\n---\nb: 1", "r.yaml:2: not YAML: but found another document"),
        (
            "a: !!python/object/apply:os.getcwd []",
            "r.yaml:1: could not determine a constructor for the tag 'tag:yaml.org,2002:python/object/apply:os.getcwd'",
        ),
        (b"a: \xff", "r.yaml: is not text in UTF-8: invalid start byte at byte 3"),
    ],
)
def test_what_is_no_yaml_mapping_is_refused_in_one_line(text: str | bytes, line: str) -> None:
    assert refused(text) == [line]


def test_scalars_are_those_of_yaml_1_2() -> None:
    text = "[1e-4, -2E3, .5, 1_000, no, 2024-01-01, 1:30, 010, true, ~, '1']"
    assert parse(text, "t").value == [1e-4, -2e3, 0.5, 1000, "no", "2024-01-01", "1:30", "010", True, None, "1"]


def test_merged_keys_lose_against_the_mapping_s_own_and_have_the_anchor_s_line() -> None:
    document = parse("a: &x\n  b: 1\n  c: 2\nd:\n  <<: *x\n  b: 3\n", "t")
    assert document.value["d"] == {"b": 3, "c": 2}
    assert [document.line(("d", key)) for key in "bc"] == [6, 3]


TEXT = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]))
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT


@given(st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=8))
def test_json_is_read_as_json(value: object) -> None:
    assert parse(json.dumps(value, ensure_ascii=False), "t").value == value


def test_an_unknown_recipe_is_answered_with_the_nearest() -> None:
    for source, start in [
        ("digit", "'digit' is neither a file nor a shipped recipe; did you mean digits?"),
        ("digits.yaml", "digits.yaml: no such file; did you mean digits?"),
        ("a/b", "a/b: no such file"),
    ]:
        with pytest.raises(UserError, match="`zerofit recipes`") as caught:
            load_recipe(source)
        assert str(caught.value).startswith(start)
    with pytest.raises(UserError, match="did you mean digits"):
        recipe_path("digit")
    Path("here").mkdir()
    with pytest.raises(UserError, match="here: is a directory"):
        load_recipe("here")


def test_a_file_goes_before_a_shipped_recipe_of_its_name() -> None:
    Path("digits").write_text(MINIMAL)
    assert load_recipe("digits").model.kind == "vit"


def test_changed_fields_are_listed_with_both_values() -> None:
    Path("r.yaml").write_text(MINIMAL)
    old = load_recipe("r.yaml")
    overrides = ["train.seed=1", "strategy=zero2", "optimizer.betas=[0.9, 0.95]", "model.trainable=[.]"]
    new = load_recipe("r.yaml", overrides)
    assert changed_fields(old, old) == []
    changes = changed_fields(old, new)
    assert [line for line in changes if not line.startswith("model.")] == [
        "train.seed: 0 -> 1",
        "optimizer.betas: [0.9, 0.999] -> [0.9, 0.95]",
        "strategy.name: auto -> zero2",
    ]
    assert "model.trainable.0.pattern: absent -> ." in changes
