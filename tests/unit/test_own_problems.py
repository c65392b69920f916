"""The test rows that a run has of its own, and how much room completions need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from language_examples import PROMPTS, grpo, sft
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.data.text import describe
from zerofit.evaluate.problems import own_problems
from zerofit.evaluate.room import bytes_per_token
from zerofit.plan.hardware import cpu
from zerofit.plan.spec import Batches, RunSpec, TextFacts
from zerofit.prepare.rows import Message

BATCHES = Batches(
    ranks=1,
    micro=1,
    accumulation=1,
    global_batch=1,
    evaluate_micro=1,
    steps_per_epoch=1,
    total_steps=1,
    warmup_steps=0,
    checkpoint_steps=None,
    evaluate_steps=None,
)


def run(recipe: Recipe, facts: TextFacts = PROMPTS) -> RunSpec:
    return RunSpec(
        recipe=recipe,
        run_dir=Path("runs/test"),
        data=facts,
        hardware=cpu(),
        batches=BATCHES,
        lr=1e-3,
        precision="fp32",
        shape=None,
        deepspeed=None,
        versions={},
        git=None,
    )


def rows(path: Path, count: int, first: int = 0) -> str:
    lines = [json.dumps({"question": f"{n} + 0?", "answer": f"So.\n#### {n}"}) for n in range(first, first + count)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_the_rows_to_test_on_else_those_to_validate_on(tmp_path: Path) -> None:
    path = rows(tmp_path / "train.jsonl", 9)
    validation, test = rows(tmp_path / "validation.jsonl", 3, 20), rows(tmp_path / "test.jsonl", 2, 40)
    data = {"source": "rows", "path": path, "validation_path": validation, "system": "Add."}
    found, words = own_problems(run(sft(data={**data, "test_path": test})), None, None)
    assert [(one.name, one.gold) for one in found] == [("test.jsonl:1", "40"), ("test.jsonl:2", "41")]
    assert words == test
    assert found[0].example.prompt == (Message("system", "Add."), Message("user", "40 + 0?"))
    found, _ = own_problems(run(sft(data=data)), "Sum.", 2)
    assert [one.gold for one in found] == ["20", "21"]
    assert found[0].example.prompt[0] == Message("system", "Sum.")


def test_embedded_problems_are_those_that_training_leaves_out() -> None:
    data = {"source": "arithmetic", "path": None, "problems": 50, "test_problems": 7}
    found, _ = own_problems(run(sft(data=data)), None, None)
    assert len(found) == 7
    assert found[0].name == "arithmetic test:1"
    assert int(found[0].gold) > 0


def test_rows_that_grpo_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROFIT_CACHE", str(tmp_path / "cache"))
    data: dict[str, Any] = {"source": "rows", "path": rows(tmp_path / "train.jsonl", 40), "validation": 0.25}
    recipe = grpo(data={**data, "max_length": 256})
    found, words = own_problems(run(recipe, describe(recipe)), None, None)
    assert words == "rows held out of training"
    assert len(found) == 10
    assert all(one.example.prompt[-1].content.startswith(f"{one.gold} +") for one in found)
    with pytest.raises(UserError, match="has no test rows of its own: name problems with --data"):
        own_problems(run(sft(data=data)), None, None)
    with pytest.raises(UserError, match="documents, which ask nothing"):
        own_problems(run(sft(data={**data, "source": "documents"})), None, None)


def test_room_for_keys_and_values() -> None:
    small = {"vocab_size": 8, "hidden_size": 32, "intermediate_size": 8, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    assert bytes_per_token(Qwen3ForCausalLM(Qwen3Config(**small, **heads, head_dim=16))) == 2 * 3 * 2 * 16 * 4
    assert bytes_per_token(LlamaForCausalLM(LlamaConfig(**small, **heads)).bfloat16()) == 2 * 3 * 2 * 8 * 2
