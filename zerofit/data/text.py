"""Text as samples (`describe`): read, written by the chat template, cut into tokens, packed, and kept on a drive.

What the samples are is decided by the recipe's data, the tokenizer, the files and the libraries, and a hash of all that
names their directory: the same text is cut once.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any, Literal

import xxhash
from transformers import PreTrainedTokenizerBase

from zerofit.config.errors import UserError
from zerofit.config.limited import read_limited
from zerofit.config.schema import Recipe
from zerofit.config.text import Text
from zerofit.data import sample_cache, text_rows
from zerofit.data.chat import Chat
from zerofit.data.cutting import Cutter, Dialogues, Documents, Questions
from zerofit.data.making import Making
from zerofit.data.tokenizer import load_tokenizer, tokenizer_directory, vocabulary
from zerofit.plan.spec import TextFacts

FORMAT = 1
"""Of the samples, and of what this program makes of a row: another one makes them anew."""
LIBRARIES = ("zerofit", "transformers", "tokenizers", "jinja2", "trl")
"""Whose versions decide about tokens."""
Origin = Literal["split", "train", "test"]


def describe(recipe: Recipe) -> TextFacts:
    """What the recipe's text holds, cut into samples, or into prompts for the task grpo.

    Raises UserError: nothing there, a row that cannot be used, no tokenizer or template that can, nothing to learn, or
    nothing that is short enough.
    """
    data, seed = recipe.text, recipe.train.seed
    tokenizer = load_tokenizer(recipe)
    chat = None if data.source == "documents" else Chat(tokenizer)
    cutter = _cutter(recipe, tokenizer, chat)
    sources = text_rows.sources_of(data)
    origin = _validation_from(data)
    drawn = data.source == "arithmetic" or data.validation > 0 or data.limit is not None
    decides = {
        "format": FORMAT,
        "task": recipe.task,
        "data": {name: value for name, value in data.model_dump().items() if not name.endswith("path")},
        "seed": seed if drawn else None,
        "files": {split: [text_rows.stamp(one) for one in files] for split, files in sources.items()},
        "tokenizer": fingerprint(tokenizer),
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }

    def make(directory: Path) -> dict[str, Any]:
        end = None if chat is None else chat.end_of_turn()
        return {"end": end, **Making(recipe, cutter, directory).all(sources)}

    directory, kept = sample_cache.kept(sample_cache.default_root(os.environ), decides, make)
    end = kept.pop("end")
    return TextFacts(
        **kept,
        validation_from=origin,
        vocabulary=vocabulary(tokenizer),
        pad=int(tokenizer.pad_token_id),
        stops=_stops(recipe, tokenizer, end),
        samples=directory,
    )


def restore(recipe: Recipe, facts: TextFacts) -> None:
    """Make the samples that `facts` describe again where they are gone. Raises UserError where others come out."""
    if facts.samples.is_dir():
        return
    found = describe(recipe)
    if found != facts:
        raise UserError(
            f"data: the samples of this run are gone from {facts.samples}, and are not the same when made again: "
            "files, libraries or $ZEROFIT_CACHE have changed; start a new run"
        )


def _cutter(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, chat: Chat | None) -> Cutter:
    most = recipe.text.max_length
    if chat is None:
        return Documents(tokenizer, most)
    return Questions(chat, most) if recipe.task == "grpo" else Dialogues(chat, most)


def _validation_from(data: Text) -> Origin:
    if data.validation_path is not None:
        return "split"
    if data.validation > 0:
        return "train"
    if data.test_path is not None or data.source == "arithmetic":
        return "test"
    raise UserError(
        "data.validation: there is neither validation_path nor test_path; set the fraction of the rows to hold out, "
        "for example data.validation=0.05"
    )


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    """All that decides about a tokenizer's tokens, and its template."""
    inner = xxhash.xxh3_128(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    return [inner, tokenizer.chat_template, {name: str(one) for name, one in tokenizer.special_tokens_map.items()}]


def _stops(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, end: int | None) -> tuple[int, ...]:
    """The tokenizer's end, the one that the template ends turns with, and those of the model's generation config."""
    stops = [int(tokenizer.eos_token_id)] if end is None else [int(tokenizer.eos_token_id), end]
    directory = tokenizer_directory(recipe.language_model)
    return tuple(dict.fromkeys([*stops, *(configured_stops(directory) if directory is not None else ())]))


def configured_stops(directory: Path) -> list[int]:
    """The token ids that the generation config beside weights ends with, if there is one. Raises UserError."""
    path = directory / "generation_config.json"
    if not path.is_file():
        return []
    try:
        named = json.loads(read_limited(path)).get("eos_token_id")
        return [int(one) for one in (named if isinstance(named, list) else [named]) if one is not None]
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path} is no generation config") from None
