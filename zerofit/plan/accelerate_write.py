"""A run's strategy as a file of `accelerate config`: with it `accelerate launch` spreads the work as the run does."""

from __future__ import annotations

from typing import Any

from zerofit.config.errors import UserError
from zerofit.config.strategy import ZERO_STAGE
from zerofit.plan.fused import is_fused
from zerofit.plan.spec import RunSpec

Config = dict[str, Any]

# Of several ranks on a CPU too: `accelerate launch` starts one process for MULTI_CPU, unless by mpirun.
TYPES = {"single": "NO", "ddp": "MULTI_GPU", "fsdp2": "FSDP"}
MIXED = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def accelerate_config(spec: RunSpec, deepspeed_file: str) -> Config:
    """The file's content; `deepspeed_file` is where DeepSpeed's settings lie, for a ZeRO strategy.

    Raises UserError for a strategy that such a file cannot say.
    """
    strategy = spec.strategy
    _check(spec)
    common: Config = {
        "compute_environment": "LOCAL_MACHINE",
        "debug": False,
        "distributed_type": TYPES.get(strategy.name, "DEEPSPEED"),
        "machine_rank": 0,
        "main_training_function": "main",
        "num_machines": 1,
        "num_processes": spec.batches.ranks,
        "rdzv_backend": "static",
        "same_network": True,
        "use_cpu": spec.hardware.device == "cpu",
    }
    if strategy.compile:
        common["dynamo_config"] = {"dynamo_backend": "INDUCTOR", "dynamo_use_regional_compilation": True}
    if strategy.name in ZERO_STAGE:
        # The file alone cannot say bucket sizes, loss scaling or types of gradients; precision is in it as well.
        zero: Config = {"deepspeed_config_file": deepspeed_file, "deepspeed_multinode_launcher": "standard"}
        return common | {"deepspeed_config": zero | {"zero3_init_flag": _zero_init(spec)}}
    common |= {"gpu_ids": "all", "mixed_precision": MIXED[spec.precision]}
    if strategy.name != "fsdp2":
        return common
    return common | {
        "fsdp_config": {
            "fsdp_version": 2,
            "fsdp_reshard_after_forward": True,
            "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "fsdp_cpu_ram_efficient_loading": True,
            "fsdp_state_dict_type": "SHARDED_STATE_DICT",
            "fsdp_offload_params": strategy.offload.params is not None,
            "fsdp_activation_checkpointing": strategy.activation_checkpointing == "full",
        }
    }


def deepspeed_config(spec: RunSpec) -> Config:
    """DeepSpeed's settings. Raises UserError for a strategy that has none."""
    if spec.deepspeed is None:
        raise UserError(
            f"--write-deepspeed: strategy {spec.strategy.name} is not DeepSpeed's: name a ZeRO strategy, or use "
            "--write-accelerate"
        )
    return spec.deepspeed


def _zero_init(spec: RunSpec) -> bool:
    return ZERO_STAGE[spec.strategy.name] == 3 and not spec.quantised


def _check(spec: RunSpec) -> None:
    """Raise UserError for what accelerate would do otherwise than zerofit."""
    strategy, option = spec.strategy, "--write-accelerate"
    if strategy.activation_checkpointing == "selective":
        raise UserError(
            f"{option}: activation_checkpointing selective, of every other block, is zerofit's own: accelerate and "
            "transformers know full and none"
        )
    if strategy.name == "fsdp2" and spec.hardware.device == "cpu":
        raise UserError(f"{option}: accelerate runs DDP where a file says FSDP and there is no GPU: plan it on GPUs")
    if strategy.name == "fsdp2" and strategy.offload.params is not None and not strategy.offload.pin_memory:
        raise UserError(f"{option}: accelerate's FSDP2 pins offloaded memory always: leave offload.pin_memory true")


def script_arguments(spec: RunSpec) -> list[str]:
    """What a script of transformers' Trainer, or TRL's, is to be told besides, as it is no part of such files."""
    recipe, batches = spec.recipe, spec.batches
    optimizer = recipe.optimizer
    schedule = "constant_with_warmup" if optimizer.schedule == "constant" else optimizer.schedule
    whole = spec.strategy.activation_checkpointing == "full" and spec.strategy.name != "fsdp2"
    said: Config = {
        "per_device_train_batch_size": batches.micro,
        "gradient_accumulation_steps": batches.accumulation,
        "max_steps": batches.total_steps,
        "learning_rate": spec.lr,
        "lr_scheduler_type": schedule,
        "warmup_steps": batches.warmup_steps,
        "max_grad_norm": optimizer.clip_grad or 0.0,
        "weight_decay": optimizer.weight_decay,
        "bf16": spec.precision == "bf16",
        "fp16": spec.precision == "fp16",
        "gradient_checkpointing": whole,
    }
    if spec.hardware.device == "cpu":
        said["use_cpu"] = True  # without it ranks on a CPU do not find one another
    if optimizer.name == "adamw":
        # With fp16 Trainer's own fused one lets the schedule go on after an overflow (train/optimizers.py).
        fused = is_fused(spec, spec.hardware.device) and spec.precision != "fp16"
        said |= {"optim": "adamw_torch_fused" if fused else "adamw_torch", "adam_epsilon": optimizer.eps}
        said |= {f"adam_beta{number}": beta for number, beta in enumerate(optimizer.betas, 1)}
    return [f"--{name} {_written(value)}" for name, value in said.items()]


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
