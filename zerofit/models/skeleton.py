"""A run's model without weights: names, shapes, and what of it is trained."""

from __future__ import annotations

from copy import deepcopy

import torch
from transformers.initialization import no_init_weights

from zerofit.models.build import KINDS
from zerofit.models.classifier import ImageClassifier
from zerofit.models.config import make_config
from zerofit.models.initialise import untouched_random_state
from zerofit.models.placement import parameters_on_meta
from zerofit.models.pretrained import locate
from zerofit.models.trainable import apply_rules
from zerofit.plan.rules import rules_of
from zerofit.plan.spec import RunSpec


def skeleton_of(spec: RunSpec) -> ImageClassifier:
    """The model of `spec`, without adapters, on the meta device, with its rules applied. Raises UserError."""
    model = spec.recipe.model
    assert model.lora is None, "adapters are not made here"
    directory = None if model.pretrained is None else locate(model.pretrained, weights=False)
    adjust, kind = KINDS[model.kind]
    config = adjust(make_config(spec, directory), spec)
    with untouched_random_state(torch.device("cpu")), no_init_weights(), parameters_on_meta():
        skeleton = kind(deepcopy(config), spec, torch.float32)
    apply_rules(skeleton, rules_of(spec.recipe))
    return skeleton
