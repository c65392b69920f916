"""The loop around every task: make a run's parts, train, and gather what result.json tells."""

from __future__ import annotations

import statistics
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback

from zerofit.checkpoint.foreign_resume import take_up
from zerofit.checkpoint.store import RunStore
from zerofit.checkpoint.takeover import take_over
from zerofit.data.loader import close
from zerofit.measure.device import peak_flops
from zerofit.measure.flops import training_flops_per_sample
from zerofit.measure.gauges import Gauges, open_card
from zerofit.measure.memory import Peak
from zerofit.measure.profile import Window
from zerofit.measure.progress import Progress
from zerofit.models.build import build_model
from zerofit.models.frozen import check_frozen, trains_a_part
from zerofit.models.trained import TrainedModel
from zerofit.plan.spec import RunSpec
from zerofit.tasks import TASKS
from zerofit.train.callbacks import First, Guard, NoEnd, Order, Profiled, Pulse, Ready, Records, Untraced
from zerofit.train.dtypes import check_dtypes
from zerofit.train.engine import DTYPES, WEIGHTS, Engine
from zerofit.train.holdings import StepWatch
from zerofit.train.job import Job, Store
from zerofit.train.pulse import PULSE, Stopped
from zerofit.train.saving import note_of
from zerofit.train.strategy import engine_for
from zerofit.train.tracking import LONG, SHORT, make_tracking
from zerofit.train.trainer import RunTrainer


class Work(ABC):
    """What a task puts into the loop."""

    @abstractmethod
    def job(self, spec: RunSpec, engine: Engine) -> Job:
        """Its data and its validation."""

    @abstractmethod
    def trainer(
        self,
        spec: RunSpec,
        engine: Engine,
        model: TrainedModel,
        job: Any,
        store: Store,
        callbacks: list[TrainerCallback],
    ) -> RunTrainer:
        """What trains the job that `job` made."""

    @abstractmethod
    def test(self, run: Prepared) -> dict[str, Any]:
        """Figures over the test split, or over the validation split where there is none. Collective."""

    @abstractmethod
    def outcome(self, run: Prepared) -> dict[str, Any]:
        """What result.json has besides, after training. Collective."""

    def flops(self, model: TrainedModel) -> float | None:
        """Of a sample's forward and backward pass; null where samples differ too much to tell."""
        return training_flops_per_sample(model)


def train(spec: RunSpec, resume: Path | None) -> dict[str, Any]:
    """Train the model, validate and save as the recipe says, then test; result.json's body. Collective.

    Raises Stopped once ranks have agreed to stop; the last step is saved.
    """
    started = time.perf_counter()
    store = RunStore(spec)
    run = prepare(spec, this_device(spec), store, resume)
    if resume is not None and run.trainer.classifier.frozen_hash is not None:
        check_frozen(resume, run.trainer.classifier.frozen_hash)
    try:
        run.trainer.train()
        store.finish()
    finally:
        close(run.job.train_loader())
        store.close()
    if PULSE.agreed:
        run.records.tracking.wait(SHORT)
        raise Stopped
    trained = time.perf_counter() - started
    best = {"step": run.trainer.state.best_global_step, "value": run.trainer.state.best_metric}
    result = {
        **({"test": run.test()} if spec.recipe.evaluate.at_end else {}),
        "steps": run.trainer.state.global_step,
        "train_s": round(trained, 3),
        "samples_s": round(statistics.median(run.records.samples_s), 3) if run.records.samples_s else None,
        **run.work.outcome(run),
        "best": best,
        "saves": store.saves,
        "tokens_per_sample": run.trainer.classifier.tokens,
        **where_memory_went(run.peak.figures(), run.watch.holds),
    }
    shared = [result]
    dist.broadcast_object_list(shared, src=0)
    run.records.tracking.wait(LONG)
    return shared[0]


@dataclass(frozen=True)
class Prepared:
    """A run whose parts are made and joined."""

    spec: RunSpec
    device: torch.device
    job: Any
    """What `Work.job` made."""
    trainer: RunTrainer
    records: Records
    peak: Peak
    watch: StepWatch
    work: Work

    def test(self) -> dict[str, Any]:
        """As `Work.test`."""
        return self.work.test(self)


def prepare(spec: RunSpec, device: torch.device, store: Store, resume: Path | None = None) -> Prepared:
    """Make this rank's engine, model, data and trainer; rank 0 alone keeps records and shows progress.

    `resume` is the checkpoint that will be loaded: whole weights are read from it, so that what `init_from` named need
    not be there any more.
    """
    work = TASKS[spec.recipe.task].work()
    peak = Peak(device)
    engine = engine_for(spec, device)
    whole = None if resume is None or trains_a_part(spec.recipe) else resume / WEIGHTS
    model = build_model(spec, engine.placement(), engine.compute_dtype, weights=whole)
    job = work.job(spec, engine)
    callbacks: list[TrainerCallback] = [Order(job, spec.batches.steps_per_epoch), Guard(), Pulse()]
    if not spec.recipe.checkpoint.at_end:
        callbacks.append(NoEnd(spec.batches.checkpoint_steps))
    trainer = work.trainer(spec, engine, model, job, store, callbacks)

    watch = StepWatch(engine)

    def ready() -> None:
        engine.verify(trainer.model_wrapped, trainer.optimizer)
        check_dtypes(engine, model, trainer.model_wrapped, trainer.optimizer)
        watch.attach(model, trainer.model_wrapped, trainer.optimizer)
        if model.frozen_hash is not None:
            engine.save_a_part(trainer.model_wrapped)
        trainer.take_writes()
        engine.begin(trainer.model_wrapped)
        if resume is not None:
            take_over(trainer, resume)
        if resume is None and spec.origin_step is not None:
            take_up(trainer)

    trainer.add_callback(Ready(ready))
    if spec.recipe.profile is not None:
        trainer.add_callback(Untraced(peak, *spec.recipe.profile.steps))
        trainer.add_callback(Profiled(Window(spec.recipe.profile, spec.run_dir / "profile", device)))
    progress = Progress(spec.batches.total_steps)
    records = Records(
        path=spec.run_dir / "metrics.jsonl",
        spec=spec,
        peak=peak,
        data_wait=lambda: trainer.data_wait_s,
        optimizer_time=watch.clock.read,
        tokens=trainer.tokens_seen,
        say=job.say,
        figures=trainer.figures,
        flops=work.flops(model),
        peak_flops=peak_flops(spec.hardware.name, DTYPES[spec.precision]),
        progress=progress,
        gauges=Gauges(open_card(device)),
        tracking=make_tracking(spec, progress.note),
    )
    if dist.get_rank() == 0:
        trainer.add_callback(records)
    if spec.recipe.evaluate.at_start:
        trainer.add_callback(First(trainer.evaluate))
    if dist.get_rank() == 0:
        note = note_of(model, spec)
        if note is not None:
            print(note, flush=True)
    return Prepared(spec, device, job, trainer, records, peak, watch, work)


def this_device(spec: RunSpec) -> torch.device:
    """The device that the launcher chose for this rank."""
    if spec.hardware.device == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def memory(figures: dict[str, float]) -> dict[str, float]:
    """Peaks as result.json promises them: on a CPU the memory that counts is the host's."""
    return {"peak_alloc_gib": figures["host_rss_gib"], **figures}


def largest(figures: dict[str, float]) -> dict[str, float]:
    """Each figure's largest value over the ranks. Collective."""
    everyone = of_all(figures)
    return {name: max(one[name] for one in everyone) for name in figures}


def of_all(figures: dict[str, float]) -> list[dict[str, float]]:
    """Every rank's. Collective."""
    everyone: list[dict[str, float]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(everyone, figures)
    return everyone


def where_memory_went(figures: dict[str, float], holds: dict[str, float]) -> dict[str, Any]:
    """Peaks, largest over the ranks; `host_gib`, all ranks' peaks of host memory together; and `holds`. Collective.

    `holds` is of the rank with the largest peak, in GiB: weights, gradients and optimizer as its engine holds them on
    the device (on a CPU, in the process), and the rest of its peak. Left out where no step was taken.
    """
    peaks = [memory(one) for one in of_all(figures)]
    held = of_all(holds)
    fullest = max(range(len(peaks)), key=lambda rank: peaks[rank]["peak_alloc_gib"])
    found: dict[str, Any] = {name: max(one[name] for one in peaks) for name in peaks[0]}
    found["host_gib"] = round(sum(one["host_rss_gib"] for one in peaks), 4)
    if held[fullest]:
        rest = max(0.0, peaks[fullest]["peak_alloc_gib"] - sum(held[fullest].values()))
        found["holds"] = {name: round(size, 6) for name, size in (*held[fullest].items(), ("rest", rest))}
    return found
