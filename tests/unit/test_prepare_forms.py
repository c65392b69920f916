"""The forms of rows: each is known by its fields, and read into turns and an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zerofit.config.errors import UserError
from zerofit.prepare.forms import FORMS, NAMES, Form, example_of, nearest, recognise
from zerofit.prepare.mapping import check_fields, known_form, parse_fields
from zerofit.prepare.rows import Example, Message, Unusable

Q, A = ("user", "2 + 2?"), ("assistant", "It is 4.")
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call>'


def read(value: Any, system: str | None = None) -> tuple[str, Example]:
    form, fields = recognise(value)
    return form, example_of(form, fields, system)


def turns(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in pairs]


@pytest.mark.parametrize(
    ("row", "form", "messages", "answer"),
    [
        ({"messages": turns(Q, A)}, "messages (OpenAI)", [Q, A], None),
        ({"messages": turns(Q, A), "answer": 4}, "messages (OpenAI)", [Q, A], "4"),
        (
            {"conversations": [{"from": "human", "value": Q[1]}, {"from": "gpt", "value": A[1]}], "system": "Sum."},
            "conversations (ShareGPT)",
            [("system", "Sum."), Q, A],
            None,
        ),
        ({"prompt": Q[1], "completion": A[1]}, "prompt/completion", [Q, A], None),
        ({"prompt": turns(Q), "completion": turns(A)}, "prompt/completion", [Q, A], None),
        ({"query": Q[1], "response": A[1]}, "prompt/completion", [Q, A], None),
        ({"messages": json.dumps(turns(Q, A))}, "messages (OpenAI)", [Q, A], None),
        (
            {"prompt": [{"from": "user", "value": Q[1]}], "final_answer": "4"},
            "prompt/final_answer (Open-Reasoner-Zero)",
            [Q],
            "4",
        ),
        (
            [{"from": "human", "value": Q[1]}, {"from": "assistant", "ground_truth": {"value": "4"}}],
            "dialogue/ground_truth (Open-Reasoner-Zero)",
            [Q],
            "4",
        ),
        (
            {"prompt": turns(Q), "reward_model": {"style": "rule", "ground_truth": "4"}, "ability": "math"},
            "prompt/reward_model (verl)",
            [Q],
            "4",
        ),
        (
            {"problem": Q[1], "solution": r"So \boxed{4}.", "level": 1},
            "problem/solution/answer (MATH)",
            [Q, ("assistant", r"So \boxed{4}.")],
            "4",
        ),
        ({"problem": Q[1], "solution": None, "answer": 4.0, "question": "x"}, "problem/answer", [Q], "4"),
        (
            {"question": Q[1], "answer": "2 + 2 = <<2+2=4>>4\n#### 4"},
            "question/answer (GSM8K)",
            [Q, ("assistant", "2 + 2 = <<2+2=4>>4\n#### 4")],
            "4",
        ),
        ({"question": Q[1], "answer": "4"}, "question/answer (GSM8K)", [Q, ("assistant", "4")], "4"),
        (
            {"question": Q[1], "answer": "It depends on what you call a sum."},
            "question/answer (GSM8K)",
            [Q, ("assistant", "It depends on what you call a sum.")],
            None,
        ),
        (
            {"question": Q[1], "ground_truth": "2 and 2\nA: 4"},
            "question/ground_truth",
            [Q, ("assistant", "2 and 2\nA: 4")],
            "4",
        ),
        (
            {"instruction": "Add.", "input": "2, 2", "output": "4"},
            "instruction/input/output (Alpaca)",
            [("user", "Add.\n\n2, 2"), ("assistant", "4")],
            None,
        ),
        (
            {"Body": "He has 2 and gets 2", "Question": "How many?", "Answer": 4.0},
            "Body/Question/Answer (SVAMP)",
            [("user", "He has 2 and gets 2. How many?")],
            "4",
        ),
        ({"text": "<answer>4</answer>"}, "text", [("assistant", "<answer>4</answer>")], "4"),
    ],
)
def test_a_form_is_known_by_its_fields(
    row: Any, form: str, messages: list[tuple[str, str]], answer: str | None
) -> None:
    found, example = read(row)
    assert (found, list(map(tuple, example.messages)), example.answer) == (form, messages, answer)


def test_every_form_is_reached() -> None:
    """No form hides another: a row with only its fields is of it."""
    for name, form in FORMS.items():
        fields = dict.fromkeys((need.split("|")[0] for need in form.needs), "x")
        assert next(other for other in FORMS if FORMS[other].fits(fields)) == name


def test_reasoning_and_tool_calls_become_text() -> None:
    parts = [
        {"type": "reasoning", "value": "I add."},
        {"type": "text", "value": "Let me."},
        {"type": "tool_call", "value": '{"name": "add", "arguments": {"a": 2}}'},
    ]
    tools = [{"type": "function", "function": {"name": "add"}}]
    rows = [
        {"messages": [*turns(Q), {"role": "assistant", "content": parts}, *turns(("tool", "4"), A)], "tools": tools},
        {
            "messages": [
                *turns(Q),
                {
                    "role": "assistant",
                    "content": "Let me.",
                    "reasoning_content": "I add.",
                    "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}],
                },
                *turns(("tool", "4"), A),
            ],
            "tools": '[{"type": "function", "function": {"name": "add"}}]',
        },
    ]
    for row in rows:
        example = read(row)[1]
        assert example.messages[1] == Message("assistant", f"<think>\nI add.\n</think>\n\nLet me.\n{CALL}")
        assert example.messages[2:] == (Message("tool", "4"), Message(*A))  # type: ignore[arg-type]
        assert example.prompt == example.messages[:3]
        assert example.opening == example.messages[:1]
        assert example.tools == '[{"type": "function", "function": {"name": "add"}}]'


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("text", "unknown form"),
        ({"Frage": 1}, "unknown form"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "unknown form"),
        ({"messages": "hello"}, "invalid"),
        ({"messages": []}, "empty"),
        ({"messages": [{"role": "pope", "content": "x"}]}, "invalid"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "u"}]}]}, "invalid"),
        ({"messages": [{"role": "user", "content": 5}]}, "invalid"),
        ({"messages": turns(Q)}, "no target"),
        ({"problem": "x", "answer": None}, "no target"),
        ({"question": " ", "answer": "4"}, "empty"),
        ({"prompt": "x", "completion": " \n"}, "empty"),
        ({"text": "half \ud800"}, "invalid"),
    ],
)
def test_what_cannot_be_used_has_a_reason(row: Any, reason: str) -> None:
    with pytest.raises(Unusable) as caught:
        read(row)
    assert caught.value.reason == reason
    assert "\n" not in caught.value.detail


def test_a_system_prompt_is_for_rows_that_have_none() -> None:
    assert read({"text": "x"}, "Think.")[1].messages[0] == Message("system", "Think.")
    own = {"messages": turns(("developer", "Own."), Q, A)}
    assert [message.content for message in read(own, "Think.")[1].messages] == ["Own.", Q[1], A[1]]


def test_fields_may_have_other_names() -> None:
    mapping = parse_fields("question=problem, answer=truth.value")
    row = {"problem": "2 + 2?", "solution": "no", "truth": {"value": "#### 4"}}
    form, fields = known_form(row, mapping)
    assert form == "question/answer (GSM8K)"
    assert example_of(form, fields, None).answer == "4"
    check_fields(row, mapping, "a.jsonl")
    with pytest.raises(UserError, match=r"--fields answer=truht: a.jsonl has no field truht; did you mean truth\?"):
        check_fields(row, parse_fields("answer=truht"), "a.jsonl")
    for wrong, said in (("quest=a", "did you mean question"), ("question", "known=theirs"), ("text=a,text=b", "twice")):
        with pytest.raises(UserError, match=said):
            parse_fields(wrong)


def test_a_new_form_is_one_function_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    form = Form(("Frage", "Antwort"), lambda row: Example((Message("user", row["Frage"]),), row["Antwort"]))
    monkeypatch.setitem(FORMS, "Frage/Antwort", form)
    assert read({"Frage": "2 + 2?", "Antwort": "4"}) == ("Frage/Antwort", Example((Message("user", "2 + 2?"),), "4"))


def test_the_nearest_form_is_named() -> None:
    said = nearest(["Question", "Answer", "id"])
    assert "question/answer (GSM8K)" in said
    assert "--fields question=Question,answer=Answer" in said
    assert "prompt/completion" in nearest(["prompts", "completions"])


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
leaves |= st.sampled_from(["user", "human", "assistant", "text", "reasoning", "tool_call", "[", "{}"])
names = st.sampled_from(
    [*NAMES, "query", "response", "role", "from", "content", "value", "type", "tool_calls", "ground_truth", "x"]
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=20
)


@given(value=values, form=st.sampled_from(list(FORMS)), rest=st.lists(values, min_size=3, max_size=3))
@settings(max_examples=300)
def test_whatever_a_row_holds_it_is_an_example_or_has_a_reason(value: Any, form: str, rest: list[Any]) -> None:
    needs = [need.split("|")[0] for need in FORMS[form].needs]
    for row in (value, {**dict(zip(needs, rest, strict=False)), "x": value}):
        detail, example = "", None
        try:
            example = read(row)[1]
        except Unusable as why:
            detail = why.detail
        if example is None:
            assert detail.isprintable()
            continue
        assert example.messages
        assert all(isinstance(message.content, str) for message in example.messages)
        assert example.answer is None or example.answer.encode()
        assert example.taught or example.answer is not None
