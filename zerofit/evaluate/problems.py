"""Problems with answers that can be checked: of any form that `zerofit prepare` knows, or a run's own test rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice

from zerofit.config.errors import UserError
from zerofit.data.samples import open_prompts
from zerofit.data.text import restore
from zerofit.data.text_rows import TextRow, arithmetic_rows, rows
from zerofit.plan.spec import RunSpec
from zerofit.prepare.forms import example_of
from zerofit.prepare.mapping import check_fields, known_form
from zerofit.prepare.reading import read
from zerofit.prepare.rows import Broken, Example, Message, Unusable
from zerofit.prepare.sources import Source, find

ASKED = "--data"
"""Where problems come from, in messages."""


@dataclass(frozen=True)
class Problem:
    """What is asked, and what is right."""

    name: str
    """Where it comes from: `file:line`."""
    example: Example
    """Its turns; what the assistant says in the last of them is left to the model."""
    gold: str
    """The right answer."""


def read_problems(
    data: Sequence[str], fields: Mapping[str, str], system: str | None, limit: int | None
) -> list[Problem]:
    """All of them, or the first `limit`. Raises UserError for a row that cannot be used: none is left out."""
    found = list(islice(_problems(find(data), fields, system), limit))
    if not found:
        raise UserError(f"{ASKED}: there is no row in {', '.join(data)}")
    return found


def own_problems(spec: RunSpec, system: str | None, limit: int | None) -> tuple[list[Problem], str]:
    """The run's own test rows, else those that it was validated on; and what they are, in words. Raises UserError."""
    data = spec.recipe.text
    if system is not None:
        data = data.model_copy(update={"system": system})
    if data.source == "arithmetic":
        found: Iterable[TextRow | None] = arithmetic_rows(data, spec.recipe.train.seed)["test"]
        words = "arithmetic, test problems"
    elif data.source == "documents":
        raise UserError(f"{spec.run_dir} was trained on documents, which ask nothing: name problems with --data")
    elif data.test_path or data.validation_path:
        words = str(data.test_path or data.validation_path)
        found = (row for source in find([words]) for row in rows(source, data.system))
    elif spec.recipe.task == "grpo":
        found = _held_out(spec)
        words = "rows held out of training"
    else:
        raise UserError(f"{spec.run_dir} has no test rows of its own: name problems with --data")
    usable = (_checked(row.where, row.example) for row in found if row is not None)
    return list(islice(usable, limit)), words


def _held_out(spec: RunSpec) -> Iterator[TextRow]:
    restore(spec.recipe, spec.text)
    for prompt in open_prompts(spec.text, "validation"):
        turns = tuple(Message(**turn) for turn in prompt.row["messages"])
        yield TextRow(prompt.where, Example(turns, prompt.row["answer"]), {})


def _problems(sources: Iterable[Source], fields: Mapping[str, str], system: str | None) -> Iterator[Problem]:
    for source in sources:
        first = True
        for item in read(source):
            if isinstance(item, Broken):
                raise UserError(f"{ASKED}: {item.source}: {item.why}")
            if first and fields:
                check_fields(item.value, fields, source.name)
            first = False
            try:
                form, row = known_form(item.value, fields)
                example = example_of(form, row, system)
            except Unusable as why:
                raise UserError(f"{ASKED}: {item.source}: {why.detail}") from None
            yield _checked(item.source, example)


def _checked(where: str, example: Example) -> Problem:
    """Raises UserError where there is no question, or no answer."""
    if example.answer is None:
        raise UserError(
            f"{ASKED}: {where}: has no answer to check against: a field `answer`, or a solution that ends in `#### 42` "
            "or \\boxed{42} (--fields answer=YOURS names another field)"
        )
    if not any(message.role == "user" for message in example.prompt):
        raise UserError(f"{ASKED}: {where}: asks nothing")
    return Problem(where, example, example.answer)


def check_answers(problems: Sequence[Problem]) -> None:
    """Raise UserError where a right answer cannot be read."""
    from zerofit.tasks.built_in_rewards import MathCorrect

    judge = MathCorrect()
    for problem in problems:
        try:
            judge.check({"answer": problem.gold})
        except UserError as error:
            raise UserError(f"{ASKED}: {problem.name}: {error}") from None


def digest(problems: Sequence[Problem]) -> str:
    """What two evaluations of the same problems share, whatever the files' names and the system messages."""
    state = sha256()
    for problem in problems:
        asked = [list(message) for message in problem.example.prompt if message.role != "system"]
        state.update(json.dumps([asked, problem.gold], ensure_ascii=False).encode() + b"\n")
    return state.hexdigest()


def majority_baseline(golds: Sequence[str]) -> float:
    """What always giving the commonest of the right answers gets right."""
    return Counter(golds).most_common(1)[0][1] / len(golds)
