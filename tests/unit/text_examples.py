"""Recipes of language tasks, and rows for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zerofit.config.schema import Recipe

SHAPE = {"model_type": "qwen3", "hidden_size": 32}
QUESTION, THOUGHT, ANSWER = "What is 2+2?", "Two and two.", "It is \\boxed{4}."


def recipe(task: str = "sft", *, model: dict[str, Any] | None = None, seed: int = 0, **data: Any) -> Recipe:
    """A recipe of that data, with the tokenizer of bytes."""
    fields: dict[str, Any] = {
        "task": task,
        "model": {"kind": "causal_lm", "shape": SHAPE, "tokenizer": "bytes"} | (model or {}),
        "data": {"source": "rows"} | data,
        "train": {"max_steps": 1, "micro_batch": 1, "global_batch": 1, "seed": seed},
        "optimizer": {"lr": 1e-3},
    }
    if task == "grpo":
        fields["grpo"] = {"rewards": ["math_correct"]}
    return Recipe.model_validate(fields)


def write(path: Path, *rows: dict[str, Any]) -> str:
    """JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def thinking(question: str = QUESTION, thought: str = THOUGHT, answer: str = ANSWER) -> dict[str, Any]:
    """A dialogue of two turns, whose second thinks first."""
    said = f"<think>\n{thought}\n</think>\n{answer}"
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": said}]}
