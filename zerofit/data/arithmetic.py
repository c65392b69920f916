"""Embedded word problems: small sums about named things, each with a short thought and an answer.

A problem is a function of (seed, index, largest operand), the same on any machine. Which operands belong to training
and which to testing is settled once for all seeds, by a hash: no training problem has all the numbers of a test
problem, in any order, for any kind of sum.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from zerofit.config.errors import UserError

NAMES = ("Ada", "Ben", "Chen", "Dina", "Emil", "Farah", "Goran", "Hana", "Ivan", "Julia", "Kofi", "Lena")
THINGS = ("apples", "books", "coins", "pens", "stamps", "shells", "marbles", "cards", "eggs", "stickers")
SMALLEST = 2
TEST_SHARE = 0.2
"""Of operand tuples."""
TRIES = 10_000
"""Indices looked at in a row without a new problem, before the range is taken to have no more."""
ROUGHLY = 10
"""Estimates are multiples of it."""


@dataclass(frozen=True)
class Problem:
    """A question, how to think about it, and its answer."""

    kind: str
    """Which template it was made from."""
    operands: tuple[int, ...]
    """The numbers of the question, in its order."""
    question: str
    thought: str
    """The steps, a line each."""
    answer: int
    given: int | None = None
    """What the solution says, where it only estimates; null: the answer."""

    @property
    def completion(self) -> str:
        """What a model that reasons is to write."""
        given = self.answer if self.given is None else self.given
        return f"<think>\n{self.thought}\n</think>\nThe answer is \\boxed{{{given}}}."

    def estimated(self) -> Problem:
        """The same problem with a solution that only estimates, and so is wrong of most."""
        given = (self.answer + ROUGHLY // 2) // ROUGHLY * ROUGHLY
        return replace(self, thought=f"That is about {given}.", given=given)

    @property
    def held_out(self) -> bool:
        """Whether its operands, in whatever order, are kept for testing."""
        digest = sha256(" ".join(map(str, sorted(self.operands))).encode()).digest()
        return int.from_bytes(digest[:8], "big") < TEST_SHARE * 2**64

    def row(self) -> dict[str, str | int]:
        """The columns of a data set: question, completion, answer."""
        return {"question": self.question, "completion": self.completion, "answer": self.answer}


@dataclass(frozen=True)
class _Draw:
    """What a template is filled with: numbers, two different names, two different things."""

    numbers: tuple[int, int, int]
    who: str
    other: str
    thing: str
    second: str


def _add(draw: _Draw) -> Problem:
    a, b, _ = draw.numbers
    question = (
        f"{draw.who} has {a} {draw.thing}. {draw.other} gives {draw.who} {b} more. "
        f"How many {draw.thing} does {draw.who} have now?"
    )
    thought = f"{draw.who} starts with {a} and gets {b} more.\n{a} + {b} = {a + b}"
    return Problem("add", (a, b), question, thought, a + b)


def _subtract(draw: _Draw) -> Problem:
    b, a = sorted(draw.numbers[:2])
    question = f"{draw.who} has {a} {draw.thing} and gives {b} of them to {draw.other}. How many are left?"
    thought = f"{draw.who} starts with {a} and gives {b} away.\n{a} - {b} = {a - b}"
    return Problem("subtract", (a, b), question, thought, a - b)


def _multiply(draw: _Draw) -> Problem:
    a, b, _ = draw.numbers
    question = f"{draw.who} has {a} boxes with {b} {draw.thing} in each. How many {draw.thing} is that?"
    thought = f"There are {a} boxes of {b}.\n{a} * {b} = {a * b}"
    return Problem("multiply", (a, b), question, thought, a * b)


def _multiply_then_add(draw: _Draw) -> Problem:
    a, b, c = draw.numbers
    question = (
        f"{draw.who} buys {a} bags with {b} {draw.thing} in each and finds {c} {draw.thing} at home. "
        f"How many {draw.thing} does {draw.who} have?"
    )
    thought = f"The bags hold {a} times {b}.\n{a} * {b} = {a * b}\nWith those at home:\n{a * b} + {c} = {a * b + c}"
    return Problem("multiply, add", (a, b, c), question, thought, a * b + c)


def _add_then_subtract(draw: _Draw) -> Problem:
    c, b, a = sorted(draw.numbers)
    question = (
        f"{draw.who} has {a} {draw.thing} and {b} {draw.second}, and gives {c} of them to {draw.other}. "
        f"How many things does {draw.who} keep?"
    )
    thought = f"All together:\n{a} + {b} = {a + b}\n{c} are given away.\n{a + b} - {c} = {a + b - c}"
    return Problem("add, subtract", (a, b, c), question, thought, a + b - c)


TEMPLATES: tuple[Callable[[_Draw], Problem], ...] = (
    _add,
    _subtract,
    _multiply,
    _multiply_then_add,
    _add_then_subtract,
)


def problem(seed: int, index: int, largest: int = 20) -> Problem:
    """The problem of that seed and index, with operands from 2 to `largest`."""
    assert largest >= SMALLEST, largest
    draws = random.Random(f"{seed} {index}")  # of a text: the same in every release

    def below(count: int) -> int:
        return int(draws.random() * count)  # the one method whose numbers never change

    template = TEMPLATES[below(len(TEMPLATES))]
    a, b, c = (SMALLEST + below(largest - SMALLEST + 1) for _ in range(3))
    who, thing = below(len(NAMES)), below(len(THINGS))
    other = (who + 1 + below(len(NAMES) - 1)) % len(NAMES)
    second = (thing + 1 + below(len(THINGS) - 1)) % len(THINGS)
    return template(_Draw((a, b, c), NAMES[who], NAMES[other], THINGS[thing], THINGS[second]))


def split(
    seed: int, train: int, test: int, largest: int = 20, estimates: float = 0.0
) -> tuple[list[Problem], list[Problem]]:
    """`train` problems to learn from and `test` to be tested on, no question twice, no operands in both.

    They are those of indices 0, 1, 2, ...; of the training problems a share `estimates` has a solution that only
    estimates. Raises UserError where the range of operands has too few.
    """
    if min(train, test) < 0 or largest < SMALLEST:
        raise UserError(f"train={train}, test={test}, largest={largest}: are to be at least 0, 0 and {SMALLEST}")
    parts: tuple[list[Problem], list[Problem]] = ([], [])
    wanted = (train, test)
    seen: set[str] = set()
    index = newest = 0
    while len(seen) < train + test:
        if index - newest > TRIES:
            raise UserError(f"operands up to {largest} make too few problems for {train} + {test}; raise largest")
        found = problem(seed, index, largest)
        part = parts[found.held_out]
        if len(part) < wanted[found.held_out] and found.question not in seen:
            seen.add(found.question)
            roughly = not found.held_out and random.Random(f"{seed} {index} estimate").random() < estimates
            part.append(found.estimated() if roughly else found)
            newest = index
        index += 1
    return parts


def majority_accuracy(train: Sequence[Problem], test: Sequence[Problem]) -> float:
    """What always giving the commonest answer of training gets right: a model that has learnt anything does better."""
    assert train
    assert test
    ((answer, _),) = Counter(one.answer for one in train).most_common(1)
    return sum(one.answer == answer for one in test) / len(test)
