"""What a completion is worth: a weighted sum of rewards, built in or of the user's own.

A reward is a function of a completion and the row of its problem, and gives a number. One of the user's own is named in
the recipe as `package.module:function`; the module is imported as Python would import it, so it can do what it likes.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from numbers import Real
from typing import Any

from pydantic import ValidationError

from zerofit.config.errors import UserError, did_you_mean
from zerofit.config.reward import Reward
from zerofit.tasks.built_in_rewards import BuiltIn, Length, MathCorrect, Row, ThinkFormat

RewardFunction = Callable[[str, Row], float]

REWARDS: dict[str, type[BuiltIn]] = {"math_correct": MathCorrect, "think_format": ThinkFormat, "length": Length}


@dataclass(frozen=True)
class Score:
    """What one completion is worth."""

    total: float
    """The weighted sum."""
    parts: dict[str, float]
    """Each reward by name, before its weight."""


class Rewards:
    """The rewards of a recipe, ready to be asked. Raises UserError where one cannot be had."""

    def __init__(self, rewards: Sequence[Reward]) -> None:
        self._rewards = [(reward, load(reward)) for reward in rewards]

    def score(self, completion: str, row: Row, where: str) -> Score:
        """What the completion of the problem in `row` is worth; `where` is what messages call that row.

        Raises UserError where a reward fails, or gives what is no finite number.
        """
        parts = {reward.name: _ask(reward.name, function, completion, row, where) for reward, function in self._rewards}
        return Score(sum(reward.weight * parts[reward.name] for reward, _ in self._rewards), parts)

    def functions(self) -> list[tuple[str, Callable[[str, Row, str], float]]]:
        """(name, what gives one reward of a completion, its row and what messages call that row), in order.

        They raise UserError as `score` does, and know nothing of weights.
        """

        def asking(name: str, function: RewardFunction) -> Callable[[str, Row, str], float]:
            return lambda completion, row, where: _ask(name, function, completion, row, where)

        return [(reward.name, asking(reward.name, function)) for reward, function in self._rewards]

    def check(self, row: Row, where: str) -> None:
        """Raise UserError where a row of the data set has not what a built-in reward needs."""
        for reward, function in self._rewards:
            if isinstance(function, BuiltIn):
                try:
                    function.check(row)
                except UserError as error:
                    raise UserError(f"{where}: reward {reward.name}: {error}") from error


def load(reward: Reward) -> RewardFunction:
    """The function that a reward of a recipe names, with its options. Raises UserError."""
    if reward.name not in REWARDS:
        return _own(reward.name, reward.options)
    settings = REWARDS[reward.name]
    try:
        return settings.model_validate(reward.options)
    except ValidationError as error:
        raise UserError("\n".join(_faults(reward.name, settings, error))) from None


def _faults(name: str, settings: type[BuiltIn], error: ValidationError) -> list[str]:
    lines = []
    for fault in error.errors(include_url=False):
        option = ".".join(str(part) for part in fault["loc"])
        reason = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            fields = settings.model_fields
            reason = f"it has no such option; it has {', '.join(fields)}{did_you_mean(option, fields)}"
        elif fault["type"] != "missing" and option:
            reason += f", not {fault['input']!r}"
        lines.append(f"reward {name}: {option + ': ' if option else ''}{reason}")
    return lines


def _own(name: str, options: Mapping[str, Any]) -> RewardFunction:
    """A function of the user's own."""
    module_name, _, function_name = name.partition(":")
    if module_name.partition(".")[0] in sys.stdlib_module_names:  # subprocess:getoutput would run what a model writes
        raise UserError(f"reward {name}: is of Python's standard library; name a function of your own")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # it runs whatever the module does
        fault = f"{type(error).__name__}: {error}"
        raise UserError(
            f"reward {name}: cannot import {module_name} ({fault}); is its directory in PYTHONPATH?"
        ) from error
    if function_name not in vars(module):
        near = did_you_mean(function_name, vars(module))
        raise UserError(f"reward {name}: {module_name} has no {function_name}{near}")
    function = vars(module)[function_name]
    if not callable(function) or inspect.isclass(function) or inspect.iscoroutinefunction(function):
        raise UserError(f"reward {name}: is to be a function, not {type(function).__name__} {function!r:.80}")
    words = ", ".join(["completion", "row", *options])
    try:
        signature = inspect.signature(function)
        signature.bind("", {}, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"reward {name}: cannot be called as {function_name}({words}): {error}") from None
    return partial(function, **options) if options else function


def _ask(name: str, function: Callable[[str, Row], Any], completion: str, row: Row, where: str) -> float:
    try:
        value = function(completion, row)
    except UserError as error:
        raise UserError(f"{where}: reward {name}: {error}") from error
    except Exception as error:
        raise UserError(f"{where}: reward {name}: {type(error).__name__}: {error}") from error
    if not isinstance(value, Real) or not isfinite(value):
        raise UserError(f"{where}: reward {name}: gave {value!r:.80}, which is no finite number; return a float")
    return float(value)
