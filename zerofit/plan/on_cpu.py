"""A run as this machine's CPU can hold it, to write its checkpoints, not to train: their files are the same."""

from __future__ import annotations

from zerofit.config.strategy import ZERO_STAGE
from zerofit.plan.deepspeed import make_deepspeed
from zerofit.plan.spec import Hardware, RunSpec
from zerofit.plan.strategy import Chosen


def on_cpu(spec: RunSpec, hardware: Hardware) -> RunSpec:
    """`spec` on `hardware`, a CPU: without what needs GPUs or a compiler, and without trackers.

    Weights keep their dtype. Engines other than DeepSpeed hold them in float32 whatever the precision: fp16, which
    accelerate refuses on a CPU, is left out there.
    """
    assert hardware.device == "cpu", hardware
    recipe = spec.recipe
    strategy = spec.strategy.model_copy(update={"compile": False})
    zero = strategy.name in ZERO_STAGE
    precision = "fp32" if spec.precision == "fp16" and not zero else spec.precision
    changes = {
        "model": recipe.model.model_copy(update={"attention": "auto"}),
        "track": recipe.track.model_copy(update={"to": ()}),
    }
    config = make_deepspeed(recipe, Chosen(strategy), spec.batches, precision, hardware)
    return spec.model_copy(
        update={
            "recipe": recipe.model_copy(update=changes),
            "strategy": strategy,
            "hardware": hardware,
            "precision": precision,
            "deepspeed": config,
        }
    )
