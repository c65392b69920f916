"""The forms that rows come in. A new one is a function here, and a line in FORMS."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from zerofit.prepare.answers import final_answer, marked, short, written
from zerofit.prepare.parts import turns
from zerofit.prepare.rows import Example, Fields, Message, Unusable

ANSWERS = ("answer", "final_answer", "ground_truth")
"""Fields that hold the checkable answer where a form does not say otherwise."""
DIALOGUE = "dialogue"
"""The field that a row which is a list, not an object, is put under."""


def openai(row: Fields) -> Example:
    """{messages: [{role, content}]}"""
    return Example(tuple(turns(row["messages"])), _given(row))


def sharegpt(row: Fields) -> Example:
    """{conversations: [{from, value}]}"""
    return Example(tuple(turns(row["conversations"])), _given(row))


def prompt_completion(row: Fields) -> Example:
    """{prompt, completion}, each text or a list of turns; also {query, response}."""
    asked, said = _either(row, "prompt", "query"), _either(row, "completion", "response")
    return Example((*_said("user", asked), *_said("assistant", said)), _given(row))


def prompt_final_answer(row: Fields) -> Example:
    """{prompt: [{from, value}], final_answer}"""
    return Example(tuple(_said("user", row["prompt"])), written(row["final_answer"]))


def prompt_reward(row: Fields) -> Example:
    """{prompt: [{role, content}], reward_model: {ground_truth}}"""
    reward = row["reward_model"]
    if not isinstance(reward, dict):
        raise Unusable("invalid", "reward_model is no object")
    return Example(tuple(_said("user", row["prompt"])), written(reward.get("ground_truth")))


def dialogue_ground_truth(row: Fields) -> Example:
    """[{from: human, value}, {from: assistant, ground_truth: {value}}]"""
    items, answer = row[DIALOGUE], None
    if isinstance(items, list) and items and isinstance(items[-1], dict) and "ground_truth" in items[-1]:
        truth = items[-1]["ground_truth"]
        answer, items = written(truth.get("value") if isinstance(truth, dict) else truth), items[:-1]
    return Example(tuple(turns(items)), answer)


def problem_solution(row: Fields) -> Example:
    r"""{problem, solution, answer}; without an answer, the solution's \\boxed{}."""
    problem = _either(row, "problem", "question")
    said = [message for message in _said("assistant", row.get("solution")) if message.content.strip()]
    return Example((*_said("user", problem), *said), written(row.get("answer")))


def question_answer(row: Fields) -> Example:
    """{question, answer}: the answer is a solution that ends with `#### 42`, or the bare answer."""
    answer = row["answer"]
    said = tuple(_said("assistant", answer if isinstance(answer, str) else written(answer)))
    text = said[0].content if said else ""
    return Example((*_said("user", row["question"]), *said), marked(text) or final_answer(text) or short(text))


def question_truth(row: Fields) -> Example:
    """{question, ground_truth}: as above, and the last line may be `A: 42`."""
    found = question_answer({"question": row["question"], "answer": row["ground_truth"]})
    last = found.messages[-1].content.rpartition("\n")[2] if found.messages else ""
    return Example(found.messages, last[2:].strip() if last.startswith("A:") else found.answer)


def alpaca(row: Fields) -> Example:
    """{instruction, input, output}"""
    parts = [text for text in (row["instruction"], row.get("input")) if text is not None]
    asked = "\n\n".join(message.content.strip() for part in parts for message in _said("user", part)).strip()
    return Example((Message("user", asked), *_said("assistant", row["output"])), _given(row))


def svamp(row: Fields) -> Example:
    """{Body, Question, Answer}: the question follows from the body."""
    body, question = (
        "\n".join(message.content for message in _said("user", row[part])).strip() for part in ("Body", "Question")
    )
    stop = "" if body.endswith((".", "?", "!", ",")) else "."
    return Example((Message("user", f"{body}{stop} {question}"),), written(row["Answer"]))


def text(row: Fields) -> Example:
    """{text}: what the assistant says, to no question."""
    return Example(tuple(_said("assistant", row["text"])), _given(row))


LIKE = 0.6
"""Similarity of two names from which on one may be meant by the other."""


@dataclass(frozen=True)
class Form:
    """How one form is known, and read."""

    needs: tuple[str, ...]
    """Fields that it must have; `a|b` is either."""
    read: Callable[[Fields], Example]

    def fits(self, names: Collection[str]) -> bool:
        """Whether a row that has these fields can be of this form."""
        return all(any(one in names for one in need.split("|")) for need in self.needs)


FORMS: dict[str, Form] = {
    "messages (OpenAI)": Form(("messages",), openai),
    "conversations (ShareGPT)": Form(("conversations",), sharegpt),
    "prompt/completion": Form(("prompt|query", "completion|response"), prompt_completion),
    "prompt/final_answer (Open-Reasoner-Zero)": Form(("prompt", "final_answer"), prompt_final_answer),
    "prompt/reward_model (verl)": Form(("prompt", "reward_model"), prompt_reward),
    "dialogue/ground_truth (Open-Reasoner-Zero)": Form((DIALOGUE,), dialogue_ground_truth),
    "problem/solution/answer (MATH)": Form(("problem|question", "solution"), problem_solution),
    "problem/answer": Form(("problem", "answer"), problem_solution),
    "question/answer (GSM8K)": Form(("question", "answer"), question_answer),
    "question/ground_truth": Form(("question", "ground_truth"), question_truth),
    "instruction/input/output (Alpaca)": Form(("instruction", "output"), alpaca),
    "Body/Question/Answer (SVAMP)": Form(("Body", "Question", "Answer"), svamp),
    "text": Form(("text",), text),
}
"""By their names; of several that fit a row, it is of the first."""

NAMES = tuple(
    dict.fromkeys(
        [name for form in FORMS.values() for need in form.needs for name in need.split("|") if name != DIALOGUE]
        + ["input", "system", "tools"]
    )
)
"""The fields that mean something: what `--fields` can fill."""


def recognise(value: Any) -> tuple[str, Fields]:
    """The name of a row's form, and its fields. Raises Unusable where it is of none."""
    if isinstance(value, list) and value and all(isinstance(item, dict) and "from" in item for item in value):
        value = {DIALOGUE: value}
    if not isinstance(value, dict):
        raise Unusable("unknown form", "it is no object with fields")
    there = [name for name in value if value[name] is not None]
    for names in (there, list(value)):  # a field that is null counts where no form does without it
        for name, form in FORMS.items():
            if form.fits(names):
                return name, value
    raise Unusable("unknown form", f"it has {_listed(value)}")


def example_of(form: str, row: Fields, system: str | None) -> Example:
    """The row in normal form, with its own system prompt or, where it has none, `system`. Raises Unusable."""
    found = FORMS[form].read(row)
    messages, answer = found.messages, found.answer
    own = row.get("system") if isinstance(row.get("system"), str) and str(row["system"]).strip() else None
    if (own or system) and not any(message.role == "system" for message in messages):
        messages = (Message("system", str(own or system)), *messages)
    if not any(message.role == "assistant" for message in messages) and answer is None:
        raise Unusable("no target", "it has neither an assistant turn nor an answer")
    if all(message.role == "system" for message in messages):
        raise Unusable("empty", "nobody says anything")
    for message in messages:
        if message.role in ("user", "assistant") and not message.content.strip():
            raise Unusable("empty", f"the {message.role} says nothing in one of the turns")
    if answer is None:
        answer = next((final_answer(said.content) for said in reversed(messages) if said.role == "assistant"), None)
    return _encodable(Example(messages, answer, _tools(row.get("tools"))))


def nearest(names: Collection[str]) -> str:
    """What a file of these fields lacks, in words."""
    found = {form: _alike(FORMS[form], names) for form in FORMS if DIALOGUE not in FORMS[form].needs}
    best = max(found, key=lambda form: found[form][0])
    hints = [f"{need}={theirs or '...'}" for need, theirs in found[best][1].items()]
    has = " and ".join(found[best][1])
    return f"the nearest form is {best}, which has {has}; name yours: --fields {','.join(hints)}"


def _alike(form: Form, names: Collection[str]) -> tuple[float, dict[str, str | None]]:
    """How much of a form is there under names like its own, and those names."""
    hints: dict[str, str | None] = {}
    score, free = 0.0, list(names)
    for need in form.needs:
        scores = {name: SequenceMatcher(None, need.split("|")[0], name.lower()).ratio() for name in free}
        near = max(scores, key=lambda name: scores[name], default=None)
        if near is None or scores[near] < LIKE:
            hints[need.split("|")[0]] = None
            continue
        score += scores[near] / len(form.needs)
        hints[need.split("|")[0]] = near
        free.remove(near)
    return score, hints


def _listed(names: Collection[str]) -> str:
    shown = list(map(str, names))
    more = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
    return f"the fields {', '.join(shown[:12])}{more}" if shown else "no fields"


def _said(role: str, value: Any) -> list[Message]:
    """Text as one turn of `role`, or a list of turns."""
    if value is None:
        return []
    return turns(value if isinstance(value, list) else [{"role": role, "content": value}])


def _either(row: Fields, one: str, other: str) -> Any:
    return row[one] if row.get(one) is not None else row.get(other)


def _given(row: Fields) -> str | None:
    """The answer that the row names; objects and sentences are no answers."""
    given = [written(row.get(name)) for name in ANSWERS if not isinstance(row.get(name), bool)]
    return next((answer for answer in given if answer is not None), None)


def _tools(value: Any) -> str | None:
    if value in (None, "", []):
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


HALF = re.compile("[\ud800-\udfff]")


def _encodable(example: Example) -> Example:
    texts = [*(message.content for message in example.messages), example.answer or "", example.tools or ""]
    if any(HALF.search(one) for one in texts):
        raise Unusable("invalid", "it holds half a character (a lone surrogate)")
    return example
