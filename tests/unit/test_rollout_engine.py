from __future__ import annotations

from typing import Any

import pytest
from plan_examples import CPU, gpus

from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.plan import rollout_engine
from zerofit.plan.rollout_engine import resolve_engine
from zerofit.plan.spec import Hardware


def recipe(engine: str, temperature: float = 1.0, **model: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "task": "grpo",
            "model": {"kind": "causal_lm", "shape": "qwen3-8b", "tokenizer": "bytes", **model},
            "data": {"source": "arithmetic"},
            "train": {"max_steps": 1, "micro_batch": 8, "global_batch": 8},
            "optimizer": {"lr": 1e-5},
            "grpo": {
                "rewards": ["math_correct"],
                "rollout": {"engine": engine},
                "sampling": {"temperature": temperature},
            },
        }
    )


LORA = {"lora": {"rank": 4}}


@pytest.mark.parametrize(
    ("engine", "model", "hardware", "installed", "found"),
    [
        ("auto", {}, gpus(2), True, "vllm"),
        ("auto", {}, gpus(2), False, "graph"),
        ("auto", LORA, gpus(2), True, "graph"),
        ("auto", {}, CPU, True, "graph"),
        ("hf", {}, gpus(2), True, "hf"),
        ("vllm", {}, gpus(2), True, "vllm"),
        ("vllm", LORA, gpus(2), True, "takes no adapters (model.lora) here; use graph"),
        ("vllm", {}, CPU, True, "vllm"),
        ("auto", {"temperature": 0}, gpus(2), True, "graph"),
        ("vllm", {"temperature": 0}, gpus(2), True, "vllm takes no grpo.sampling.temperature of 0 here"),
        ("vllm", {}, gpus(2), False, "vllm is not installed: pip install 'zerofit[vllm]', or use graph"),
    ],
)
def test_what_completions_come_from(
    engine: str,
    model: dict[str, Any],
    hardware: Hardware,
    installed: bool,
    found: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rollout_engine, "vllm_is_installed", lambda: installed)
    if " " in found:
        with pytest.raises(UserError) as refused:
            resolve_engine(recipe(engine, **model), hardware)
        assert found in str(refused.value)
    else:
        assert resolve_engine(recipe(engine, **model), hardware) == found
