"""The fence: the one file that knows TrainingArguments, and TRL's kinds of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainingArguments

from zerofit.plan.rollout_engine import corrects
from zerofit.plan.spec import RunSpec
from zerofit.train.engine import Engine

if TYPE_CHECKING:
    from trl import GRPOConfig, SFTConfig

SCHEDULES = {"constant": "constant_with_warmup", "cosine": "cosine", "linear": "linear"}


class Placed:
    """Arguments for a model that is placed before Trainer sees it: to be put before the class of arguments."""

    @property
    def device(self) -> torch.device:
        """This rank's; plain `cpu`, not `cpu:0`, to which transformers 5.17 cannot load an optimizer's state."""
        device: torch.device = super().device  # type: ignore[misc]
        return torch.device("cpu") if device.type == "cpu" else device

    @property
    def place_model_on_device(self) -> bool:
        """Never."""
        return False


class Arguments(Placed, TrainingArguments):
    """Of tasks that transformers' own Trainer does."""


def training_arguments(spec: RunSpec, engine: Engine) -> TrainingArguments:
    """Translate the resolved run."""
    return Arguments(**_common(spec, engine), average_tokens_across_devices=False)


def token_arguments(spec: RunSpec, engine: Engine) -> TrainingArguments:
    """The same for a loss of the tokens of the global batch."""
    return Arguments(**_common(spec, engine), average_tokens_across_devices=True)


def sft_arguments(spec: RunSpec, engine: Engine) -> SFTConfig:
    """Translate the resolved run of the task sft. Samples come ready; the loss is of tokens of the global batch."""
    from trl import SFTConfig

    class SftArguments(Placed, SFTConfig):
        """TRL's, for a model that is placed."""

    return SftArguments(
        **_common(spec, engine),
        average_tokens_across_devices=True,
        loss_type="nll",
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        packing=False,
        eval_packing=False,
        padding_free=False,
        assistant_only_loss=False,
        completion_only_loss=False,
        activation_offloading=False,
        use_liger_kernel=False,
        router_aux_loss_coef=0.0,
        trust_remote_code=False,
    )


def grpo_arguments(spec: RunSpec, engine: Engine) -> GRPOConfig:
    """Translate the resolved run of the task grpo. Rollouts and the reference are ours: `beta` is set afterwards."""
    from trl import GRPOConfig

    class GrpoArguments(Placed, GRPOConfig):
        """TRL's, for a model that is placed."""

    grpo, sizes = spec.recipe.grpo, spec.grpo
    assert grpo is not None
    assert sizes is not None
    return GrpoArguments(
        **_common(spec, engine),
        average_tokens_across_devices=False,
        num_generations=sizes.num_generations,
        num_generations_eval=sizes.num_generations_eval,
        steps_per_generation=sizes.steps_per_generation,
        num_iterations=sizes.num_iterations,
        max_completion_length=grpo.sampling.max_tokens,
        temperature=grpo.sampling.temperature or 1.0,  # what losses divide logits by
        top_p=grpo.sampling.top_p,
        top_k=grpo.sampling.top_k,
        beta=0.0,
        epsilon=grpo.epsilon,
        epsilon_high=grpo.epsilon_high,
        loss_type=grpo.loss,
        delta=None,
        importance_sampling_level="token",
        use_bias_correction_kl=True,  # the KL's gradient is that of the reverse KL (DeepSeek-V3.2, arXiv:2512.02556)
        off_policy_mask_threshold=None,
        scale_rewards=grpo.scale_rewards,
        reward_weights=[reward.weight for reward in grpo.rewards],
        multi_objective_aggregation="sum_then_normalize",
        mask_truncated_completions=grpo.mask_truncated,
        top_entropy_quantile=1.0,
        entropy_coef=0.0,
        disable_dropout=False,
        shuffle_dataset=False,
        log_completions=False,
        use_vllm=spec.rollout_engine == "vllm",
        vllm_mode=grpo.rollout.vllm,
        vllm_gpu_memory_utilization=grpo.rollout.vllm_memory,
        vllm_server_base_url=grpo.rollout.server if grpo.rollout.vllm == "server" else None,
        vllm_enable_sleep_mode=spec.hardware.device == "cuda",
        vllm_importance_sampling_correction=corrects(spec),
        vllm_max_model_length=sizes.length,
        router_aux_loss_coef=0.0,
        trust_remote_code=False,
    )


def _common(spec: RunSpec, engine: Engine) -> dict[str, Any]:
    """What every trainer is told. Nothing is left to a default whose change would change numbers."""
    recipe, batches = spec.recipe, spec.batches
    optimizer = recipe.optimizer
    return {
        "output_dir": str(spec.run_dir / "checkpoints"),
        "max_steps": batches.total_steps,
        "per_device_train_batch_size": batches.micro,
        "per_device_eval_batch_size": batches.evaluate_micro,
        "gradient_accumulation_steps": batches.accumulation,
        "learning_rate": spec.lr,
        "weight_decay": optimizer.weight_decay,
        "adam_beta1": optimizer.betas[0],
        "adam_beta2": optimizer.betas[1],
        "adam_epsilon": optimizer.eps,
        "max_grad_norm": optimizer.clip_grad or 0.0,
        "lr_scheduler_type": SCHEDULES[optimizer.schedule],
        "lr_scheduler_kwargs": {},
        "warmup_steps": batches.warmup_steps,
        "seed": recipe.train.seed,
        "logging_strategy": "steps",
        "logging_steps": recipe.track.every,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": batches.checkpoint_steps or batches.total_steps,
        "eval_strategy": "no" if batches.evaluate_steps is None else "steps",
        "eval_steps": batches.evaluate_steps,
        "eval_on_start": False,  # it would come after a resume, too: see callbacks.py
        "metric_for_best_model": None if batches.evaluate_steps is None else recipe.best_metric,
        "greater_is_better": recipe.best_metric != "loss",
        "use_cpu": spec.hardware.device == "cpu",
        "gradient_checkpointing": False,  # blocks are recomputed by ours (models/recompute.py)
        "torch_empty_cache_steps": None,
        "ddp_find_unused_parameters": False,
        "ignore_data_skip": True,  # our order of samples is sought, not skipped through
        "remove_unused_columns": False,
        "disable_tqdm": True,
        "report_to": "none",  # trackers get the lines of metrics.jsonl (tracking.py)
        **engine.arguments(),
    }
