"""What is said of a GRPO run before it starts: what sets the peak of a card's memory, and what would lower it."""

from __future__ import annotations

from typing import Literal

from zerofit.plan.decoder import decoder_of
from zerofit.plan.deepspeed import make_deepspeed
from zerofit.plan.grpo_memory import Stage, gathered, rollout_batch, stages
from zerofit.plan.hardware import GIB
from zerofit.plan.shapes import known_fields
from zerofit.plan.spec import RunSpec
from zerofit.plan.states import NF4, Engine
from zerofit.plan.strategy import Chosen

OUTSIDE = 1.5
"""GiB of a card that no tensor gets: CUDA's context, NCCL's buffers, kernels' workspace."""
SLACK = 1.05
"""What the allocator holds beyond that, at least."""


def advice(spec: RunSpec) -> list[str]:
    """Lines for the terminal; none for another task, on a CPU, and where the model's sizes are not at hand."""
    if spec.grpo is None or spec.hardware.device != "cuda":
        return []
    every = stages(spec)
    if every is None:
        what = spec.recipe.model.pretrained or "this shape"
        return [f"peak memory: not predicted for {what}, whose sizes are not at hand (or which has experts)"]
    lines = [peak_line(spec, every)]
    card, needed = spec.hardware.memory_gib, _needed(highest(every).total)
    short = f"that may not fit: with {OUTSIDE:g} GiB of CUDA's own it needs about {needed:.1f} of {card:g} GiB"
    if spec.quantised and spec.strategy.name in ("zero3", "zeropp", "fsdp2"):
        lines += [*([short] if needed > card else []), _whole_base(spec, every)]
    elif needed > card:
        lines.append(f"{short}; {_remedy(spec, every)}")
    return lines


def peak_line(spec: RunSpec, every: tuple[Stage, ...]) -> str:
    """`peak: backward, 9.8 GiB of 11 a card: weights 5.5, activations 3.4, ...; rollout 7.0 (KV cache 0.9)`."""
    peak = highest(every)
    parts = sorted(peak.parts.items(), key=lambda part: -part[1])
    told = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts if size >= 0.05 * GIB)
    others = [f"{one.name} {one.total / GIB:.1f}{_cache(one)}" for one in every if one is not peak]
    whole = f"peak: {peak.name}, {peak.total / GIB:.1f} GiB of {spec.hardware.memory_gib:g} a card: {told}"
    return "; ".join([whole, *others])


def highest(every: tuple[Stage, ...]) -> Stage:
    """The one that sets the peak."""
    return max(every, key=lambda one: one.total)


def under(spec: RunSpec, name: Literal["ddp", "zero2"]) -> RunSpec:
    """The same run under another strategy, without offload."""
    changes = {"name": name, "deepspeed": None, "offload": type(spec.strategy.offload)()}
    strategy = spec.strategy.model_copy(update=changes)
    settings = make_deepspeed(spec.recipe, Chosen(strategy), spec.batches, spec.precision, spec.hardware)
    return spec.model_copy(update={"strategy": strategy, "deepspeed": settings})


def largest_rollout(spec: RunSpec, limit: int) -> int | None:
    """The most completions at once with which a rollout takes at most `limit` bytes; None: not even one does."""
    fitting = None
    for batch in range(1, rollout_batch(spec) + 1):
        rollout = (stages(_with_rollout(spec, batch)) or ())[0]
        if rollout.total > limit:
            break
        fitting = batch
    return fitting


def _whole_base(spec: RunSpec, every: tuple[Stage, ...]) -> str:
    name, sizes = spec.strategy.name, decoder_of(known_fields(spec.recipe.model))
    assert sizes is not None
    other = stages(under(spec, "zero2" if name == "zeropp" else "ddp"))
    assert other is not None
    whole = gathered(Engine(spec, sizes)) / GIB
    return (
        f"use strategy=ddp or zero2: a base in 4 bits is small (blocks {sizes.matrices * NF4 / GIB:.1f} GiB whole), "
        f"while {name} gathers it for every block of every pass and once more, all {whole:.1f} GiB, for each rollout; "
        f"the peak would be {highest(other).total / GIB:.1f} GiB instead of {highest(every).total / GIB:.1f}"
    )


def _remedy(spec: RunSpec, every: tuple[Stage, ...]) -> str:
    """What lowers the peak most cheaply."""
    recipe, peak = spec.recipe, highest(every)
    room = int((spec.hardware.memory_gib - OUTSIDE) / SLACK * GIB)
    states = sum(peak.parts[name] for name in ("weights", "gradients", "optimizer", "reference"))
    if states > room:
        return _smaller_states(spec)
    assert recipe.grpo is not None
    if peak.name == "rollout":
        if "vLLM" in peak.parts:
            return "lower grpo.rollout.vllm_memory"
        batch = largest_rollout(spec, room)
        if batch is not None:
            return f"use grpo.rollout.batch={batch}: the KV cache sets the peak"
        return "lower grpo.sampling.max_tokens: not even one completion at a time fits"
    if spec.strategy.activation_checkpointing != "full":
        return "use strategy.activation_checkpointing=full"
    if spec.batches.micro > 1:
        return f"use train.micro_batch={spec.batches.micro // 2}"
    if recipe.model.lora is None:
        return _smaller_states(spec)
    return "lower grpo.sampling.max_tokens, or use data.max_length to leave long prompts out"


def _smaller_states(spec: RunSpec) -> str:
    recipe = spec.recipe
    if recipe.model.lora is None:
        sharded = "" if spec.strategy.name in ("zero3", "zeropp", "fsdp2") else ", or strategy=zero3 on more ranks"
        return f"use model.lora, which has hardly any optimizer state{sharded}"
    if not recipe.quantised:
        return "use model.quantize=nf4, which holds the base in 4 bits"
    return "use a smaller model"


def _with_rollout(spec: RunSpec, batch: int) -> RunSpec:
    assert spec.recipe.grpo is not None
    rollout = spec.recipe.grpo.rollout.model_copy(update={"batch": batch})
    grpo = spec.recipe.grpo.model_copy(update={"rollout": rollout})
    return spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"grpo": grpo})})


def _cache(stage: Stage) -> str:
    return f" (KV cache {stage.parts['KV cache'] / GIB:.1f})" if "KV cache" in stage.parts else ""


def _needed(peak: int) -> float:
    """GiB of a card."""
    return peak * SLACK / GIB + OUTSIDE
