"""The fence: the one file that knows TrainingArguments."""

from __future__ import annotations

import torch
from transformers import TrainingArguments

from zerofit.plan.spec import RunSpec
from zerofit.train.engine import Engine

SCHEDULES = {"constant": "constant_with_warmup", "cosine": "cosine", "linear": "linear"}


class Arguments(TrainingArguments):
    """TrainingArguments of a model that is placed before Trainer sees it."""

    @property
    def device(self) -> torch.device:
        """This rank's; plain `cpu`, not `cpu:0`, to which transformers 5.17 cannot load an optimizer's state."""
        device: torch.device = super().device
        return torch.device("cpu") if device.type == "cpu" else device

    @property
    def place_model_on_device(self) -> bool:
        return False


def training_arguments(spec: RunSpec, engine: Engine) -> TrainingArguments:
    """Translate the resolved run. Nothing is left to a default whose change would change numbers."""
    recipe, batches = spec.recipe, spec.batches
    optimizer = recipe.optimizer
    return Arguments(
        output_dir=str(spec.run_dir / "checkpoints"),
        max_steps=batches.total_steps,
        per_device_train_batch_size=batches.micro,
        per_device_eval_batch_size=batches.evaluate_micro,
        gradient_accumulation_steps=batches.accumulation,
        learning_rate=spec.lr,
        weight_decay=optimizer.weight_decay,
        adam_beta1=optimizer.betas[0],
        adam_beta2=optimizer.betas[1],
        adam_epsilon=optimizer.eps,
        max_grad_norm=optimizer.clip_grad or 0.0,
        lr_scheduler_type=SCHEDULES[optimizer.schedule],
        warmup_steps=batches.warmup_steps,
        seed=recipe.train.seed,
        logging_strategy="steps",
        logging_steps=recipe.track.every,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=batches.checkpoint_steps or batches.total_steps,
        eval_strategy="no" if batches.evaluate_steps is None else "steps",
        eval_steps=batches.evaluate_steps,
        metric_for_best_model=None if batches.evaluate_steps is None else recipe.best_metric,
        greater_is_better=recipe.best_metric != "loss",
        use_cpu=spec.hardware.device == "cpu",
        ddp_find_unused_parameters=False,
        ignore_data_skip=True,  # our order of samples is sought, not skipped through
        remove_unused_columns=False,
        average_tokens_across_devices=False,
        disable_tqdm=True,
        report_to="none",  # trackers get the lines of metrics.jsonl (tracking.py)
        **engine.arguments(),
    )
