"""Files of `accelerate config` and DeepSpeed's JSON as users have them: the settings of well-known examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from plan_examples import recipe

from zerofit.config.errors import UserError
from zerofit.plan.strategy import Chosen, resolve_strategy

ANY = {
    "compute_environment": "LOCAL_MACHINE",
    "debug": False,
    "downcast_bf16": "no",
    "machine_rank": 0,
    "main_training_function": "main",
    "mixed_precision": "bf16",
    "num_machines": 1,
    "num_processes": 8,
    "rdzv_backend": "static",
    "same_network": True,
    "tpu_env": [],
    "tpu_use_cluster": False,
    "tpu_use_sudo": False,
    "use_cpu": False,
}
ZERO = {
    "deepspeed_multinode_launcher": "standard",
    "gradient_accumulation_steps": 1,
    "offload_optimizer_device": "none",
    "offload_param_device": "none",
    "zero3_init_flag": False,
}
FSDP1 = {
    "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "fsdp_backward_prefetch": "BACKWARD_PRE",
    "fsdp_cpu_ram_efficient_loading": True,
    "fsdp_forward_prefetch": False,
    "fsdp_offload_params": True,
    "fsdp_sharding_strategy": "FULL_SHARD",
    "fsdp_state_dict_type": "SHARDED_STATE_DICT",
    "fsdp_sync_module_states": True,
    "fsdp_use_orig_params": False,
}
FSDP2 = {
    "fsdp_activation_checkpointing": False,
    "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "fsdp_cpu_ram_efficient_loading": True,
    "fsdp_offload_params": False,
    "fsdp_reshard_after_forward": True,
    "fsdp_state_dict_type": "SHARDED_STATE_DICT",
    "fsdp_version": 2,
}
# TRL's examples/accelerate_configs, and what `accelerate config` writes.
WILD: dict[str, dict[str, Any]] = {
    "single_gpu": {**ANY, "distributed_type": "NO", "gpu_ids": "all"},
    "multi_gpu": {**ANY, "distributed_type": "MULTI_GPU", "gpu_ids": "all", "mixed_precision": "no"},
    "deepspeed_zero1": {
        **ANY,
        "distributed_type": "DEEPSPEED",
        "deepspeed_config": {
            "deepspeed_multinode_launcher": "standard",
            "gradient_accumulation_steps": 1,
            "zero3_init_flag": False,
            "zero_stage": 1,
        },
    },
    "deepspeed_zero2": {**ANY, "distributed_type": "DEEPSPEED", "deepspeed_config": {**ZERO, "zero_stage": 2}},
    "deepspeed_zero3": {
        **ANY,
        "distributed_type": "DEEPSPEED",
        "deepspeed_config": {**ZERO, "zero3_init_flag": True, "zero3_save_16bit_model": True, "zero_stage": 3},
    },
    "fsdp1": {**ANY, "distributed_type": "FSDP", "fsdp_config": FSDP1},
    "fsdp2": {**ANY, "distributed_type": "FSDP", "enable_cpu_affinity": False, "fsdp_config": FSDP2},
    "context_parallel": {
        **ANY,
        "distributed_type": "FSDP",
        "fsdp_config": FSDP2,
        "parallelism_config": {
            "parallelism_config_dp_replicate_size": 1,
            "parallelism_config_dp_shard_size": 1,
            "parallelism_config_tp_size": 1,
            "parallelism_config_cp_size": 2,
        },
    },
    "two_machines": {
        **ANY,
        "distributed_type": "DEEPSPEED",
        "num_machines": 2,
        "num_processes": 16,
        "main_process_ip": "10.0.0.1",
        "main_process_port": 29500,
        "deepspeed_config": {
            **ZERO,
            "deepspeed_multinode_launcher": "pdsh",
            "deepspeed_hostfile": "/job/hostfile",
            "zero_stage": 2,
        },
    },
}


def write(directory: Path, content: dict[str, Any], name: str = "file.yaml") -> str:
    """Write an accelerate file (or, by its name, JSON); its path."""
    path = directory / name
    path.write_text(json.dumps(content) if name.endswith(".json") else yaml.safe_dump(content))
    return str(path)


def wild(name: str, **changes: Any) -> dict[str, Any]:
    """One of WILD, changed; null takes a key out, and mappings are merged."""
    made: dict[str, Any] = dict(WILD[name])
    for key, value in changes.items():
        old = made.get(key)
        made[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return {key: value for key, value in made.items() if value is not None}


TRAIN = {"micro_batch": 8, "global_batch": 64}


def chosen(path: str, **beside: Any) -> Chosen:
    return resolve_strategy(recipe(strategy={"accelerate": path, **beside}))


def refused(call: Any) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def hugging_face(stage: int, /, **others: Any) -> dict[str, Any]:
    """The file of the Hugging Face examples for a stage (tests/deepspeed/ds_config_zero{2,3}.json of Transformers)."""
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": True, "contiguous_gradients": True}
    if stage == 2:
        zero |= {"allgather_partitions": True, "allgather_bucket_size": 2e8, "reduce_scatter": True}
        zero |= {"reduce_bucket_size": 2e8}
    else:
        zero |= {"sub_group_size": 1e9, "reduce_bucket_size": "auto", **STAGE3_AUTO}
        zero |= {"stage3_max_live_parameters": 1e9, "stage3_max_reuse_distance": 1e9}
        zero |= {"stage3_gather_16bit_weights_on_model_save": True}
    return {
        "fp16": {
            "enabled": "auto",
            "loss_scale": 0,
            "loss_scale_window": 1000,
            "initial_scale_power": 16,
            "hysteresis": 2,
            "min_loss_scale": 1,
        },
        "bf16": {"enabled": "auto"},
        "optimizer": {
            "type": "AdamW",
            "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"},
        },
        "scheduler": {
            "type": "WarmupLR",
            "params": {"warmup_min_lr": "auto", "warmup_max_lr": "auto", "warmup_num_steps": "auto"},
        },
        "zero_optimization": zero | others,
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "steps_per_print": 2000,
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "wall_clock_breakdown": False,
    }


STAGE3_AUTO = {"stage3_prefetch_bucket_size": "auto", "stage3_param_persistence_threshold": "auto"}
PINNED_CPU = {"device": "cpu", "pin_memory": True}
