"""Which parameters are trained, and how: the recipe's ordered rules, and layer-wise learning rate decay."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from torch import nn

from zerofit.config.errors import UserError
from zerofit.config.model import DEFAULT_RULES, Rule
from zerofit.models.trained import TrainedModel
from zerofit.plan.rules import REST, rules_of
from zerofit.plan.spec import RunSpec


def assign(names: Iterable[str], rules: Sequence[Rule]) -> dict[str, Rule]:
    """The first rule that finds each name.

    Raises UserError for a name that no rule finds, and for a rule (the default ones apart) that decides no name.
    """
    names = list(names)
    rule_of: dict[str, Rule] = {}
    for name in names:
        rule = next((rule for rule in rules if re.search(rule.pattern, name)), None)
        if rule is None:
            raise UserError(
                f"model.trainable: no rule covers the parameter {name}; end the list with a rule for all others, "
                "{pattern: '.'}"
            )
        rule_of[name] = rule
    for index, rule in enumerate(rules):
        if rule is REST or rule in DEFAULT_RULES or any(used is rule for used in rule_of.values()):
            continue
        shadowed = any(re.search(rule.pattern, name) for name in names)
        why = (
            "whatever it finds, a rule before it decides" if shadowed else f"no parameter is called so, e.g. {names[0]}"
        )
        raise UserError(f"model.trainable.{index}: the pattern {rule.pattern} decides nothing: {why}")
    return rule_of


def apply_rules(model: nn.Module, rules: Sequence[Rule], idle: Collection[str] = ()) -> None:
    """Set `requires_grad` of every parameter; those called one of `idle` are frozen, whatever their rule says.

    Raises UserError as `assign` does, and where nothing is left to train.
    """
    rule_of = assign((name for name, _ in model.named_parameters()), rules)
    if all(rule.freeze for rule in rule_of.values()):
        raise UserError("model.trainable: every parameter is frozen, so there is nothing to train")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not rule_of[name].freeze and name not in idle)


def param_groups(model: TrainedModel, spec: RunSpec) -> list[dict[str, Any]]:
    """Optimizer groups (`params`, `lr`, `weight_decay`) of the parameters that are trained: see `apply_rules`.

    lr = spec.lr x the rule's lr_scale x layer_decay^(n + 1 - depth), with depth 0 for embeddings, 1..n for blocks and
    n + 1 for final norm and head (Clark et al. 2020; Bao et al. 2022). Parameters with equal lr and weight decay share
    a group; groups come in the order of their first parameter, those at the peak rate before the others: the first
    group's rate is the one that Trainer logs.
    """
    optimizer = spec.recipe.optimizer
    rule_of = assign((name for name, _ in model.named_parameters()), rules_of(spec.recipe))
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        rule = rule_of[name]
        if not parameter.requires_grad:
            continue
        lr = spec.lr * rule.lr_scale * optimizer.layer_decay ** (len(model.blocks) + 1 - model.depth_of(name))
        decay = optimizer.weight_decay if rule.weight_decay is None else rule.weight_decay
        group = groups.setdefault((lr, decay), {"params": [], "lr": lr, "weight_decay": decay})
        group["params"].append(parameter)
    return sorted(groups.values(), key=lambda group: group["lr"] != spec.lr)
