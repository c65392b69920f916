"""Every key of a file of `accelerate config`, and what becomes of it: what accelerate 1.15 reads, section by section.

Sources: commands/config/config_args.py (ClusterConfig) for the top; commands/launch.py, whose arguments the keys of the
sections are. docs/interoperation.md has the same for readers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Only:
    """A key whose other values zerofit cannot have."""

    reason: str
    """Why, and what to do instead."""
    values: tuple[Any, ...] = ()
    """Those that say what zerofit does anyway, as `file_words.plain` makes them."""


@dataclass(frozen=True)
class Read:
    """A key that decides something, or is compared with what does."""


@dataclass(frozen=True)
class Needless:
    """A key whose every value is right: what it decides, zerofit settles otherwise, with the same numbers."""

    reason: str


Rules = dict[str, Only | Read | Needless]

TPU = Only("zerofit runs on NVIDIA GPUs and CPUs, not on TPUs; leave it out", (False,))
PLACE = Needless("where ranks meet is settled by zerofit on one machine, by the outer launcher on several")
FSDP1 = "is a setting of FSDP1, and FSDP2 has no other way; leave it out"

TOP: Rules = {
    "compute_environment": Only(
        "zerofit starts ranks on this machine, and Amazon's are started by `accelerate launch` alone",
        ("local_machine",),
    ),
    "distributed_type": Read(),
    "num_processes": Read(),
    "num_machines": Read(),
    "machine_rank": Read(),
    "main_process_ip": PLACE,
    "main_process_port": PLACE,
    "rdzv_backend": PLACE,
    "same_network": PLACE,
    "gpu_ids": Read(),
    "mixed_precision": Read(),
    "fp16": Read(),
    "use_cpu": Read(),
    "debug": Only("zerofit does not check each operation; set TORCH_DISTRIBUTED_DEBUG=DETAIL for that", (False,)),
    "enable_cpu_affinity": Only("zerofit binds no process to cores; start it under numactl for that", (False,)),
    "main_training_function": Only("names a function of a script, and a recipe has no script", ("main",)),
    "dynamo_config": Read(),
    "dynamo_backend": Read(),
    "deepspeed_config": Read(),
    "fsdp_config": Read(),
    "parallelism_config": Read(),
    "fp8_config": Only("zerofit does not compute in 8 bits; use mixed_precision bf16"),
    "megatron_lm_config": Only("zerofit has no Megatron-LM; use DEEPSPEED or FSDP"),
    "mpirun_config": Only(
        "zerofit is not started by mpirun; it starts its own ranks, or joins those of torchrun or srun"
    ),
    "downcast_bf16": TPU,
    "tpu_name": TPU,
    "tpu_zone": TPU,
    "tpu_use_cluster": TPU,
    "tpu_use_sudo": TPU,
    "tpu_vm": TPU,
    "tpu_env": TPU,
    "commands": TPU,
    "command_file": TPU,
}

DEEPSPEED: Rules = {
    "deepspeed_config_file": Read(),
    "zero_stage": Read(),
    "offload_optimizer_device": Read(),
    "offload_param_device": Read(),
    "offload_optimizer_nvme_path": Read(),
    "offload_param_nvme_path": Read(),
    "gradient_accumulation_steps": Read(),
    "gradient_clipping": Read(),
    "zero3_init_flag": Read(),
    "zero3_save_16bit_model": Needless("zerofit's checkpoints hold the whole weights under every strategy"),
    "deepspeed_multinode_launcher": Read(),
    "deepspeed_hostfile": Read(),
    "deepspeed_exclusion_filter": Read(),
    "deepspeed_inclusion_filter": Read(),
    "deepspeed_moe_layer_cls_names": Only("zerofit gathers every layer by itself, a mixture of experts as well"),
}

NOT_BESIDE_JSON = (
    "zero_stage",
    "offload_optimizer_device",
    "offload_param_device",
    "offload_optimizer_nvme_path",
    "offload_param_nvme_path",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "zero3_save_16bit_model",
)
"""What accelerate does not take beside deepspeed_config_file, which says it too; nor mixed_precision."""

FSDP: Rules = {
    "fsdp_version": Read(),
    "fsdp_sharding_strategy": Only(
        "FSDP2 here shards all; zero2 keeps weights whole, ddp everything", ("full_shard", 1)
    ),
    "fsdp_reshard_after_forward": Only(
        "weights that stay gathered are what zero2 has; use that, or true", (True, "full_shard")
    ),
    "fsdp_offload_params": Read(),
    "fsdp_auto_wrap_policy": Only(
        "zerofit shards block by block, as TRANSFORMER_BASED_WRAP does", ("transformer_based_wrap",)
    ),
    "fsdp_transformer_layer_cls_to_wrap": Read(),
    "fsdp_min_num_params": Only("is for SIZE_BASED_WRAP, and zerofit shards block by block; leave it out", (0,)),
    "fsdp_state_dict_type": Only(
        "zerofit's checkpoints are sharded, with the whole weights beside", ("sharded_state_dict", "full_state_dict")
    ),
    "fsdp_activation_checkpointing": Read(),
    "fsdp_activation_checkpointing_offload": Only("zerofit keeps a block's input on the GPU; leave it out", (False,)),
    "fsdp_cpu_ram_efficient_loading": Needless("every rank reads its own shard, and never the whole model"),
    "fsdp_sync_module_states": Needless("all ranks begin with the same weights anyway"),
    "fsdp_backward_prefetch": Only(FSDP1, ("backward_pre",)),
    "fsdp_forward_prefetch": Only(FSDP1, (False,)),
    "fsdp_use_orig_params": Only(FSDP1, (True,)),
    "fsdp_ignored_modules": Only("every weight is sharded here; leave it out"),
}

DYNAMO: Rules = {
    "dynamo_backend": Read(),
    "dynamo_mode": Only("zerofit compiles in the default mode", ("default",)),
    "dynamo_use_fullgraph": Only("zerofit lets a block break into several graphs", (False,)),
    "dynamo_use_dynamic": Only("zerofit leaves it to PyTorch which shapes are dynamic", (False,)),
    "dynamo_use_regional_compilation": Needless(
        "zerofit compiles block by block, with the same results as all at once"
    ),
}

MORE_RANKS = "zerofit's ranks differ in their samples alone, so that this takes 1"
PARALLELISM: Rules = {
    "parallelism_config_dp_replicate_size": Only(MORE_RANKS, (1,)),
    "parallelism_config_dp_shard_size": Read(),
    "parallelism_config_tp_size": Only(MORE_RANKS, (1,)),
    "parallelism_config_cp_size": Only(MORE_RANKS, (1,)),
    "parallelism_config_sp_size": Only(MORE_RANKS, (1,)),
    **{
        f"parallelism_config_{name}": Needless("is read where its size is above 1")
        for name in (
            "cp_backend",
            "cp_comm_strategy",
            "sp_backend",
            "sp_seq_length",
            "sp_seq_length_is_variable",
            "sp_attn_implementation",
        )
    },
}

SECTIONS: dict[str, tuple[str, Rules]] = {
    "deepspeed_config": ("", DEEPSPEED),
    "fsdp_config": ("fsdp_", FSDP),
    "dynamo_config": ("dynamo_", DYNAMO),
    "parallelism_config": ("", PARALLELISM),
}
"""The sections, and what accelerate puts before a key that does not begin so."""
