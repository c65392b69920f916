"""The DeepSpeed configuration of a ZeRO strategy, fully resolved.

Never "auto", and nothing whose change would change numbers, memory or speed is left to a default. Every key was read
in DeepSpeed 0.19.8's runtime/{config,precision_config}.py and runtime/zero/{config,offload_config}.py, and those under
zero_optimization (where an unknown key is an error) also exist in 0.19.3. The optimizer and its schedule are no part
of it: Trainer makes them.
"""

from __future__ import annotations

import sys
from typing import Any

from zerofit.config.model import Model, PatchLM, Vit
from zerofit.config.schema import Recipe
from zerofit.config.strategy import ZERO_STAGE, Offload
from zerofit.plan.deepspeed_sections import sections
from zerofit.plan.deepspeed_user import overlay
from zerofit.plan.precision import Precision
from zerofit.plan.shapes import Shape, adapter_elements, block_elements, has_experts, hidden_size, known_fields
from zerofit.plan.spec import Batches, Hardware, NamedStrategy
from zerofit.plan.strategy import Chosen
from zerofit.plan.units import gathers_blocks

UNKNOWN_BLOCK = 200_000_000  # elements: the block of an 8 B decoder has 193 M
SMALLEST_BUCKET, LARGEST_BUCKET = 1_000_000, 500_000_000
PERSISTENT = 100_000
USUAL = 1_000_000_000
"""DeepSpeed's own limit on what is gathered."""


def make_deepspeed(
    recipe: Recipe, chosen: Chosen, batches: Batches, precision: Precision, hardware: Hardware
) -> dict[str, Any] | None:
    """Exactly what DeepSpeed is given; None for other engines.

    A user's settings are laid over it. Raises UserError where they contradict the recipe.
    """
    strategy = chosen.strategy
    if strategy.name not in ZERO_STAGE:
        return None
    config: dict[str, Any] = {
        "train_batch_size": batches.global_batch,
        "train_micro_batch_size_per_gpu": batches.micro,
        "gradient_accumulation_steps": batches.accumulation,
        "managed_gradient_accumulation": True,
        "gradient_clipping": recipe.optimizer.clip_grad or 0.0,
        "gradient_allreduce_op": "mean",
        "prescale_gradients": False,
        "gradient_predivide_factor": 1.0,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": _zero(recipe.model, strategy, hardware, batches.ranks),
        "steps_per_print": sys.maxsize,
        "wall_clock_breakdown": False,
        "memory_breakdown": False,
        "dump_state": False,
        "disable_python_gc": False,
        "timers": {"throughput": {"enabled": False, "synchronized": False}},  # it would wait for the device each step
        **_precision(precision, batches.accumulation),
    }
    if "nvme" in (strategy.offload.optimizer, strategy.offload.params):
        config["aio"] = {
            "block_size": 2**20,
            "queue_depth": 8,
            "intra_op_parallelism": 1,
            "single_submit": False,
            "overlap_events": True,
            "use_gds": False,
        }
    if strategy.deepspeed is None:
        return config
    assert not isinstance(strategy.deepspeed, str), "resolve_strategy reads files"
    return overlay(config, strategy.deepspeed, sections(recipe.optimizer, batches), chosen.where)


def _precision(precision: Precision, accumulation: int) -> dict[str, Any]:
    """Weights and gradients in the compute precision, float32 masters.

    Gradients are reduced in the compute precision. They are added up over micro-batches in float32 (for ZeRO-1 in
    bf16, DeepSpeed then takes its BF16_Optimizer); where there is one micro-batch a step there is nothing to add up,
    and float32 would only cost memory.
    """
    return {
        "bf16": {
            "enabled": precision == "bf16",
            "immediate_grad_update": True,  # ZeRO-1: frees each gradient once it is added to the float32 sum
            "check_grad_overflow": True,
            "bf16_master_weights_and_grads": False,
            "bf16_optimizer_states": False,
        },
        "fp16": {
            "enabled": precision == "fp16",
            "auto_cast": False,
            "loss_scale": 0,  # dynamic
            "initial_scale_power": 16,
            "loss_scale_window": 1000,
            "hysteresis": 2,
            "consecutive_hysteresis": False,
            "min_loss_scale": 1,
            "fp16_master_weights_and_grads": False,
        },
        "torch_autocast": {"enabled": False},
        "communication_data_type": precision,
        "data_types": {
            "param_dtype": precision,
            "buffer_dtype": None,  # as the model made them: rotary frequencies stay float32
            "grad_accum_dtype": "fp32" if accumulation > 1 else precision,
            "keep_in_fp32_modules": [],
        },
    }


def _zero(model: Model, strategy: NamedStrategy, hardware: Hardware, ranks: int) -> dict[str, Any]:
    offload = strategy.offload
    stage = ZERO_STAGE[strategy.name]
    fields = known_fields(model)
    # About one block: DeepSpeed's fixed default is 1.9 GiB of buffers even for a model of 0.6 G parameters.
    block = block_elements(fields) or UNKNOWN_BLOCK
    bucket = _bucket(block)
    pin = offload.pin_memory and hardware.device == "cuda"
    common = {
        "stage": stage,
        "reduce_bucket_size": bucket,
        "overlap_comm": hardware.device == "cuda",
        "contiguous_gradients": True,
        "reduce_scatter": True,
        "load_from_fp32_weights": True,
        "elastic_checkpoint": False,
        "ignore_unused_parameters": True,
        "offload_optimizer": _offload_optimizer(offload, pin),
        "offload_param": _offload_param(offload, pin, bucket),
    }
    if stage < 3:
        return common | {
            "allgather_partitions": True,
            "allgather_bucket_size": 500_000_000,
            "use_multi_rank_bucket_allreduce": True,
            "round_robin_gradients": False,
        }
    plusplus = strategy.name == "zeropp"
    hidden = hidden_size(fields)
    # Adapters come last in a block: a bucket of the block's own matrices alone would leave them to a second gather.
    gathered = _bucket(block + (0 if model.lora is None else adapter_elements(fields, model.lora.rank) or 0))
    return common | {
        "sub_group_size": 100_000_000,  # the optimizer's step holds 6 bytes for each of these elements
        "stage3_prefetch_bucket_size": gathered,
        "stage3_param_persistence_threshold": min(10 * hidden, PERSISTENT) if hidden else PERSISTENT,
        "stage3_model_persistence_threshold": sys.maxsize,
        "stage3_max_live_parameters": _live(model, fields, gathered) if gathers_blocks(offload) else USUAL,
        # Of a block DeepSpeed 0.19.8 takes all weights to be needed again where backward begins (PartitionedParameter-
        # Coordinator.__params_to_release): the last 1e9 elements would stay, where the loss needs the memory.
        "stage3_max_reuse_distance": 0 if gathers_blocks(offload) else USUAL,
        "stage3_gather_16bit_weights_on_model_save": True,
        "stage3_module_granularity_threshold": 0,
        "stage3_use_all_reduce_for_fetch_params": False,
        "stage3_allgather_sequential": False,
        "memory_efficient_linear": True,
        "override_module_apply": True,
        "pipeline_loading_checkpoint": False,
        "zero_hpz_partition_size": min(ranks, hardware.count) if plusplus else 1,
        "zero_quantized_weights": plusplus,
        "zero_quantized_nontrainable_weights": False,
        # ZeRO++'s third part: DeepSpeed 0.19's kernel stops at a ViT's position embedding (misaligned address).
        "zero_quantized_gradients": False,
    }


def _live(model: Model, fields: Shape | None, gathered: int) -> int:
    """Elements up to which ZeRO-3 prefetches: the block in use, the one that follows, and room for what stays.

    Each module outside of blocks that a pass enters lets another bucket come (DeepSpeed 0.19.8, partitioned_param_
    coordinator.py:453), so that under the usual 1e9 half a ViT-Huge would be there at once. A language model's head,
    whose weight losses read outside of its module, stays for the whole step (parameter_offload.py, ZeROOrderedDict).
    """
    if fields is None or has_experts(fields):  # a block's size is not known
        return USUAL
    room = 5 * gathered // 2
    if isinstance(model, Vit | PatchLM):
        return room
    vocabulary, hidden = fields.get("vocab_size"), hidden_size(fields)
    return vocabulary * hidden + room if vocabulary and hidden else USUAL


def _bucket(elements: int) -> int:
    return min(max(elements, SMALLEST_BUCKET), LARGEST_BUCKET)


def _offload_optimizer(offload: Offload, pin: bool) -> dict[str, Any]:
    if offload.optimizer is None:
        return {"device": "none"}
    place = {"device": offload.optimizer, "pin_memory": pin, "ratio": 1.0, "super_offload": False}
    if offload.optimizer == "cpu":
        return place
    return place | {
        "nvme_path": offload.nvme_path,
        "buffer_count": 4,  # AdamW: weight, gradient, two moments
        "pipeline_read": False,
        "pipeline_write": False,
        "fast_init": False,
    }


def _offload_param(offload: Offload, pin: bool, bucket: int) -> dict[str, Any]:
    if offload.params is None:
        return {"device": "none"}
    place = {"device": offload.params, "pin_memory": pin}
    if offload.params == "cpu":
        return place
    return place | {
        "nvme_path": offload.nvme_path,
        "buffer_count": 5,
        "buffer_size": max(bucket, 100_000_000),
        "max_in_cpu": 1_000_000_000,
    }
