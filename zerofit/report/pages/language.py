"""What a run of a language task says of itself on its page: figures of its test, sizes of its generations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from zerofit.plan.spec import RunSpec
from zerofit.report.pages.files import finite
from zerofit.report.pages.parts import Figure
from zerofit.report.pages.units import fixed, number, percent

LATEST = (
    ("reward", "Reward", 1.0, ""),
    ("val_reward", "Validation reward", 1.0, ""),
    ("val_pass@1", "Validation pass@1", 100.0, "%"),
    ("val_loss", "Validation loss", 1.0, "nats"),
    ("val_token_accuracy", "Validation, tokens right", 100.0, "%"),
)
"""Fields of metrics.jsonl that say how a run that was not tested is doing."""


def tested(test: Mapping[str, Any]) -> list[Figure]:
    """Headline figures of result.json's `test`: of sft a loss for each token, of grpo a reward."""
    split = str(test.get("split", "test")).capitalize()
    figures = []
    reward, solved = finite(test.get("reward")), finite(test.get("pass@1"))
    if solved is not None:
        problems = finite(test.get("problems"))
        figures.append(Figure(f"{split} pass@1", fixed(100 * solved), "%", f"of {problems:,.0f}" if problems else ""))
    if reward is not None:
        length, cut = finite(test.get("completion_length")), finite(test.get("clipped"))
        said = [] if length is None else [f"{length:,.0f} tokens each"]
        said += [f"{percent(cut)} cut off"] if cut else []
        figures.append(Figure(f"{split} reward", number(reward, 4), "", ", ".join(said)))
    loss, right = finite(test.get("loss")), finite(test.get("token_accuracy"))
    if right is not None or "perplexity" in test:
        tokens = finite(test.get("tokens"))
        note = f"of {tokens:,.0f} tokens" if tokens else ""
        if right is not None:
            figures.append(Figure(f"{split}, tokens right", fixed(100 * right), "%", note))
        figures.append(Figure(f"{split} loss", number(loss, 4), "nats", "a token"))
        figures.append(Figure(f"{split} perplexity", number(_perplexity(test), 4)))
    return figures


def in_short(test: Mapping[str, Any]) -> str:
    """The figure that counts, in a few words; empty where there is none."""
    top1, right = finite(test.get("top1")), finite(test.get("token_accuracy"))
    reward, solved = finite(test.get("reward")), finite(test.get("pass@1"))
    if top1 is not None:
        return f"{percent(top1, 2)} top-1"
    if solved is not None:
        return f"{percent(solved, 2)} pass@1"
    if reward is not None:
        return f"reward {number(reward, 4)}"
    return "" if right is None else f"{percent(right, 2)} of tokens"


def generations(spec: RunSpec) -> list[tuple[str, str]]:
    """Rows of the plan that other tasks do not have."""
    sizes, grpo = spec.grpo, spec.recipe.grpo
    if sizes is None or grpo is None:
        return []
    rewards = ", ".join(f"{one.weight:g} × {one.name}" for one in grpo.rewards)
    reference = f"{grpo.beta:g} × KL to the reference" if grpo.beta else "no reference"
    sampling = grpo.sampling
    drawn = f"up to {sampling.max_tokens:,} tokens at temperature {sampling.temperature:g}"
    cut = [f"top-p {sampling.top_p:g}"] if sampling.top_p < 1 else []
    cut += [f"top-k {sampling.top_k}"] if sampling.top_k else []
    times, asked = sizes.generations_per_step, sizes.evaluate_prompts
    each = "one for each step" if times == 1 else f"{times} for each step"
    return [
        (
            "generation",
            f"{sizes.completions:,} completions = {sizes.prompts:,} prompts × {sizes.num_generations}, {each}",
        ),
        ("completions", ", ".join([drawn, *cut])),
        ("rewards", rewards),
        ("loss", f"{grpo.loss}, {reference}"),
        ("evaluation at once", f"{asked:,} prompt{'s' if asked > 1 else ''} × {sizes.num_generations_eval}"),
    ]


def _perplexity(test: Mapping[str, Any]) -> float | None:
    given, loss = finite(test.get("perplexity")), finite(test.get("loss"))
    if given is not None or loss is None:
        return given
    return math.exp(loss) if loss < 700 else None
