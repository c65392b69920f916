"""The sizes of a GRPO run against TRL's own: its configuration takes them, and its sampler goes as far."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from language_examples import PROMPTS, grpo

from zerofit.plan.batch import make_batches
from zerofit.plan.grpo import make_sizes

CASES = [(1, 2, 32, 4, None), (1, 2, 32, 4, 8), (2, 1, 6, 4, None), (3, 2, 4, 12, 2), (4, 4, 2, 16, 1), (5, 1, 8, 2, 4)]


@pytest.mark.thorough  # importing TRL takes most of ten seconds
@pytest.mark.filterwarnings("ignore:.*checkpointing:FutureWarning")
@pytest.mark.parametrize("evaluated", [None, 2])
@pytest.mark.parametrize(("micro", "ranks", "accumulation", "group", "steps"), CASES)
def test_trl_makes_the_same_of_them(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    micro: int,
    ranks: int,
    accumulation: int,
    group: int,
    steps: int | None,
    evaluated: int | None,
) -> None:
    from trl import GRPOConfig
    from trl.trainer.utils import RepeatSampler

    recipe = grpo(
        train={"micro_batch": micro, "global_batch": micro * ranks * accumulation},
        evaluate={"micro_batch": 2 * micro},
        grpo={"num_generations": group, "steps_per_generation": steps, "num_generations_eval": evaluated},
    )
    batches = make_batches(recipe, PROMPTS, ranks)
    sizes = make_sizes(recipe, PROMPTS, batches)
    assert sizes is not None

    def config(**changes: Any) -> GRPOConfig:
        said = {
            "output_dir": str(tmp_path),
            "use_cpu": True,
            "report_to": [],
            "eval_strategy": "steps",
            "per_device_train_batch_size": batches.micro,
            "per_device_eval_batch_size": batches.evaluate_micro,
            "gradient_accumulation_steps": batches.accumulation,
            "num_generations": sizes.num_generations,
            "num_generations_eval": sizes.num_generations_eval,
            "steps_per_generation": sizes.steps_per_generation,
        }
        return GRPOConfig(**{**said, **changes})

    monkeypatch.setattr(GRPOConfig, "world_size", property(lambda self: ranks))
    made = config()
    assert made.generation_batch_size == sizes.completions
    assert made.gradient_accumulation_steps % (made.steps_per_generation * sizes.num_iterations) == 0
    order = RepeatSampler(
        range(PROMPTS.train), sizes.num_generations, sizes.prompts, sizes.num_iterations * sizes.steps_per_generation
    )
    forwards = len(order) // (batches.micro * sizes.steps_per_generation * ranks)  # a batch is a whole generation
    assert forwards // batches.accumulation == batches.steps_per_epoch
    with pytest.raises(ValueError, match="must be divisible by num_generations"):
        config(num_generations=sizes.completions + 1)
