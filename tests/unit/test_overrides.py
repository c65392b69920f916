from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerofit.config.errors import UserError
from zerofit.config.load import load_recipe
from zerofit.config.overrides import apply_overrides, parse_override

RECIPE = """\
model:
  kind: vit
  pretrained: some/where
  trainable:
    - pattern: '^head\\.'
    - pattern: '.'
data:
  source: digits
train:
  epochs: 1
  micro_batch: 2
  global_batch: 4
optimizer:
  blr: 1e-3
  warmup: {epochs: 2}
checkpoint: {every_epochs: 1}
strategy:
  name: zero3
  offload: {optimizer: cpu, params: cpu, pin_memory: false}
  precision: bf16
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE)
    return str(path)


def test_values_are_yaml(recipe: str) -> None:
    overrides = ["train.max_steps=5", "train.epochs=", "optimizer.betas=[0.9, 0.95]", "description=a=b"]
    read = load_recipe(recipe, [*overrides, "train.seed=1e2"])
    assert (read.train.max_steps, read.train.epochs, read.train.seed) == (5, None, 100)
    assert (read.optimizer.betas, read.description) == ((0.9, 0.95), "a=b")


def test_lists_are_indexed_and_sections_made(recipe: str) -> None:
    read = load_recipe(recipe, ["model.trainable.0.freeze=true", "data.augment.flip=0.5"])
    assert [rule.freeze for rule in read.model.trainable] == [True, False]
    assert read.data.augment.flip == 0.5


def test_one_of_an_exclusive_pair_drops_the_other_that_the_file_gave(recipe: str) -> None:
    read = load_recipe(
        recipe, ["optimizer.lr=1", "optimizer.warmup.steps=3", "checkpoint.every_steps=4", "model.shape=vit-tiny"]
    )
    assert (read.optimizer.lr, read.optimizer.blr) == (1, None)
    assert (read.optimizer.warmup.steps, read.optimizer.warmup.epochs) == (3, None)
    assert (read.checkpoint.every_steps, read.checkpoint.every_epochs) == (4, None)
    assert (read.model.shape, read.model.pretrained) == ("vit-tiny", None)
    with pytest.raises(UserError, match=r"with optimizer.lr=1, optimizer.blr=1: optimizer: needs exactly one of"):
        load_recipe(recipe, ["optimizer.lr=1", "optimizer.blr=1"])


def test_epochs_and_max_steps_hold_together(recipe: str) -> None:
    train = load_recipe(recipe, ["train.max_steps=5"]).train
    assert (train.epochs, train.max_steps) == (1, 5)


def test_a_short_strategy_replaces_name_and_offload_alone(recipe: str) -> None:
    strategy = load_recipe(recipe, ["strategy=zero2+offload_optimizer"]).strategy
    assert (strategy.name, strategy.offload.optimizer, strategy.offload.params) == ("zero2", "cpu", None)
    assert (strategy.precision, strategy.offload.pin_memory) == ("bf16", False)
    assert load_recipe(recipe, ["strategy=ddp"]).strategy.offload.optimizer is None


def test_a_field_of_a_short_strategy_can_be_set() -> None:
    strategy = load_recipe("digits", ["strategy=zero3+offload_all", "strategy.precision=fp16"]).strategy
    assert (strategy.name, strategy.precision, strategy.offload.params) == ("zero3", "fp16", "cpu")


def test_short_trackers_and_their_fields_go_together(recipe: str) -> None:
    track = load_recipe("digits", ["track=trackio", "track.every=5", "track=[wandb, mlflow]"]).track
    assert (track.to, track.every) == (("wandb", "mlflow"), 5)


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        (
            "track=trakio",
            "track.to.0: 'trakio' is not one of trackio, wandb, tensorboard, mlflow; did you mean trackio?",
        ),
        ("trian.seed=1", "trian: unknown field; did you mean train?"),
        ("train.sed=1", "unknown field; did you mean seed?"),
        ("seed=1", "unknown field; did you mean train.seed?"),
        ("train.seed=x", "'x' is not a whole number"),
        ("train.seed=[", "not YAML: expected the node content, but found '<stream end>'"),
        ("train={}", "train.global_batch: missing"),
        ("train.micro_batch.x=1", "train.micro_batch is 2, which has no fields"),
        ("model.trainable.2.freeze=true", "model.trainable has entries 0 to 1, not 2"),
        ("optimizer.betas.0=0.5", "the recipe gives no optimizer.betas to change an entry of: set the whole list"),
        ("strategy=zero2+all", "unknown addition +all: use +offload_optimizer or +offload_all"),
        (
            "strategy=zero9",
            "strategy.name: 'zero9' is not one of auto, single, ddp, fsdp2, zero1, zero2, zero3, zeropp; ",
        ),
    ],
)
def test_a_wrong_override_is_quoted(override: str, fault: str, recipe: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(recipe, [override])
    assert str(caught.value).splitlines()[0].startswith(f"command line: {override}: {fault}")


@pytest.mark.parametrize("override", ["train", "train..seed=1", "=1"])
def test_what_is_no_override_is_answered_with_one(override: str, recipe: str) -> None:
    with pytest.raises(UserError, match=r"is not an override: write field=value, for example train\.max_steps=5"):
        load_recipe(recipe, [override])


def test_a_section_that_an_override_broke_names_both(recipe: str) -> None:
    with pytest.raises(UserError, match=r"r\.yaml:9 with train\.epochs=null: train: needs epochs or max_steps"):
        load_recipe(recipe, ["train.epochs=null"])


KEYS = st.sampled_from("abc")
TREES = st.dictionaries(KEYS, st.recursive(st.integers(), lambda inner: st.dictionaries(KEYS, inner), max_leaves=6))


def at(tree: Any, place: tuple[str, ...]) -> Any:
    for part in place:
        tree = tree[part]
    return tree


@given(TREES, st.lists(KEYS, min_size=1, max_size=3), st.integers())
def test_an_override_sets_its_field_and_leaves_the_file_s_mapping_alone(
    tree: dict[str, Any], place: list[str], value: int
) -> None:
    before = repr(tree)
    override = parse_override(f"{'.'.join(place)}={value}")
    try:
        after = apply_overrides(tree, [override])
    except UserError:  # a number stands on the way
        return
    assert at(after, override.place) == value
    assert {key: after[key] for key in after if key != place[0]} == {k: tree[k] for k in tree if k != place[0]}
    assert repr(tree) == before
