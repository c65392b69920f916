"""What the plan says of a GRPO step's memory, for docs/grpo.md: `python bench/grpo_memory.py`. Needs no GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zerofit.config.schema import Recipe
from zerofit.plan.build import make_plan
from zerofit.plan.grpo_advice import highest
from zerofit.plan.grpo_memory import stages
from zerofit.plan.hardware import GIB
from zerofit.plan.spec import Hardware, TextFacts

LONGEST = 512
"""Tokens of the longest prompt."""
QLORA = {"lora": {"rank": 16}, "quantize": "nf4"}
TURING = ("11 GiB", 2, Hardware(device="cuda", count=2, name="a", memory_gib=11, capability=(7, 5), cpus=16))
HOPPER = ("140 GiB", 8, Hardware(device="cuda", count=8, name="b", memory_gib=139.8, capability=(9, 0), cpus=64))
ROWS: tuple[tuple[tuple[str, int, Hardware], str, dict[str, Any], dict[str, Any]], ...] = (
    (TURING, "ddp", QLORA, {}),
    (TURING, "ddp", QLORA, {"batch": 8}),
    (TURING, "zero2", QLORA, {"batch": 8}),
    (TURING, "zero3", QLORA, {"batch": 8}),
    (TURING, "fsdp2", QLORA, {"batch": 8}),
    (HOPPER, "zero2", {}, {}),
    (HOPPER, "zero3", {}, {}),
    (HOPPER, "fsdp2", {}, {}),
    (HOPPER, "zero3", {}, {"beta": 0.001}),
)


def main() -> None:
    """Print the table."""
    print("| card | ranks | model | strategy | at once | rollout (KV cache) | log-probs | backward | update | peak |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for (card, ranks, hardware), strategy, model, other in ROWS:
        spec = make_plan(
            recipe(strategy, model, ranks, **other), facts=FACTS, hardware=hardware, ranks=ranks, run_dir=Path("runs/a")
        )
        every = stages(spec)
        assert every is not None
        assert spec.grpo is not None
        total = {stage.name: f"{stage.total / GIB:.1f}" for stage in every}
        cache = every[0].parts["KV cache"] / GIB
        what = "4-bit, LoRA" if model else "all weights" + (", KL" if other.get("beta") else "")
        batch = other.get("batch", spec.grpo.completions // ranks)
        cells = [card, str(ranks), what, strategy, str(batch), f"{total['rollout']} ({cache:.1f})"]
        cells += [total.get(name, "") for name in ("log-probs", "backward", "update")]
        print(f"| {' | '.join([*cells, highest(every).name])} |")


def recipe(strategy: str, model: dict[str, Any], ranks: int, batch: int | None = None, beta: float = 0.0) -> Recipe:
    """7 B parameters, 32 completions of up to 2,048 tokens a rank."""
    body = {
        "task": "grpo",
        "model": {"kind": "causal_lm", "shape": "deepseek-r1-distill-qwen-7b", "tokenizer": "bytes", **model},
        "data": {"source": "arithmetic"},
        "train": {"epochs": 1, "micro_batch": 1, "global_batch": 32 * ranks},
        "optimizer": {"lr": 1e-6},
        "strategy": {"name": strategy, "activation_checkpointing": "full"},
        "grpo": {
            "rewards": ["math_correct"],
            "num_generations": 8,
            "beta": beta,
            "sampling": {"max_tokens": 2048},
            "rollout": {"batch": batch},
        },
    }
    return Recipe.model_validate(body)


FACTS = TextFacts(
    train=8000,
    validation=0,
    test=500,
    validation_from="test",
    rows=8000,
    tokens=800_000,
    targets=0,
    longest=LONGEST,
    left_out=0,
    vocabulary=151_665,
    pad=0,
    stops=(0,),
    samples=Path("nowhere"),
)

if __name__ == "__main__":
    main()
