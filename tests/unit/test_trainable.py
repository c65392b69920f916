"""Rules: who is trained, with which learning rate and weight decay."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import QWEN3, VIT, build, tiny_spec

from zerofit.config.errors import UserError
from zerofit.config.model import DEFAULT_RULES, Rule
from zerofit.models.classifier import ImageClassifier
from zerofit.models.trainable import apply_rules, assign, param_groups

ViT: dict[str, Any] = {"kind": "vit", "shape": VIT}
LM: dict[str, Any] = {"kind": "patch_lm", "shape": QWEN3, "pool": "cls"}
REST = {"pattern": "."}


def treatment(model: ImageClassifier, **plan: Any) -> dict[str, tuple[float, float]]:
    """(lr, weight decay) of each trained parameter, by name."""
    section = plan.pop("section")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = param_groups(model, tiny_spec(section, **plan))
    assert all(set(group) == {"params", "lr", "weight_decay"} for group in groups)
    pairs = [(group["lr"], group["weight_decay"]) for group in groups]
    assert len(set(pairs)) == len(pairs)
    named = [(names[id(p)], (group["lr"], group["weight_decay"])) for group in groups for p in group["params"]]
    assert len(dict(named)) == len(named)
    return dict(named)


@pytest.mark.parametrize("section", [ViT, LM])
def test_default_rules_decay_matrices_alone(section: dict[str, Any]) -> None:
    treated = treatment(build(section), section=section, weight_decay=0.05)
    decayed = {name for name, (_, decay) in treated.items() if decay == 0.05}
    matrices = {name for name, p in build(section).named_parameters() if p.ndim > 1 and not name.endswith("_token")}
    assert decayed == {name for name in matrices if "position_embeddings" not in name}
    assert {decay for _, decay in treated.values()} == {0.0, 0.05}
    assert {lr for lr, _ in treated.values()} == {1e-3}


def test_layer_decay_counts_from_the_head_down() -> None:
    treated = treatment(build(LM), section=LM, layer_decay=0.5)
    rates = {name: lr / 1e-3 for name, (lr, _) in treated.items()}
    assert rates["head.weight"] == rates["backbone.norm.weight"] == 1.0
    assert rates["backbone.layers.1.mlp.up_proj.weight"] == 0.5
    assert rates["backbone.layers.0.mlp.up_proj.weight"] == 0.25
    assert rates["patch_embedding.weight"] == rates["cls_token"] == 0.125


def test_rules_scale_freeze_and_set_decay_and_the_first_match_decides() -> None:
    rules = [
        {"pattern": r"^head\.", "lr_scale": 10.0, "weight_decay": 0.1},
        {"pattern": r"layers\.0\.", "freeze": True},
        {"pattern": r"layers\.", "weight_decay": 0.0},
        REST,
    ]
    section = {**ViT, "trainable": rules}
    model = build(section)
    treated = treatment(model, section=section, weight_decay=0.05)
    assert treated["head.bias"] == (1e-3 * 10.0, 0.1)
    assert treated["backbone.layers.1.mlp.fc1.weight"] == (1e-3, 0.0)
    assert treated["backbone.embeddings.cls_token"] == (1e-3, 0.05)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if "layers.0." in name}
    assert not frozen & treated.keys()


def test_the_first_group_has_the_peak_rate_which_is_the_one_that_is_logged() -> None:
    spec = tiny_spec(LM, layer_decay=0.5)
    rates = [group["lr"] for group in param_groups(build(LM), spec)]
    assert rates[0] == spec.lr == max(rates)
    assert rates[-1] < spec.lr


def test_groups_come_in_a_fixed_order() -> None:
    def shape_of_groups() -> list[list[tuple[int, ...]]]:
        groups = param_groups(build(LM), tiny_spec(LM, layer_decay=0.75))
        return [[tuple(parameter.shape) for parameter in group["params"]] for group in groups]

    assert shape_of_groups() == shape_of_groups()


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        ([{"pattern": "^backbone"}], "head.weight"),
        ([{"pattern": "hed"}, REST], "trainable.0"),
        ([REST, {"pattern": "bias$", "weight_decay": 0.0}], "before it"),
        ([{"pattern": ".", "freeze": True}], "nothing to train"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(rules: list[dict[str, Any]], named: str) -> None:
    with pytest.raises(UserError) as caught:
        build({**ViT, "trainable": rules})
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_default_rule_may_decide_nothing() -> None:
    model = build(ViT)
    apply_rules(model, (Rule(pattern=r"."), *DEFAULT_RULES))


NAMES = st.lists(st.text("ab.", min_size=1, max_size=6), min_size=1, max_size=8, unique=True)


@given(NAMES, st.lists(st.sampled_from(["a", "b", r"^a", r"b$", r"\.", "aa"]), max_size=4, unique=True))
def test_every_name_is_covered_once_or_refused(names: list[str], patterns: list[str]) -> None:
    rules = [Rule(pattern=pattern, lr_scale=2.0) for pattern in patterns] + [Rule(pattern="")]
    deciding = {next(pattern for pattern in [*patterns, ""] if re.search(pattern, name)) for name in names}
    if deciding == {*patterns, ""}:
        assert [rule.pattern for rule in assign(names, rules).values()] == [
            next(pattern for pattern in [*patterns, ""] if re.search(pattern, name)) for name in names
        ]
    else:
        with pytest.raises(UserError, match="decides nothing"):
            assign(names, rules)
