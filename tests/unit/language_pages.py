"""What runs of language tasks and an evaluation leave, made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


def write_metrics(directory: Path, lines: list[dict[str, Any]]) -> None:
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def grpo_lines(steps: int = 60) -> list[dict[str, Any]]:
    """metrics.jsonl of a run whose reward rises."""
    every: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        share = step / steps
        line = {
            "step": step,
            "epoch": step / 100,
            "loss": 0.01 * share,
            "lr": 1e-5,
            "samples_s": 3.1,
            "tokens_s": 900.0,
            "reward": share,
            "reward_std": 0.5 - 0.3 * share,
            "reward_alike": 0.25,
            "reward/math_correct": 0.8 * share,
            "reward/think_format": 0.2,
            "kl": 0.02 * share,
            "entropy": 0.7 - 0.4 * share,
            "completion_length": 300 - 100 * share,
            "completion_length_max": 512,
            "clipped": 0.1,
            "clip_ratio": 0.001,
            "generate_s": 11.0,
        }
        every.append(line)
        if step % 20 == 0:
            validation = {"val_reward": 0.9 * share, "val_pass@1": 0.7 * share, "val_reward/math_correct": 0.7 * share}
            validation |= {"val_completion_length": 212.0, "val_clipped": 0.05, "val_reward/think_format": 0.9}
            every.append({"step": step, "epoch": step / 100, **validation})
    return every


def sft_lines() -> list[dict[str, Any]]:
    """metrics.jsonl of fine-tuning on text."""
    every: list[dict[str, Any]] = []
    for step in range(1, 9):
        every.append({"step": step, "loss": 3 / step, "token_accuracy": 0.1 * step, "entropy": 2.0, "tokens_s": 5e3})
    every.append({"step": 8, "val_loss": 0.5, "val_token_accuracy": 0.77, "val_perplexity": 1.65})
    return every


def write_completions(directory: Path, steps: int = 3, each: int = 10, lost: float = 1.0) -> None:
    """A completions.parquet; the first completion of each step has the reward 1, the others up to `lost` less."""
    directory.mkdir()
    for step in range(1, steps + 1):
        rows = [
            {
                "step": step,
                "prompt": f"<|im_start|>user\nWhat is {step} + {number}? {EVIL}<|im_end|>\n<|im_start|>assistant\n",
                "completion": f"Let me think about {step}.{number}. {EVIL}</think>\nThe answer is {step + number}.",
                "answer": str(step + number),
                "reward": 1 - lost * number / each,
                "reward/math_correct": float(number < 5),
                "reward/think_format": 0.1,
                "advantage": 0.5 - number / each,
                "tokens": 40 + number,
                "stopped": number < 8,
            }
            for number in range(each)
        ]
        pq.write_table(pa.Table.from_pylist(rows), directory / f"step-{step:06d}.parquet")


def evaluation(problems: int = 40) -> dict[str, Any]:
    """evaluation.json, compared with another."""
    return {
        "format": 1,
        "model": "runs/reason",
        "data": "gsm8k.jsonl",
        "k": [1, 8],
        "samples": 8,
        "sampling": {"temperature": 0.6, "top_p": 0.95, "top_k": 0, "max_tokens": 2048},
        "seed": 3,
        "figures": {
            "problems": problems,
            "samples": 8 * problems,
            "pass@1": {"value": 0.614, "low": 0.55, "high": 0.671},
            "pass@8": {"value": 0.883, "low": 0.84, "high": 0.92},
            "maj@8": {"value": 0.75, "low": 0.69, "high": 0.8},
            "answered": 0.97,
            "truncated": 0.02,
            "tokens": {"mean": 612.5, "max": 2048},
        },
        "majority_baseline": 0.031,
        "compared_with": {
            "evaluation": "runs/reason/evaluations/1",
            "model": "base",
            "pass@1": {"value": 0.5, "low": 0.45, "high": 0.55},
            "first_only": 31,
            "second_only": 9,
            "p_value": 0.00071,
            "difference": {"value": 0.114, "low": 0.05, "high": 0.18},
        },
        "wall_s": 384.2,
        "tokens_s": 1530.0,
    }


def write_evaluation(directory: Path, problems: int = 40) -> Path:
    """That, and rollouts.parquet of a sample of each problem, every third of them right."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "evaluation.json").write_text(json.dumps(evaluation(problems)))
    rows = [
        {
            "problem": f"gsm8k.jsonl:{number + 1}",
            "prompt": f"Question {number}{EVIL}",
            "completion": f"<think>hm, {number}</think>It is {number}.",
            "gold": str(number - number % 3),
            "answer": str(number) if number % 5 else None,
            "correct": number % 3 == 0,
            "tokens": 50 + number,
            "stopped": number % 7 != 0,
        }
        for number in range(problems)
    ]
    pq.write_table(pa.Table.from_pylist(rows), directory / "rollouts.parquet")
    return directory
