"""Small recipes of language tasks, and what their text holds."""

from __future__ import annotations

from typing import Any

from plan_examples import TEXT_FACTS

from zerofit.config.schema import Recipe
from zerofit.plan.spec import Hardware

PROMPTS = TEXT_FACTS.model_copy(
    update={
        "train": 7473,
        "rows": 7473,
        "test": 1319,
        "validation_from": "train",
        "targets": 0,
        "longest": 512,
        "vocabulary": 151_665,
        "pad": 151_643,
        "stops": (151_643,),
    }
)
TURING = Hardware(device="cuda", count=2, name="RTX 2080 Ti", memory_gib=11.0, capability=(7, 5), cpus=16)
HOPPER = Hardware(device="cuda", count=8, name="H200", memory_gib=139.8, capability=(9, 0), cpus=128)


def grpo(**sections: Any) -> Recipe:
    """4-bit 7 B on prompts, with fields of sections replaced; a string or null replaces the section."""
    fields: dict[str, Any] = {
        "name": "reason",
        "task": "grpo",
        "model": {
            "kind": "causal_lm",
            "shape": "deepseek-r1-distill-qwen-7b",
            "tokenizer": "bytes",
            "lora": {"rank": 16},
            "quantize": "nf4",
        },
        "data": {"source": "rows", "path": "gsm8k.jsonl"},
        "train": {"epochs": 1, "micro_batch": 1, "global_batch": 64},
        "optimizer": {"lr": 1e-5},
        "strategy": {"name": "ddp", "activation_checkpointing": "full"},
        "grpo": {"rewards": ["math_correct"], "num_generations": 4, "sampling": {"max_tokens": 2048}},
    }
    for name, section in sections.items():
        fields[name] = fields.get(name, {}) | section if isinstance(section, dict) else section
    return Recipe.model_validate(fields)


def sft(**sections: Any) -> Recipe:
    """The same model, fine-tuned on text."""
    return grpo(task="sft", grpo=None, **sections)
