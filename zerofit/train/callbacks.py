"""What happens around the loop: order of samples, proof of the engine, NaN guard, records."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from zerofit.config.errors import UserError
from zerofit.measure.gauges import Gauges
from zerofit.measure.memory import Peak
from zerofit.measure.profile import Window
from zerofit.plan.spec import RunSpec
from zerofit.train.job import Job
from zerofit.train.pulse import PULSE
from zerofit.train.tracking import Tracking

WHOLE = 2
"""Steps after which a peak is one: the first may make what stays."""


class Order(TrainerCallback):
    """Lets every epoch begin where the run stands, after a resume as well; Trainer would count from there anew."""

    def __init__(self, job: Job, steps_per_epoch: int) -> None:
        self.job, self.steps_per_epoch = job, steps_per_epoch

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.job.seek(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        state.epoch = state.global_step / self.steps_per_epoch


class Ready(TrainerCallback):
    """Calls `act` once everything is prepared, before the first step."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.act()


class First(TrainerCallback):
    """Validates before the first step of a run, and not where it goes on."""

    def __init__(self, validate: Callable[[], object]) -> None:
        self.validate = validate

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step == 0:
            self.validate()


class Pulse(TrainerCallback):
    """Asks after every step whether ranks are to stop; then that step is saved, once, and is the last."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        PULSE.at("before the first step")

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        PULSE.at(f"step {state.global_step + 1}")

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        PULSE.at(f"step {state.global_step + 1}")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if PULSE.reached(f"end of step {state.global_step}"):
            control.should_evaluate = False
            control.should_save = control.should_training_stop = True


class Untraced(TrainerCallback):
    """Keeps what tracing steps `first` to `last` takes out of the peaks of memory; to be called before that begins."""

    def __init__(self, peak: Peak, first: int, last: int) -> None:
        self.peak, self.first, self.last, self._seen = peak, first, last, 0

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        step = state.global_step + 1
        if step == self.first and self._seen >= WHOLE:
            self.peak.hold()
        elif step == self.last + 1:
            self.peak.go_on()
        self._seen += 1


class Profiled(TrainerCallback):
    """Traces a window of optimizer steps. On every rank."""

    def __init__(self, window: Window) -> None:
        self.window = window

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.window.begin(state.global_step + 1)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.window.end(state.global_step)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.window.close()


class NoEnd(TrainerCallback):
    """Takes back a save that the end of the run alone asks for: the last callback under `checkpoint.at_end: false`."""

    def __init__(self, every: int | None) -> None:
        self.every = every

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        control.should_save = self.every is not None and state.global_step % self.every == 0


class Guard(TrainerCallback):
    """Stops at a loss that is not finite, before that step is saved."""

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        loss = kwargs["logs"].get("loss")
        if loss is not None and not math.isfinite(loss):
            raise UserError(
                f"step {state.global_step}: the loss is {loss}; the run stops and the last checkpoint is kept. "
                "Try a smaller optimizer.lr, optimizer.clip_grad, or another precision"
            )


class Records(TrainerCallback):
    """Appends to metrics.jsonl, hands its lines to trackers and moves the progress bar. Rank 0 only.

    A line per logged step: step, epoch, loss, grad_norm, lr, samples_s and tokens_s (all ranks), mfu,
    peak_alloc_gib, peak_reserved_gib, host_rss_gib, data_wait_s, optimizer_s, the trainer's own figures, and what
    `Gauges` tell; a line per evaluation: step, epoch, val_loss, val_top1, ..., val_duration_s (of the evaluation),
    duration_s (since the evaluation before, or the start). data_wait_s and optimizer_s are of the steps since the line
    before, on rank 0.
    """

    def __init__(
        self,
        path: Path,
        spec: RunSpec,
        peak: Peak,
        data_wait: Callable[[], float],
        optimizer_time: Callable[[], float],
        tokens: Callable[[], float | None],
        say: Callable[[Mapping[str, float]], str],
        figures: Mapping[str, str],
        flops: float | None,
        peak_flops: float | None,
        progress: Any,
        gauges: Gauges,
        tracking: Tracking,
    ) -> None:
        self.path, self.spec, self.peak, self.data_wait = path, spec, peak, data_wait
        self.optimizer_time, self.tokens, self.say, self.figures = optimizer_time, tokens, say, figures
        self.flops, self.peak_flops, self.progress = flops, peak_flops, progress
        self.gauges, self.tracking = gauges, tracking
        self._since, self._step, self._waited = time.perf_counter(), 0, 0.0
        self._tokens = 0.0
        self._evaluated = self._since
        self.samples_s: list[float] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        forget_after(self.path, state.global_step)
        self._since, self._step = time.perf_counter(), state.global_step
        self._evaluated = self._since
        self.progress.start(state.global_step)
        self.gauges.start()
        self.tracking.start(state.global_step)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs = kwargs["logs"]
        if "loss" not in logs:  # the summary at the end
            return
        now, step, waited = time.perf_counter(), state.global_step, self.data_wait()
        batches = self.spec.batches
        rate = (step - self._step) * batches.global_batch / (now - self._since)
        self.samples_s.append(rate)
        memory = self.peak.figures()
        record = {
            "step": step,
            "epoch": round(step / batches.steps_per_epoch, 4),
            "loss": logs["loss"],
            "grad_norm": float(logs["grad_norm"]) if logs.get("grad_norm") is not None else None,
            "lr": logs["learning_rate"],
            "samples_s": round(rate, 3),
            **self._tokens_s(now - self._since),
            "mfu": self._mfu(rate),
            **memory,
            "data_wait_s": round(waited - self._waited, 6),
            "optimizer_s": round(self.optimizer_time(), 6),
            **{ours: logs[theirs] for theirs, ours in self.figures.items() if logs.get(theirs) is not None},
            **self.gauges.figures(),
        }
        self._since, self._step, self._waited = now, step, waited
        self._append(record)
        held = memory.get("peak_reserved_gib", memory["host_rss_gib"])
        self.progress.update(step, loss=logs["loss"], samples_s=rate, memory_gib=held)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        figures = {name.replace("eval_", "val_", 1): value for name, value in kwargs["metrics"].items()}
        epoch = round(state.global_step / self.spec.batches.steps_per_epoch, 4)
        now = time.perf_counter()
        duration, self._evaluated = now - self._evaluated, now
        self._append({"step": state.global_step, "epoch": epoch, **figures, "duration_s": round(duration, 3)})
        own = {name.removeprefix("eval_"): value for name, value in kwargs["metrics"].items()}
        self.progress.note(f"step {state.global_step}: validation {self.say(own)}")
        self._since += figures["val_duration_s"]  # not training time

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._since, self._step = time.perf_counter(), state.global_step

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.gauges.close()
        self.tracking.end()
        self.progress.close()

    def _tokens_s(self, seconds: float) -> dict[str, float]:
        tokens = self.tokens()
        if tokens is None:
            return {}
        new, self._tokens = tokens - self._tokens, tokens
        return {"tokens_s": round(new / seconds, 3)}

    def _mfu(self, rate: float) -> float | None:
        if self.peak_flops is None or self.flops is None:
            return None
        # Recomputation is not counted: that is what MFU means.
        return round(self.flops * rate / self.spec.batches.ranks / self.peak_flops, 4)

    def _append(self, record: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        self.tracking.log(record)


def forget_after(path: Path, step: int) -> None:
    """Drop the records of steps that a resumed run will take again, and a last line that a crash tore."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if record["step"] <= step:
            kept.append(line + "\n")
    fresh = path.with_suffix(".tmp")
    fresh.write_text("".join(kept))
    fresh.replace(path)
