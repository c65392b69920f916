"""The one loop: transformers' Trainer, with our data, validation and checkpoints put in at its seams.

A task's trainer is this before transformers' Trainer (image_trainer.py) or one of TRL's (sft_trainer.py).
Three private methods are overridden. `_save_checkpoint` and `_get_output_dir`: a callback comes after the old
checkpoint is rotated away, which is too late to commit the new one. `_prepare_input`: it would let the host wait.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback

from zerofit.config.errors import UserError
from zerofit.data.loader import Loader
from zerofit.models.frozen import write_frozen
from zerofit.models.trained import TrainedModel
from zerofit.plan.spec import RunSpec, origin_of
from zerofit.train.deferred import Deferred
from zerofit.train.engine import WEIGHTS, Engine
from zerofit.train.footprint import checkpoint_bytes
from zerofit.train.job import Job, Store
from zerofit.train.optimizers import make_optimizer
from zerofit.train.pulse import PULSE, Stopped
from zerofit.train.statistics import share_statistics
from zerofit.train.writes import AtOnce, Write, Writes


class RunTrainer(Trainer):
    """Trains `job` under `engine`. `data_wait_s` is the time spent waiting for data so far, in seconds."""

    figures: Mapping[str, str] = {}
    """Figures of a step that the trainer logs besides loss, gradient norm and rate: its name -> ours."""

    def __init__(
        self,
        spec: RunSpec,
        engine: Engine,
        model: TrainedModel,
        job: Job,
        store: Store,
        callbacks: list[TrainerCallback],
        arguments: Any,
        **others: Any,
    ) -> None:
        self.spec, self.engine, self.job, self.store = spec, engine, job, store
        self.classifier = model
        self.data_wait_s = 0.0
        self._staging: Path | None = None
        self._writes: Writes = AtOnce()
        self._deferred = Deferred()
        self._validated: tuple[int, float] | None = None  # the last validation: its step, and evaluate.best_metric
        # Trainer asks for both data sets, and uses neither: see `get_train_dataloader` and `evaluate`.
        super().__init__(model=model, args=arguments, callbacks=callbacks, **others)
        self.remove_callback(PrinterCallback)
        torch.manual_seed(spec.recipe.train.seed + dist.get_rank())  # Trainer's own seed drops the same on every rank

    def create_accelerator_and_postprocess(self) -> None:
        """As Trainer's; then the engine adjusts accelerate."""
        super().create_accelerator_and_postprocess()
        self.engine.adopt(self.accelerator)
        self.is_fsdp_enabled = self.accelerator.is_fsdp2

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The recipe's, over the groups of `model.trainable`."""
        if self.optimizer is None:
            self.optimizer = make_optimizer(self.classifier, self.spec, self.engine)
        return self.optimizer

    def get_train_dataloader(self) -> Loader:
        """The job's own: what accelerate would cut up is cut up already."""
        return self.job.train_loader()

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """As Trainer's; the time it takes is waiting for data."""
        PULSE.at(f"step {self.state.global_step + 1}: waiting for data")
        started = time.perf_counter()
        batches = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.data_wait_s += time.perf_counter() - started
        return batches

    def _prepare_input(self, data: Any) -> Any:
        # Loaders' batches are page-locked: the host launches the next micro-batch while the last one is computed.
        moved = data.to(self.args.device, non_blocking=True) if isinstance(data, Tensor) else data
        return super()._prepare_input(moved)

    def tokens_seen(self) -> float | None:
        """Tokens that all ranks have trained on since the process began; null where nobody counts them."""
        return None

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Validation figures, with Trainer's `eval_` before their names; where ranks are to stop, none, and no more."""
        started = time.perf_counter()
        self.model_wrapped.eval()
        figures: dict[str, float] | None = None
        with suppress(Stopped):
            figures = self.job.validate(self.model_wrapped)
        self.engine.settle(self.model_wrapped)
        if figures is None:
            self.model_wrapped.train()
            self.control.should_evaluate = False
            self.control.should_training_stop = True
            self.control.should_save = self.control.should_save or self.spec.recipe.checkpoint.at_end
            return {f"eval_{self.spec.recipe.best_metric}": math.nan}  # better than nothing is
        self._validated = (self.state.global_step, figures[self.spec.recipe.best_metric])
        figures["duration_s"] = time.perf_counter() - started
        metrics = {f"eval_{name}": value for name, value in figures.items()}
        self.log(dict(metrics))  # into trainer_state.json; TRL's trainers tell by the model's mode what is logged
        self.model_wrapped.train()
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The whole weights, by rank 0, in `model.safetensors` alone.

        An error of writing waits for the end of the save, for which the other ranks wait here.
        """
        assert output_dir is not None, "checkpoints alone are saved"
        self._deferred.keep(self._save_weights)(Path(output_dir))

    def _save_weights(self, directory: Path) -> None:
        weights = self.engine.whole_weights(self.model_wrapped)
        if weights is not None:
            directory.mkdir(exist_ok=True)
            self._writes.add(self.store.write_tensors, weights, directory / WEIGHTS)

    def take_writes(self) -> None:
        """Let the prepared engine's writes go the same way."""

        def add(write: Write, value: Any, path: Path) -> None:
            self._writes.add(write, value, path)

        self.engine.take_writes(self.model_wrapped, add, self._deferred)

    def save_now(self) -> None:
        """Save where the run stands, step or no step: to be called once all is prepared. Collective."""
        self._save_checkpoint(self.model_wrapped, None)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging or self.args.output_dir)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._refuse_ruined_weights()
        share_statistics(self.classifier)
        step = self.state.global_step
        PULSE.at(f"step {step}: saving")
        value = self._validated[1] if self._validated is not None and self._validated[0] == step else None
        whole_save = super()._save_checkpoint

        def save_state(staging: Path, writes: Writes) -> None:
            self._staging, self._writes = staging, writes
            try:
                whole_save(model, trial)
            finally:
                self._staging = None
                self._deferred.release()

        def complete(staging: Path, _: Writes) -> None:
            directory = staging / f"checkpoint-{step}"
            if self.is_world_process_zero():
                self.engine.complete(self.model_wrapped, directory)
                if self.classifier.frozen_hash is not None:
                    write_frozen(directory, self.classifier.frozen_hash, origin_of(self.spec))

        size = checkpoint_bytes(self.classifier, self.spec, self.engine)
        last = step >= self.state.max_steps
        self.store.commit(step, value, (save_state, complete), size=size, last=last)

    def _refuse_ruined_weights(self) -> None:
        """Raise UserError where a trained weight is not finite: the last good checkpoint stays the last. Collective.

        Frozen ones are what they were; read as numbers, packed ones may be anything.
        """
        held = zip(self.classifier.parameters(), self.engine.local_tensors(self.classifier), strict=True)
        trained = [part.detach() for weight, part in held if weight.requires_grad and part.numel()]
        # `isfinite` would hold a copy of each beside it; these read, and hand a NaN on.
        bounds = [torch.stack(torch.aminmax(part)).to(self.args.device, torch.float32) for part in trained]
        none = torch.zeros(2, device=self.args.device)  # a rank's shares may be empty
        ruined = (~torch.cat([none, *bounds]).isfinite().all()).float()
        dist.all_reduce(ruined, op=dist.ReduceOp.MAX)
        if ruined.item():
            raise UserError(
                f"step {self.state.global_step}: weights are not finite, so this step is not saved and the run stops; "
                "the last checkpoint is kept. Try a smaller optimizer.lr, optimizer.clip_grad, or another precision"
            )
