"""`strategy.deepspeed`: a user's DeepSpeed settings, laid over the generated ones.

The recipe is the one place for what it has fields for; a setting that says otherwise is refused, never obeyed or
dropped in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from zerofit.config.errors import UserError, did_you_mean
from zerofit.plan.deepspeed_sections import expect_agreement

Config = dict[str, Any]

OWNED = {
    "train_batch_size": "train.global_batch",
    "train_micro_batch_size_per_gpu": "train.micro_batch",
    "gradient_accumulation_steps": "train.global_batch, which is micro_batch x accumulation x ranks",
    "gradient_clipping": "optimizer.clip_grad",
    "bf16.enabled": "strategy.precision",
    "fp16.enabled": "strategy.precision",
    "torch_autocast.enabled": "strategy.precision",
    "data_types.param_dtype": "strategy.precision",
    "zero_optimization.stage": "strategy.name",
    "zero_optimization.offload_optimizer.device": "strategy.offload.optimizer",
    "zero_optimization.offload_param.device": "strategy.offload.params",
    "zero_optimization.offload_optimizer.nvme_path": "strategy.offload.nvme_path",
    "zero_optimization.offload_param.nvme_path": "strategy.offload.nvme_path",
}
"""Settings that follow from the recipe, and the field to change instead."""

REPLACED = {
    "optimizer": "optimizer",
    "scheduler": "optimizer.schedule and optimizer.warmup",
    "bfloat16": "strategy.precision",
    "amp": "strategy.precision",
    "zero_optimization.cpu_offload": "strategy.offload.optimizer",
    "zero_optimization.cpu_offload_param": "strategy.offload.params",
}
"""Settings that are dropped where all they say is "auto" and refused otherwise, and the field that says it."""

AS_AUTO: dict[str, tuple[Any, ...]] = {
    "optimizer.type": ("AdamW",),
    # What the Hugging Face examples name beside "auto"; the schedule is the recipe's, whichever of them it is.
    "scheduler.type": ("WarmupLR", "WarmupDecayLR", "WarmupCosineLR"),
    "scheduler.params.warmup_type": ("linear",),
    "scheduler.params.warmup_min_lr": (0,),
}
"""Values within REPLACED that are no contradiction of any recipe: they stand for "auto"."""

UNUSED = (
    "zero_optimization.stage3_",
    "zero_optimization.offload_optimizer.pin_memory",
    "zero_optimization.offload_optimizer.nvme_path",
    "zero_optimization.offload_param.pin_memory",
    "zero_optimization.offload_param.nvme_path",
)
"""How settings begin that are generated only where the stage or the offload reads them: elsewhere "auto" is dropped."""

NOT_GENERATED = frozenset(
    [
        "activation_checkpointing",
        "aio",
        "autotuning",
        "checkpoint",
        "comet",
        "comms_logger",
        "compile",
        "csv_monitor",
        "data_efficiency",
        "data_parallel_size",
        "dataloader_drop_last",
        "datastates_ckpt",
        "disable_allgather",
        "expert_parallel",
        "flops_profiler",
        "hybrid_engine",
        "log_level",
        "pipeline",
        "seq_parallel_communication_data_type",
        "sequence_parallel_size",
        "tensor_parallel",
        "tensorboard",
        "use_data_before_expert_parallelism",
        "vocabulary_size",
        "wandb",
        "weight_quantization",
    ]
)
"""What DeepSpeed 0.19.8 also reads at the top (runtime/config.py and what it calls; compile/init_sp.py).

Those that it refuses as removed are left out. An unknown name at the top it would ignore, so that is refused here.
"""


@dataclass(frozen=True)
class Refused:
    """A block that DeepSpeed reads, and that does nothing or harm here."""

    reason: str
    by: str = "enabled"
    """Its setting that switches it on; empty: any that is not off."""

    def does_something(self, block: Any) -> bool:
        """Whether it is switched on."""
        if not isinstance(block, Mapping) or not self.by:
            return any(leaf is True or (bool(leaf) and leaf not in ("auto", 1)) for _, leaf in _leaves("", block))
        return bool(block.get(self.by))


UNITS = (
    "ZeRO-3 gathers whole transformer blocks here, and units that DeepSpeed sets fail above frozen embeddings; "
    "leave it out"
)
REFUSED = {
    "activation_checkpointing": Refused(
        "is for models that call deepspeed.checkpointing, which none here does; use strategy.activation_checkpointing",
        "",
    ),
    "autotuning": Refused("is done by the `deepspeed` launcher before a training; leave it out"),
    "data_efficiency": Refused("would change the order of samples, which is the recipe's; leave it out"),
    "hybrid_engine": Refused("is DeepSpeed-Chat's own generation; leave it out"),
    "pipeline": Refused("no model here is cut into pipeline stages; leave it out", ""),
    "sequence_parallel_size": Refused("ranks here differ in their samples alone; leave it out", ""),
    "data_parallel_size": Refused("ranks here differ in their samples alone; leave it out", ""),
    "tensor_parallel": Refused("weights here are cut by ZeRO alone; leave it out", ""),
    "weight_quantization": Refused("is for trainings with MoQ; leave it out", ""),
    "zero_optimization.leaf_module": Refused(UNITS, ""),
    "zero_optimization.stage3_module_granularity_threshold": Refused(UNITS, ""),
}
"""What is refused where it switches something on."""


def overlay(generated: Config, user: Mapping[str, Any], sections: Mapping[str, Config], where: str) -> Config:
    """`generated` with the settings of `user` in place of its own; `where` is how messages begin.

    Mappings are merged, and "auto" takes the generated value: none is left. `optimizer` and `scheduler` blocks are
    dropped where they are nothing but "auto" or agree with the recipe's, `sections`, which are used; so is an "auto" of
    another stage (UNUSED). Raises UserError for a contradiction of the recipe, an "auto" that zerofit has no value for,
    what zerofit cannot train with (REFUSED), and a name at the top that DeepSpeed does not know.
    """
    known = {*generated, *NOT_GENERATED, *(path for path in REPLACED if "." not in path)}
    for key in user:
        if key not in known:
            raise UserError(f"{where}{key} is no setting of DeepSpeed 0.19{did_you_mean(str(key), known)}")
    agreed = [key for key in sections if key in user and not _is_auto(key, user[key])]
    for key in agreed:
        expect_agreement(key, user[key], sections[key], where, REPLACED[key])
    return _merge(generated, {key: value for key, value in user.items() if key not in agreed}, "", where)


def _merge(generated: Config, user: Mapping[str, Any], prefix: str, where: str) -> Config:
    merged = dict(generated)
    for key, value in user.items():
        path = f"{prefix}{key}"
        ours = generated.get(key)
        if path in REFUSED and REFUSED[path].does_something(value):
            raise UserError(f"{where}{path}: {REFUSED[path].reason}")
        if path in REPLACED:
            _refuse_unless_auto(path, value, where)
        elif value == "auto":
            if key not in generated and not path.startswith(UNUSED):
                raise UserError(f'{where}{path} is "auto", which has no value here: give one, or leave the key out')
        elif isinstance(ours, dict) and not isinstance(value, Mapping):
            raise UserError(f"{where}{path} must be a mapping, not {value!r}")
        elif path in OWNED and key in generated and value != ours:
            raise UserError(f"{where}{path} is {value!r}, but by the recipe it is {ours!r}: change {OWNED[path]}")
        elif isinstance(value, Mapping):
            merged[key] = _merge(ours if isinstance(ours, dict) else {}, value, f"{path}.", where)
        elif isinstance(value, list):
            merged[key] = list(_merge({}, {str(at): item for at, item in enumerate(value)}, f"{path}.", where).values())
        else:
            merged[key] = value
    return merged


def _is_auto(path: str, value: Any) -> bool:
    """Whether a block says "auto" and nothing else. Without any it asks for DeepSpeed's own defaults."""
    leaves = list(_leaves(path, value))
    return not _said(leaves) and any(leaf == "auto" for _, leaf in leaves)


def _said(leaves: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return [(at, leaf) for at, leaf in leaves if leaf != "auto" and leaf not in AS_AUTO.get(at, ())]


def _refuse_unless_auto(path: str, value: Any, where: str) -> None:
    if _is_auto(path, value):
        return
    said = _said(list(_leaves(path, value)))
    at, leaf = said[0] if said else (path, value)
    raise UserError(
        f'{where}{at} is {leaf!r}, but {path} is not taken from DeepSpeed settings (unless all of it is "auto"): '
        f"say it in {REPLACED[path]}"
    )


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{path}.{key}", inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(path, inner)
    else:
        yield path, value
