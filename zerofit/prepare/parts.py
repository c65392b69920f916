"""One turn of a dialogue as text: typed parts, reasoning, tool calls, and the many names of its role."""

from __future__ import annotations

import json
from typing import Any

from zerofit.prepare.rows import Message, Role, Unusable

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "ipython": "tool",
}
CALLS = ("function_call", "tool_call")
REASONING = ("reasoning", "thinking", "reasoning_content")
TEXT = ("text", "input_text", "output_text")
VALUES = ("value", "text", "content", *REASONING)
"""Where a typed part keeps what it says."""


def turns(value: Any) -> list[Message]:
    """A list of {role, content} or {from, value}; in a table of text, as JSON."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Unusable("invalid", "its turns are no JSON") from None
    if not isinstance(value, list) or not value:
        raise Unusable("empty" if value == [] else "invalid", f"a list of turns is expected, not {_kind(value)}")
    return [turn(item) for item in value]


def turn(item: Any) -> Message:
    """One turn."""
    if not isinstance(item, dict):
        raise Unusable("invalid", f"a turn is {_kind(item)}, not an object")
    name = item.get("role", item.get("from"))
    role = ROLES.get(name.lower()) if isinstance(name, str) else None
    if role is None:
        raise Unusable("invalid", f"a turn's role is {_short(name)}, none of {', '.join(ROLES)}")
    content = item.get("content", item.get("value"))
    said = _said(content)
    if isinstance(name, str) and name.lower() in CALLS:
        said = [_call(content)]
    for key in REASONING:
        if isinstance(item.get(key), str) and item[key].strip() and not "".join(said).startswith("<think>"):
            said.insert(0, _thought(item[key]))
    calls = item.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        said.append(_call(call.get("function", call) if isinstance(call, dict) else call))
    return Message(role, _joined(said))


def _said(content: Any) -> list[str]:
    if content is None:
        return []
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise Unusable("invalid", f"a turn's content is {_kind(content)}, neither text nor a list of parts")
    return [_part(part) for part in content]


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or kind not in (*TEXT, *REASONING, *CALLS):
        raise Unusable("invalid", f"a part of type {_short(kind)} is no text")
    value = next((part[key] for key in VALUES if part.get(key) is not None), None)
    if kind in CALLS:
        return _call(value if value is not None else {key: part[key] for key in part if key != "type"})
    if not isinstance(value, str):
        raise Unusable("invalid", f"a part of type {kind} holds {_kind(value)}, not text")
    return _thought(value) if kind in REASONING else value


def _thought(text: str) -> str:
    return f"<think>\n{text.strip()}\n</think>\n"


def _call(value: Any) -> str:
    """A call as Hermes and Qwen write it."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return f"<tool_call>\n{text.strip()}\n</tool_call>"


def _joined(said: list[str]) -> str:
    return "\n".join(part for part in said if part.strip())


def _kind(value: Any) -> str:
    names = {type(None): "null", dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return names.get(type(value), "a number")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else text[:37] + "..."
