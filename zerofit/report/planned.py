"""A plan in words: what is trained how, and where each derived value comes from."""

from __future__ import annotations

from zerofit.config.strategy import AUTO
from zerofit.plan.spec import ImageFacts, RunSpec

CHOSEN = "auto"
"""Where a value comes from that was chosen."""
Line = tuple[str, str, str]
"""What, its value, and where that comes from."""


def table(spec: RunSpec, weights: str, ranks_from: str) -> str:
    """The plan as a table; `weights` says where they come from, `ranks_from` who has asked for so many ranks."""
    lines = [*_what(spec, weights), *_how(spec, ranks_from), *_lengths(spec)]
    widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
    return "\n".join(f"{a:{widths[0]}}  {b:{widths[1]}}  {c}".rstrip() for a, b, c in lines)


def _what(spec: RunSpec, weights: str) -> list[Line]:
    recipe, model, data = spec.recipe, spec.recipe.model, spec.data
    shape = model.shape if isinstance(model.shape, str) else None if spec.shape is None else spec.shape["model_type"]
    how = "" if model.lora is None else f", LoRA of rank {model.lora.rank}"
    quantize = model.quantize if model.kind == "causal_lm" else None
    how += "" if quantize is None else f" on {quantize}"
    unit = "images" if isinstance(data, ImageFacts) else "samples"
    held = f"{data.train:,} {unit} to train, {data.validation:,} to validate, {data.test:,} to test"
    return [
        ("task", recipe.task, ""),
        ("model", f"{shape or model.pretrained} ({model.kind}){how}", _sizes(spec)),
        ("weights", weights, ""),
        ("data", recipe.data.source, held),
    ]


def _sizes(spec: RunSpec) -> str:
    if spec.shape is None:
        return ""
    names = {"hidden_size": "wide", "n_embd": "wide", "num_hidden_layers": "blocks", "n_layer": "blocks"}
    return ", ".join(f"{spec.shape[field]} {word}" for field, word in names.items() if field in spec.shape)


def _how(spec: RunSpec, ranks_from: str) -> list[Line]:
    strategy, said, device = spec.strategy, spec.recipe.strategy, spec.hardware
    places = (("optimizer", strategy.offload.optimizer), ("weights", strategy.offload.params))
    moved = [f"{what} on {where}" for what, where in places if where is not None]
    file = said.accelerate or said.deepspeed
    source = "strategy" if said.name is not None else f"file {file}" if isinstance(file, str) else "strategy.deepspeed"
    source = CHOSEN if said.name == AUTO else source
    recomputed = "strategy.activation_checkpointing"
    if spec.choice is not None and said.activation_checkpointing == AUTO:
        recomputed = CHOSEN
    lines: list[Line] = [
        ("strategy", ", ".join([strategy.name, *moved]), source),
        ("ranks", f"{spec.batches.ranks} on {device.name}", ranks_from),
        ("precision", spec.precision, _precision_from(spec)),
        ("recomputed", strategy.activation_checkpointing, recomputed),
        ("compiled", "the blocks" if strategy.compile else "nothing", "strategy.compile"),
    ]
    if spec.deepspeed is None:
        return lines
    return [*lines, ("DeepSpeed", f"{_leaves(spec.deepspeed)} settings", "what --write-deepspeed writes")]


def _precision_from(spec: RunSpec) -> str:
    if spec.strategy.precision == "auto":
        return f"auto: what {spec.hardware.name} does best"
    return "strategy.precision" if spec.recipe.strategy.precision != "auto" else "the strategy's file"


def _leaves(node: object) -> int:
    return sum(map(_leaves, node.values())) if isinstance(node, dict) else 1


def _lengths(spec: RunSpec) -> list[Line]:
    recipe, batches = spec.recipe, spec.batches
    train, optimizer = recipe.train, recipe.optimizer
    limits = (("epochs", train.epochs), ("max_steps", train.max_steps))
    asked = " and ".join(f"{field} {value:g}" for field, value in limits if value is not None)
    rate = "optimizer.lr" if optimizer.lr is not None else f"blr {optimizer.blr:g} x {batches.global_batch} / 256"
    schedule = f"{batches.warmup_steps} of warm-up, then {optimizer.schedule}"
    return [
        ("global batch", str(batches.global_batch), "train.global_batch"),
        (
            "micro-batch",
            str(batches.micro),
            f"{CHOSEN if train.micro_batch == AUTO else 'train.micro_batch'}, of each rank",
        ),
        (
            "accumulation",
            str(batches.accumulation),
            f"{batches.global_batch} / ({batches.micro} x {batches.ranks} ranks)",
        ),
        ("steps", f"{batches.total_steps:,}", f"{asked}, with {batches.steps_per_epoch:,} steps an epoch"),
        ("optimizer", optimizer.name, schedule),
        ("learning rate", f"{spec.lr:g}", rate),
        ("clipped at", "nothing" if optimizer.clip_grad is None else f"{optimizer.clip_grad:g}", "optimizer.clip_grad"),
        ("checkpoints", _every(batches.checkpoint_steps, recipe.checkpoint.at_end), "checkpoint"),
        ("validations", _every(batches.evaluate_steps, False), "evaluate"),
    ]


def _every(steps: int | None, at_end: bool) -> str:
    words = [] if steps is None else [f"every {steps:,} steps"]
    return " and ".join([*words, *(["at the end"] if at_end else [])]) or "never"
