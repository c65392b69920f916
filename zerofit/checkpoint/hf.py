"""A checkpoint in the form that transformers itself loads: its names, its config.json, its classes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, GenerationConfig, PreTrainedModel, ViTForImageClassification
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, revert_weight_conversion
from transformers.initialization import no_init_weights

from zerofit.checkpoint.content import Content
from zerofit.checkpoint.stream import Value
from zerofit.config.errors import UserError
from zerofit.config.limited import read_limited
from zerofit.config.model import PatchLM
from zerofit.data.tokenizer import load_tokenizer
from zerofit.models.cad_mllm import LANGUAGE, CadMllm
from zerofit.models.causal_lm import LanguageModel
from zerofit.models.classifier import BACKBONE
from zerofit.models.origin import HEAD, VIT_HEAD, first
from zerofit.models.placement import other_names, parameters_on_meta
from zerofit.models.trained import TrainedModel
from zerofit.models.vit import VitClassifier
from zerofit.models.whole import Described

VIT_BACKBONE = "vit."
CONFIG = "config.json"


def as_transformers(content: Content, described: Described, dtype: torch.dtype) -> Content:
    """`content`, of a run without adapters or with merged ones, under transformers' names. Raises UserError.

    A ViT becomes ViTForImageClassification, its head included; a decoder as image backbone the family's model without
    head; a language model is the family's with its LM head, and of a CAD-MLLM that is all that goes out.
    """
    config = deepcopy(described.plain.config)
    config.dtype = dtype
    notes = [*content.notes]
    kind, theirs_of = _form(described.plain)
    model = _on_meta(kind, config)
    config.architectures = [kind.__name__]
    places = _original_names(model)
    renamed: dict[str, str] = {}
    tied = other_names(model)
    for name in content.names:
        theirs = theirs_of(name)
        if theirs is not None and theirs not in tied:
            renamed[name] = places.pop(theirs)
    for alias in tied:
        del places[alias]  # its value is that of the first name, which loading puts in both places
    left_out = [name for name in content.names if name not in renamed and theirs_of(name) not in tied]
    if left_out:
        notes.append(f"left out, since {type(model).__name__} has no place for it: {first(left_out)}")
    recipe = described.spec.recipe.model
    if isinstance(recipe, PatchLM) and recipe.attention_mask == "bidirectional":
        notes.append(
            "it was trained with bidirectional attention, and transformers' model is causal: set is_causal of its "
            "attention modules to False"
        )
    added = _embedding(model, places)

    def weights() -> Iterator[tuple[str, Value]]:
        for name, value in content.weights():
            if name in renamed:
                yield renamed[name], value
        yield from added.items()

    return replace(
        content,
        names=[*renamed.values(), *added],
        weights=weights,
        buffers=frozenset(renamed[name] for name in content.buffers if name in renamed),
        optimizer=None,
        config=config.to_json_file,
        beside=partial(_write_beside, described) if isinstance(described.plain, (LanguageModel, CadMllm)) else None,
        notes=notes,
    )


def _form(ours: TrainedModel) -> tuple[type[PreTrainedModel], Callable[[str], str | None]]:
    """transformers' class, and its name of each of our tensors; null for one that it has no place for."""
    if isinstance(ours, VitClassifier):
        if ours.head_norm is not None:
            raise UserError(
                "--to hf: ViTForImageClassification has no place for the BatchNorm before this probe's head; "
                "use --to safetensors"
            )
        heads = dict(zip(HEAD, VIT_HEAD, strict=True))
        return (
            ViTForImageClassification,
            lambda name: VIT_BACKBONE + name.removeprefix(BACKBONE) if name.startswith(BACKBONE) else heads.get(name),
        )
    if isinstance(ours, LanguageModel):
        return cast("type[PreTrainedModel]", MODEL_FOR_CAUSAL_LM_MAPPING[type(ours.config)]), lambda name: name
    if isinstance(ours, CadMllm):
        return type(ours.family), lambda name: name.removeprefix(LANGUAGE) if name.startswith(LANGUAGE) else None
    return type(ours.family), lambda name: name.removeprefix(BACKBONE) if name.startswith(BACKBONE) else None


def _write_beside(described: Described, directory: Path) -> None:
    """The tokenizer with its chat template, and what ends a completion."""
    recipe, facts = described.spec.recipe, described.spec.text
    load_tokenizer(recipe).save_pretrained(directory)
    ends = GenerationConfig.from_model_config(described.plain.config)
    ends.pad_token_id, ends.eos_token_id = facts.pad, list(facts.stops)
    ends.save_pretrained(directory)


def with_config(content: Content, directory: Path, dtype: torch.dtype) -> Content:
    """`content` under the names that it has, with the config.json that lies in `directory`. Raises UserError.

    For checkpoints from elsewhere: what their names are of, only whoever wrote them knows.
    """
    path = directory / CONFIG
    if not path.is_file():
        raise UserError(
            f"--to hf needs the model's {CONFIG}, and there is none in {directory}: copy there that of the model "
            "which was trained (save_pretrained writes it)"
        )
    try:
        fields = json.loads(read_limited(path))
        kind = fields["model_type"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{path} is no {CONFIG} of transformers: it has no model_type") from None
    fields = {name: value for name, value in fields.items() if name != "torch_dtype"}
    fields["dtype"] = str(dtype).removeprefix("torch.")

    def write(path: Path) -> None:
        path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")

    note = f"names are as they were; {CONFIG}, of a {kind}, is that of {directory}"
    return replace(content, optimizer=None, config=write, notes=[*content.notes, note])


def _on_meta(kind: type[PreTrainedModel], config: Any) -> PreTrainedModel:
    with parameters_on_meta(), no_init_weights():
        return kind(config)


def _original_names(model: PreTrainedModel) -> dict[str, str]:
    """Of each tensor of `model` the name under which save_pretrained would write it. Raises UserError."""
    state = model.state_dict()
    if any(isinstance(one, WeightConverter) for one in get_model_conversion_mapping(model, add_legacy=False)):
        raise UserError(
            f"--to hf: transformers fuses tensors of a {model.config.model_type} when it loads them, and this cannot "
            "be undone here; use --to safetensors"
        )
    names = {}
    for name, place in state.items():
        (theirs,) = revert_weight_conversion(model, {name: place})
        names[name] = theirs
    return names


def _embedding(model: PreTrainedModel, places: Mapping[str, str]) -> dict[str, Tensor]:
    """Zeros for the token embedding, which these runs do not have. Raises UserError for anything else that lacks."""
    tokens = next((name for name, module in model.named_modules() if module is model.get_input_embeddings()), None)
    lacking = [name for name in places if name != f"{tokens}.weight"]
    if lacking:
        raise UserError(f"--to hf: the run has no {lacking[0]}, which {type(model).__name__} has")
    return {theirs: torch.zeros(model.get_parameter(name).shape) for name, theirs in places.items()}
