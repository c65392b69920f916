"""Training on images: the loop of `classify`, and of a probe that runs its backbone on every batch."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from zerofit.checkpoint.foreign_resume import take_up
from zerofit.checkpoint.store import RunStore
from zerofit.checkpoint.takeover import take_over
from zerofit.data.augment import Augmenter
from zerofit.data.images import IGNORED, open_split
from zerofit.data.loader import Loader, close, train_loader
from zerofit.data.order import TrainOrder
from zerofit.measure.device import peak_flops
from zerofit.measure.flops import training_flops_per_sample
from zerofit.measure.gauges import Gauges, open_card
from zerofit.measure.memory import Peak
from zerofit.measure.profile import Window
from zerofit.measure.progress import Progress
from zerofit.measure.samples import Samples
from zerofit.models.build import build_model
from zerofit.models.frozen import check_frozen, trains_a_part
from zerofit.plan.spec import RunSpec
from zerofit.tasks import shown
from zerofit.tasks.counting import count
from zerofit.train.callbacks import Guard, NoEnd, Order, Profiled, Pulse, Ready, Records, Untraced
from zerofit.train.engine import DTYPES, WEIGHTS
from zerofit.train.holdings import StepWatch
from zerofit.train.job import Store
from zerofit.train.pulse import PULSE, Stopped
from zerofit.train.saving import note_of
from zerofit.train.strategy import engine_for
from zerofit.train.tracking import LONG, SHORT, make_tracking
from zerofit.train.trainer import RunTrainer


def classification_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over the samples that count.

    logits [B, C] float32; targets int64 [B] (-100: does not count) or float32 [B, C] (a row of zeros: does not count).
    """
    if targets.is_floating_point():
        total, valid = F.cross_entropy(logits, targets, reduction="sum"), targets.sum(dim=1) > 0
    else:
        total = F.cross_entropy(logits, targets, reduction="sum", ignore_index=IGNORED)
        valid = targets != IGNORED
    return total / valid.sum().clamp(min=1)


class ImageJob:
    """The training and validation data of one rank, and the loss."""

    def __init__(self, spec: RunSpec, device: torch.device) -> None:
        data, seed = spec.recipe.images, spec.recipe.train.seed
        self.spec, self.device = spec, device
        mixing = data.augment.mixup > 0 or data.augment.cutmix > 0
        images = open_split(data, spec.images, "train", seed)
        self.order = TrainOrder(spec.images.train, spec.batches, seed, dist.get_rank())
        self.loader = train_loader(
            images, self.order, workers=data.workers, partners=mixing, pin_memory=device.type == "cuda"
        )
        self.augment = Augmenter(
            data.augment,
            image_size=spec.images.image_size,
            classes=len(spec.images.classes),
            seed=seed,
            mean=data.mean,
            std=data.std,
            label_smoothing=spec.recipe.train.label_smoothing,
        )
        self.bad_items = torch.zeros((), dtype=torch.int64, device=device)

    def train_loader(self) -> Loader:
        """This rank's micro-batches of an epoch."""
        return self.loader

    def seek(self, step: int) -> None:
        """Make the next pass over the loader begin after `step` optimizer steps of the run."""
        self.order.seek(*divmod(step, self.spec.batches.steps_per_epoch))

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Mean loss of a micro-batch, augmented here."""
        self.bad_items += (batch["labels"] == IGNORED).sum()
        pixels, targets = self.augment(batch)
        return classification_loss(model(pixels), targets)

    def validate(self, model: nn.Module) -> dict[str, float]:
        """loss, top1 and top5 over the validation split. Collective."""
        data, seed = self.spec.recipe.images, self.spec.recipe.train.seed
        images = open_split(data, self.spec.images, "validation", seed)
        figures = count(model, self.spec, data, images, self.device)
        return {name: figures[name] for name in ("loss", "top1", "top5")}


def train_online(spec: RunSpec, resume: Path | None) -> dict[str, Any]:
    """Train the model on images, validate and save as the recipe says, then test; result.json's body. Collective.

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
        close(run.job.loader)
        store.close()
    if PULSE.agreed:
        run.records.tracking.wait(SHORT)
        raise Stopped
    trained = time.perf_counter() - started
    dist.all_reduce(run.job.bad_items)
    best = {"step": run.trainer.state.best_global_step, "value": run.trainer.state.best_metric}
    result = {
        **({"test": run.test()} if spec.recipe.evaluate.at_end else {}),
        "steps": run.trainer.state.global_step,
        "train_s": round(trained, 3),
        "samples_s": round(statistics.median(run.records.samples_s), 3) if run.records.samples_s else None,
        "bad_items": int(run.job.bad_items),
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
    job: ImageJob
    trainer: RunTrainer
    records: Records
    peak: Peak
    watch: StepWatch

    def test(self) -> dict[str, Any]:
        """Figures over the test split, or over the validation split where there is none; test.json. Collective."""
        spec, model = self.spec, self.trainer.model_wrapped
        split: Literal["test", "validation"] = "test" if spec.images.test else "validation"
        images = open_split(spec.recipe.images, spec.images, split, spec.recipe.train.seed)
        model.eval()
        samples = Samples(len(spec.images.classes), spec.recipe.train.seed, self.device)
        figures = {"split": split, **count(model, spec, spec.recipe.images, images, self.device, samples)}
        shown.write(spec, images, figures, samples.chosen())
        return figures


def prepare(spec: RunSpec, device: torch.device, store: Store, resume: Path | None = None) -> Prepared:
    """Make this rank's engine, model, data and trainer; rank 0 alone keeps records and shows progress.

    `resume` is the checkpoint that will be loaded: whole weights are read from it, so that what `init_from` named need
    not be there any more.
    """
    peak = Peak(device)
    engine = engine_for(spec, device)
    whole = None if resume is None or trains_a_part(spec.recipe) else resume / WEIGHTS
    model = build_model(spec, engine.placement(), engine.compute_dtype, weights=whole)
    job = ImageJob(spec, device)
    callbacks = [Order(job, spec.batches.steps_per_epoch), Guard(), Pulse()]
    if not spec.recipe.checkpoint.at_end:
        callbacks.append(NoEnd(spec.batches.checkpoint_steps))
    trainer = RunTrainer(spec, engine, model, job, store, callbacks)

    watch = StepWatch(engine)

    def ready() -> None:
        engine.verify(trainer.model_wrapped, trainer.optimizer)
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
        flops=training_flops_per_sample(model),
        peak_flops=peak_flops(spec.hardware.name, DTYPES[spec.precision]),
        progress=progress,
        gauges=Gauges(open_card(device)),
        tracking=make_tracking(spec, progress.note),
    )
    if dist.get_rank() == 0:
        trainer.add_callback(records)
        note = note_of(model, spec)
        if note is not None:
            print(note, flush=True)
    return Prepared(spec, device, job, trainer, records, peak, watch)


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
