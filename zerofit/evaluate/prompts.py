"""Problems as the model gets them: through the chat template, as tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

from zerofit.config.errors import UserError
from zerofit.data.chat import Chat
from zerofit.data.templates import template
from zerofit.data.text import configured_stops
from zerofit.data.tokenizer import load_tokenizer, read_tokenizer
from zerofit.evaluate.asked import TOKENS
from zerofit.evaluate.parts import Prompt
from zerofit.evaluate.problems import Problem
from zerofit.evaluate.request import Model
from zerofit.models.config import config_of, make_config
from zerofit.models.pretrained import locate
from zerofit.plan.files import read_spec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokenizer_for(model: Model) -> PreTrainedTokenizerBase:
    """The run's, or the one beside the weights, with the chat template that was asked for. Raises UserError."""
    if model.run is not None:
        tokenizer = load_tokenizer(read_spec(model.run).recipe)
    else:
        tokenizer = read_tokenizer(str(model.weights), "zerofit eval")
    if model.template is not None:
        tokenizer.chat_template = template(model.template)
    if not tokenizer.is_fast:
        raise UserError(f"{model.name} has no tokenizer.json, and no library here makes one of what it has")
    if tokenizer.chat_template is None:
        raise UserError(
            f"the tokenizer of {model.name} has no chat template: name one with --template, for example chatml, or a "
            "Jinja file"
        )
    return tokenizer


def make_prompts(problems: Sequence[Problem], tokenizer: PreTrainedTokenizerBase) -> list[Prompt]:
    """Each problem up to where the model is to go on. Raises UserError where the template refuses one."""
    found = Chat(tokenizer).prompts([one.example for one in problems], [one.name for one in problems])
    tokens: list[list[int]] = [one.tolist() for one in found]
    return [
        Prompt(problem.name, str(tokenizer.decode(prompt)), prompt, problem.gold)
        for problem, prompt in zip(problems, tokens, strict=True)
    ]


def stops_of(model: Model, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """What ends a completion: the tokenizer's end, the template's end of a turn, and what files beside weights name.

    Raises UserError where there is nothing.
    """
    stops = [tokenizer.eos_token_id, Chat(tokenizer).end_of_turn()]
    if model.run is not None:
        stops += read_spec(model.run).text.stops
    else:
        stops += configured_stops(model.weights)
    found = tuple(dict.fromkeys(int(stop) for stop in stops if stop is not None))
    if not found:
        raise UserError(f"the tokenizer of {model.name} has no token for the end: name one in its eos_token")
    return found


def context_of(model: Model) -> int | None:
    """Tokens that the model knows positions for; null: any number. Raises UserError where its config is none."""
    if model.run is None:
        config = config_of(model.weights)
    else:
        spec = read_spec(model.run)
        name = spec.recipe.model.pretrained
        config = make_config(spec, None if name is None else locate(name, weights=False))
    limit: int | None = config.get_text_config().to_dict().get("max_position_embeddings")
    return limit


def digest(prompts: Sequence[Prompt]) -> str:
    """Of their tokens."""
    return sha256(json.dumps([prompt.tokens for prompt in prompts]).encode()).hexdigest()


def tokens_of_a_completion(prompts: Sequence[Prompt], context: int | None, asked: int | None) -> int:
    """As many as were asked for; else TOKENS, or what the context leaves. Raises UserError where it does not fit."""
    longest = max(prompts, key=lambda prompt: len(prompt.tokens))
    length = len(longest.tokens)
    room = None if context is None else context - length
    if room is not None and room < (asked or 1):
        both = f"{length} tokens" if asked is None else f"{length} tokens and {asked} of a completion"
        advice = f"use --max-tokens {room}" if room > 0 else "leave that problem out"
        raise UserError(
            f"{longest.problem}: its prompt of {both} does not fit into the model's context of {context}: {advice}"
        )
    return asked or (TOKENS if room is None else min(TOKENS, room))
