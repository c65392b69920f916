"""The peak of a run's memory by formulas alone, in a millisecond and without torch: within 15 %.

States by plan/states.py, what blocks keep by plan/activations.py, heads as the trainers have them: TRL's fused one in
tiles for sft, and for cad where the vocabulary is wider than one. The task grpo has plan/grpo_memory.py.
"""

from __future__ import annotations

from math import prod

from zerofit.plan.activations import SCORE, flows, kept_by_blocks, passing, returning, written_out
from zerofit.plan.anatomy import Anatomy, anatomy_of
from zerofit.plan.blocks import fourier_width
from zerofit.plan.grpo_memory import COLUMNS, TOKENS, stages
from zerofit.plan.hardware import GIB
from zerofit.plan.host_memory import host_gib
from zerofit.plan.prediction import Memory, Unpredicted
from zerofit.plan.spec import CadFacts, RunSpec
from zerofit.plan.states import FLOAT, NF4, Engine, buckets, states, update

ERROR = 0.15
"""Half-width of the band that measurements lie in, as a fraction."""
Split = dict[str, int]
"""Bytes by kind, as in prediction.Memory."""
KINDS = {
    "weights": "weights",
    "reference": "weights",
    "low-precision copies": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "gathered weights": "gathered",
    "buckets": "buckets",
    "activations": "activations",
    "logits": "logits",
    "KV cache": "kv_cache",
    "vLLM": "other",
    "optimizer's step": "other",
}
"""Kind of each part of a GRPO step."""
PHASES = {"rollout": "rollout", "log-probs": "forward", "backward": "backward", "update": "step"}
"""Phase that each of its stages is."""


def estimate_memory(spec: RunSpec) -> Memory:
    """The peak on the rank that needs most. Raises Unpredicted where the model's sizes are not at hand."""
    if spec.hardware.device != "cuda":
        raise Unpredicted("memory is predicted for GPUs alone")
    anatomy = anatomy_of(spec)
    engine = Engine(spec, anatomy, anatomy.trains)
    phases = _of_rewards(spec) if spec.grpo is not None else _of_training(engine)
    peak = max(phases, key=lambda phase: sum(phases[phase].values()))
    return Memory(
        peak_gib=_gib(sum(phases[peak].values())),
        phase=peak,
        split={kind: _gib(size) for kind, size in phases[peak].items() if size},
        phases={phase: _gib(sum(split.values())) for phase, split in phases.items()},
        host_gib=host_gib(engine),
        exact=False,
        not_modelled=_left_out(spec),
    )


def largest_layer(spec: RunSpec) -> int | None:
    """Bytes of the weights of a block, or of the head, as they are computed with: what any strategy has on a card.

    A base in 4 bits is counted as that. None where the model's sizes are not at hand.
    """
    try:
        anatomy = anatomy_of(spec)
    except Unpredicted:
        return None
    engine = Engine(spec, anatomy)
    size = NF4 if engine.quantised else engine.compute
    blocks = (size * part.stack.block.elements for part in anatomy.parts)
    return round(max(engine.compute * prod(anatomy.head), *blocks))


def _of_rewards(spec: RunSpec) -> dict[str, Split]:
    every = stages(spec)
    if every is None:
        raise Unpredicted("the model's sizes are not at hand, or it has experts")
    found: dict[str, Split] = {}
    for stage in every:
        split: Split = {}
        for part, size in stage.parts.items():
            split[KINDS[part]] = split.get(KINDS[part], 0) + size
        found[PHASES[stage.name]] = split
    return found


def _of_training(engine: Engine[Anatomy]) -> dict[str, Split]:
    probe = engine.spec.recipe.probe
    if probe is not None and probe.features == "cached":
        return {"evaluation": _evaluation(engine, {"weights": engine.weights(engine.compute)})}
    found = states(engine)
    resident: Split = {"weights": found.weights, "optimizer": found.optimizer}
    if engine.stage == 3 or engine.name == "ddp":
        resident["buckets"] = buckets(engine)
    return {
        "init": _init(engine, resident),
        "forward": _forward(engine, resident, found.gradients),
        "backward": _backward(engine, resident, found.gradients),
        "step": resident | {"gradients": found.gradients, "other": update(engine)},
        "evaluation": _evaluation(engine, resident),
    }


def _init(engine: Engine[Anatomy], resident: Split) -> Split:
    """DDP makes buckets anew as the second step begins: gradients that are added up keep the first ones so long.

    DeepSpeed copies trained weights into one flat tensor, where the card has room for that; else by way of the host.

    It then makes float32 masters of a rank's share (stage_1_and_2.py:436-465).
    """
    if engine.name == "ddp" and engine.spec.batches.accumulation > 1:
        return resident | {"buckets": 2 * resident["buckets"]}
    offload = engine.spec.strategy.offload
    weights = 0 if offload.params else engine.weights(engine.held) // (engine.ranks if engine.sharded else 1)
    if engine.stage not in (1, 2):
        return {"weights": weights}
    masters = 0 if offload.optimizer else FLOAT * engine.trained // engine.ranks
    flat = engine.compute * engine.trained
    room = weights + flat <= engine.spec.hardware.memory_gib * GIB
    return {"weights": weights, "optimizer": masters, "other": flat if room else 0}


def _forward(engine: Engine[Anatomy], resident: Split, gradients: int) -> Split:
    kept, _, _ = _activations(engine)
    return resident | {
        "gradients": gradients if _resident_gradients(engine) else 0,
        "weights": resident["weights"] + _copies(engine, backward=False),
        "gathered": _gathered(engine),
        "activations": kept + _inputs(engine),
        "logits": _logits(engine, backward=False),
    }


def _backward(engine: Engine[Anatomy], resident: Split, gradients: int) -> Split:
    """It begins with the head; then all activations are there, and a block's gradients, or what it computes again.

    At its end all gradients are there, also those that no engine makes before. The fullest of these moments.
    """
    kept, again, gradient = _activations(engine)
    head, inside, inputs = _logits(engine, backward=True), again + gradient, _inputs(engine)
    begins = {"activations": kept + inputs, "logits": head}
    if inside > head:
        begins = {"activations": kept + inputs + inside, "logits": 0}
    split = resident | {
        "weights": resident["weights"] + _copies(engine, backward=True),
        "gathered": _gathered(engine),
        "buckets": resident.get("buckets", 0) or _reducing(engine),
    }
    if _resident_gradients(engine):
        return split | begins | {"gradients": gradients}
    ends = {"activations": inside, "gradients": gradients}
    return split | (begins if sum(begins.values()) > sum(ends.values()) else ends)


def _evaluation(engine: Engine[Anatomy], resident: Split) -> Split:
    spec, micro = engine.spec, engine.spec.batches.evaluate_micro
    tokens = max(passing(engine, part.stack.block) * part.tokens for part in engine.sizes.parts)
    return resident | {
        "weights": resident["weights"] + _copies(engine, backward=False, wanted=False),
        "gathered": _gathered(engine),
        "activations": micro * tokens,
        "logits": _logits(engine, backward=False) * micro // spec.batches.micro,
    }


def _resident_gradients(engine: Engine[Anatomy]) -> bool:
    """Whether they are there from the first micro-batch's backward on, and not made one by one while it goes on.

    ZeRO-2 makes its partition's at once (stage_1_and_2.py:2192), ZeRO-3 for good.
    """
    return engine.stage >= 2 or engine.spec.batches.accumulation > 1


def _activations(engine: Engine[Anatomy]) -> tuple[int, int, int]:
    """Bytes kept of a micro-batch until backward; computed again of one block; gradients within one."""
    micro, masked = engine.spec.batches.micro, _masked(engine.spec)
    kept = again = gradient = 0
    for flow in flows(engine.sizes):
        own, anew = kept_by_blocks(engine, flow, masked=masked and flow.part is engine.sizes.main)
        tokens = micro * flow.part.tokens
        kept += tokens * own
        again = max(again, tokens * anew)
        block = flow.part.stack.block
        if any(flow.reached):
            scores = written_out(engine, block, flow.part.tokens, masked=masked and flow.part is engine.sizes.main)
            gradient = max(gradient, tokens * (returning(engine, block) + (SCORE - engine.compute) * scores))
        else:
            again = max(again, tokens * passing(engine, block))
    return kept, again, gradient


def _masked(spec: RunSpec) -> bool:
    """Whether attention has an explicit mask: rows of several lengths are padded, and packed ones kept apart."""
    if spec.recipe.task in ("classify", "probe"):
        return False
    packing = spec.recipe.task == "sft" and spec.recipe.text.packing
    return packing or spec.batches.micro > 1


def _inputs(engine: Engine[Anatomy]) -> int:
    """Pixels in float32 and as they are computed with, points with their features, and masks."""
    spec, micro = engine.spec, engine.spec.batches.micro
    if spec.recipe.task in ("classify", "probe"):
        side = spec.recipe.image_model.image_size or spec.images.image_size
        return micro * 3 * side**2 * (FLOAT + engine.compute)
    longest = spec.text.longest
    mask = micro * longest**2 * (1 + engine.compute) if _masked(spec) else 0
    if isinstance(spec.data, CadFacts):
        points, model = spec.data.points, spec.recipe.cad_model
        if points is not None and model.points is not None:
            row = fourier_width(model.points) * FLOAT + 5 * model.points.width * engine.compute
            mask += micro * points * row
        pixels = spec.recipe.cad.views_at_once[1] * (spec.data.image_size or 0) ** 2
        mask += micro * 3 * pixels * (FLOAT + engine.compute)
    return mask


def _logits(engine: Engine[Anatomy], *, backward: bool) -> int:
    """Bytes of the head's work: a classifier's is nothing beside the rest."""
    spec, (inputs, outputs) = engine.spec, engine.sizes.head
    if spec.recipe.task == "sft" or (spec.recipe.task == "cad" and outputs > COLUMNS):
        scored = spec.batches.micro * spec.text.longest
        columns = min(COLUMNS, outputs)
        cast = 0 if engine.held == engine.compute or engine.quantised else columns * inputs * engine.compute
        tile = min(scored, TOKENS) * columns * engine.compute + cast
        if not backward:
            return tile + scored * inputs * engine.compute
        own = 0 if engine.adapted else outputs * inputs * FLOAT
        return tile + scored * inputs * (engine.compute + FLOAT) + own
    if spec.recipe.task == "cad":
        learnt = spec.batches.micro * spec.text.longest * outputs
        return learnt * (3 * FLOAT if backward else 2 * FLOAT + engine.compute)
    return spec.batches.micro * outputs * 3 * FLOAT


def _copies(engine: Engine[Anatomy], *, backward: bool, wanted: bool = True) -> int:
    """Float32 weights of blocks in the compute type under autocast.

    Trained ones are kept for as long as autocast lasts: a forward pass, or a block that is computed again. Frozen ones
    are kept where gradients flow through them and are `wanted`, until their backward; else for a block.
    """
    if not engine.autocast:
        return 0
    full = engine.spec.strategy.activation_checkpointing == "full"
    found = 0
    for flow in flows(engine.sizes):
        sizes = {f"{name}.weight": prod(shape) for name, shape in flow.part.stack.block.linears.items()}
        blocks = [
            (sum(size for name, size in sizes.items() if name in trained), sum(sizes.values()), reached)
            for trained, reached in zip(flow.trained, flow.reached, strict=True)
        ]
        one = max(whole for _, whole, _ in blocks)
        cached = sum(trained for trained, _, _ in blocks)
        frozen = sum(whole - trained for trained, whole, reached in blocks if reached and wanted and not full)
        found += one if full and backward else max(cached + frozen, one)
    return found * engine.compute


def _gathered(engine: Engine[Anatomy]) -> int:
    """Whole weights that a pass has at most, where ranks hold shares.

    ZeRO-3: up to stage3_max_live_parameters elements, and on one rank none. FSDP2: a block, the next one on its way
    with the buffer that it comes in, and what is of no block, which stays.
    """
    if not engine.sharded or (engine.ranks == 1 and engine.stage == 3 and not engine.spec.strategy.offload.params):
        return 0
    whole = engine.weights(engine.compute)
    if engine.stage == 3:
        most = (engine.spec.deepspeed or {})["zero_optimization"]["stage3_max_live_parameters"]
        return int(min(whole, most * engine.compute))
    block = max(part.stack.block.elements for part in engine.sizes.parts)
    outside = sum(part.outside for part in engine.sizes.parts)
    return engine.compute * ((2 if engine.ranks == 1 else 3) * block + outside)


def _reducing(engine: Engine[Anatomy]) -> int:
    """What gradients are reduced in: ZeRO's buckets; of FSDP2 a block's, whole, and in float32 to be scattered."""
    if engine.name != "fsdp2":
        return buckets(engine)
    trained = max((sum(sizes) for sizes in _trained_blocks(engine.sizes)), default=0)
    return trained * (engine.compute + FLOAT)


def _trained_blocks(anatomy: Anatomy) -> list[tuple[int, ...]]:
    """Elements of the trained parameters of each block."""
    found: dict[str, list[int]] = {}
    for part in anatomy.parts:
        prefix = part.stack.prefix
        for name, size in anatomy.trained.items():
            if name.startswith(prefix):
                found.setdefault(prefix + name[len(prefix) :].partition(".")[0], []).append(size)
    return [tuple(sizes) for sizes in found.values()]


def _left_out(spec: RunSpec) -> tuple[str, ...]:
    return ("torch.compile, which keeps less for backward",) if spec.strategy.compile else ()


def _gib(size: float) -> float:
    return round(size / GIB, 3)
