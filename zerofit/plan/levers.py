"""Changes of a recipe that lower its peak of memory, as they are written on the command line."""

from __future__ import annotations

from collections.abc import Iterator

from zerofit.config.strategy import ZERO_STAGE
from zerofit.plan.grpo_memory import rollout_batch
from zerofit.plan.spec import RunSpec

FEWER_LIVE = 100_000_000
"""Elements that ZeRO-3 may have gathered before it prefetches no more."""


def candidates(spec: RunSpec) -> Iterator[str]:
    """`a.b=c` each; some may be refused, or change nothing. But for shorter completions, what is learnt stays."""
    strategy, batches = spec.strategy, spec.batches
    smaller = [micro for micro in range(1, batches.micro) if batches.global_batch % (micro * batches.ranks) == 0]
    half = next((micro for micro in reversed(smaller) if micro <= batches.micro // 2), None)
    if half is not None:
        yield f"train.micro_batch={half}"
    if batches.evaluate_micro > 1:
        yield f"evaluate.micro_batch={batches.evaluate_micro // 2}"
    if strategy.activation_checkpointing != "full":
        yield "strategy.activation_checkpointing=full"
    yield from _offload(spec)
    if ZERO_STAGE.get(strategy.name) == 3:
        yield f"strategy.deepspeed.zero_optimization.stage3_max_live_parameters={FEWER_LIVE}"
    if spec.recipe.grpo is not None:
        batch = rollout_batch(spec)
        if batch > 1:
            yield f"grpo.rollout.batch={batch // 2}"
        if spec.recipe.grpo.sampling.max_tokens > 1:
            yield f"grpo.sampling.max_tokens={spec.recipe.grpo.sampling.max_tokens // 2}"


def _offload(spec: RunSpec) -> Iterator[str]:
    name, offload = spec.strategy.name, spec.strategy.offload
    if name in ZERO_STAGE and offload.optimizer is None:
        yield "strategy.offload.optimizer=cpu"
    if ZERO_STAGE.get(name) == 3 and offload.params is None:
        yield f"strategy={name}+offload_all"
    if name == "fsdp2" and offload.params is None:
        yield "strategy=fsdp2+offload_all"
