"""The recipe: what a user says. Everything derived from it lives in `zerofit.plan`.

Frozen, and closed to unknown keys. Each field's docstring is its description in `zerofit schema`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import Field, ValidationInfo, field_validator, model_validator

from zerofit.config.answering import Problems
from zerofit.config.cad import Cad
from zerofit.config.data import Data
from zerofit.config.grpo import Grpo
from zerofit.config.hardware import Limits
from zerofit.config.model import CadMllm, CausalLM, ImageModel, LanguageSection, Model
from zerofit.config.optimizer import Optimizer
from zerofit.config.probe import Probe
from zerofit.config.profile import Profile
from zerofit.config.ranges import NO_BOOL, BelowOne, Count, Positive
from zerofit.config.section import Section
from zerofit.config.shapes import Shapes
from zerofit.config.strategy import AUTO, Strategy
from zerofit.config.text import Text

LANGUAGE = ("sft", "grpo")
"""Tasks on text."""
METRICS = {
    "classify": ("top1", "top5", "loss"),
    "probe": ("top1", "top5", "loss"),
    "sft": ("loss", "token_accuracy"),
    "grpo": ("reward",),
    "cad": ("loss", "token_accuracy"),
}
"""Validation figures of each task; the first one names the best checkpoint unless the recipe says otherwise."""
KINDS = {
    "classify": ("vit", "patch_lm"),
    "probe": ("vit", "patch_lm"),
    "sft": ("causal_lm",),
    "grpo": ("causal_lm",),
    "cad": ("cad_mllm",),
}
"""Kinds of model that a task trains."""
Tracker = Literal["trackio", "wandb", "tensorboard", "mlflow"]


class Train(Section):
    """How long, how much at once, and from which seed."""

    epochs: Positive | None = None
    """Passes over the training data. One of epochs and max_steps may be left out; the smaller one ends training."""
    max_steps: Count | None = None
    """Optimizer steps."""
    micro_batch: Count | Literal["auto"] = AUTO
    """Samples per rank and forward. auto: the fastest that fits (docs/plan.md)."""
    global_batch: Count
    """Samples per optimizer step = micro_batch x accumulation x ranks; accumulation follows."""
    seed: Annotated[int, Field(ge=0, lt=2**32), NO_BOOL] = 0
    """Decides weights, order of samples, and augmentation."""
    label_smoothing: BelowOne = 0.0
    """Share of the target spread over all classes."""
    on_oom: Literal["fail", "retry"] = "fail"
    """A run whose GPU has no more memory ends, or goes on from its last checkpoint with half the micro-batch and twice
    the accumulation: the same global batch, the same numbers."""

    @model_validator(mode="after")
    def _length(self) -> Train:
        if self.epochs is None and self.max_steps is None:
            raise ValueError("needs epochs or max_steps")
        return self


class Checkpoint(Section):
    """When checkpoints are written."""

    every_steps: Count | None = None
    """Every so many optimizer steps."""
    every_epochs: Count | None = None
    """Every so many epochs."""
    at_end: bool = True
    """One is written where the run ends, at its last step or on a signal; false: those of every_* alone, and a run
    without any cannot be evaluated, exported or gone on with."""
    keep: Count = 2
    """How many of the newest stay; of those saved at a step that was validated the best one stays besides."""
    async_save: bool = True
    """Training waits for a copy to the host's memory alone, where there is room in it; false: for the drive."""

    @model_validator(mode="after")
    def _one(self) -> Checkpoint:
        return _at_most_one(self)


class Evaluate(Section):
    """When the validation split is evaluated, and whether the test split is."""

    every_steps: Count | None = None
    """Every so many optimizer steps."""
    every_epochs: Count | None = None
    """Every so many epochs."""
    at_start: bool = False
    """Evaluate the validation split before the first step, too."""
    at_end: bool = True
    """Evaluate the test split after the last step."""
    problems: Problems | None = None
    """Language tasks: what is answered after training, as `zerofit eval` does, for pass@k. Short form: `[1, 8]`."""
    shapes: Shapes | None = None
    """CAD: what is made of the test's CAD models after training, as `zerofit eval` does it; `{}` for all of them."""
    micro_batch: Count | None = None
    """Samples per rank and forward; null takes train.micro_batch."""
    best_metric: Literal["top1", "top5", "loss", "token_accuracy", "reward"] | None = None
    """Which validation figure names the best checkpoint; null: the task's own (top1, loss, reward)."""

    @model_validator(mode="after")
    def _one(self) -> Evaluate:
        return _at_most_one(self)


S = TypeVar("S", "Checkpoint", "Evaluate")


def _at_most_one(section: S) -> S:
    if section.every_steps is not None and section.every_epochs is not None:
        raise ValueError("takes one of every_steps and every_epochs, not both")
    return section


class Track(Section):
    """Where figures go. metrics.jsonl is always written. Short forms: `trackio`, `[trackio, wandb]`."""

    every: Count = 1
    """Write a line each so many optimizer steps."""
    to: tuple[Tracker, ...] = ()
    """Other trackers, which get the same names; none unless asked. One that fails is left out, and training goes on."""
    project: Annotated[str, Field(pattern=r"\S")] = "zerofit"
    """Project name in those trackers."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return parse_track(value) if isinstance(value, (str, list, tuple)) else value

    @field_validator("to")
    @classmethod
    def _once(cls, value: tuple[Tracker, ...]) -> tuple[Tracker, ...]:
        return tuple(dict.fromkeys(value))


def parse_track(short: str | list[Any] | tuple[Any, ...]) -> dict[str, Any]:
    """`trackio` or `[trackio, wandb]` -> the mapping it stands for."""
    return {"to": [short] if isinstance(short, str) else list(short)}


class Recipe(Section):
    """One training job."""

    name: Annotated[str, Field(pattern=r"^[^./\\][^/\\]*$")] | None = None
    """Name of the run directory under `runs/`; null takes the recipe file's."""
    description: str = ""
    """One line for `zerofit recipes`."""
    task: Literal["classify", "probe", "sft", "grpo", "cad"] = "classify"
    """Kind of work: fine-tune an image classifier, train a head on a frozen backbone, fine-tune a language model on
    text, let it learn from rewards of what it writes, or write CAD models that are told in text, points and images."""
    init_from: str | None = None
    """Where all weights come from, instead of `model.pretrained`'s or fresh ones: a run directory (its newest
    checkpoint; RUN@STEP: that one), a DeepSpeed checkpoint of any ZeRO stage, a .pth or safetensors file, or a Hugging
    Face directory."""
    model: Model
    """What is trained."""
    data: Annotated[Data | Text | Cad, Field(discriminator="source")]
    """On what."""
    train: Train
    """How long and how much at once."""
    optimizer: Optimizer
    """How it is optimized."""
    probe: Probe | None = None
    """The task probe's settings."""
    grpo: Grpo | None = None
    """The task grpo's settings."""
    strategy: Strategy = Strategy()
    """How the work is spread over ranks."""
    hardware: Limits = Limits()
    """What of each card may be used."""
    checkpoint: Checkpoint = Checkpoint()
    """When it is saved."""
    evaluate: Evaluate = Evaluate()
    """When it is evaluated."""
    track: Track = Track()
    """Where its figures go."""
    profile: Profile | None = None
    """Which optimizer steps every rank writes a trace of; null: none."""
    run_dir: Path | None = None
    """The run directory; null makes `runs/<name>`, with a number where that exists."""

    @model_validator(mode="before")
    @classmethod
    def _settings_of_the_task(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and raw.get("task") == "probe" and raw.get("probe") is None:
            return {**raw, "probe": {}}
        return raw

    @field_validator("model")
    @classmethod
    def _of_the_task(cls, value: Model, info: ValidationInfo) -> Model:
        task = info.data.get("task", "classify")
        if value.lora is not None and task == "probe":
            raise ValueError("lora: a probe trains a head: export the merged model and probe that")
        kinds = KINDS[task]
        if value.kind not in kinds:
            raise ValueError(f"kind {value.kind} is no model for the task {task}, which takes {' or '.join(kinds)}")
        return value

    @field_validator("data")
    @classmethod
    def _read_by_the_task(cls, value: Data | Text | Cad, info: ValidationInfo) -> Data | Text | Cad:
        task = info.data.get("task", "classify")
        wanted = Cad if task == "cad" else Text if task in LANGUAGE else Data
        if not isinstance(value, wanted):
            sources = ", ".join(get_args(wanted.model_fields["source"].annotation))
            raise ValueError(f"source {value.source} is nothing for the task {task}, which takes {sources}")
        if task == "grpo" and isinstance(value, Text):
            if value.source == "documents":
                raise ValueError("source documents has no questions for the task grpo; use rows or arithmetic")
            if value.packing:
                raise ValueError("packing: the task grpo makes its own samples; leave it out")
        return value

    @field_validator("probe", "grpo")
    @classmethod
    def _of_that_task(cls, value: Probe | Grpo | None, info: ValidationInfo) -> Probe | Grpo | None:
        task = info.data.get("task", info.field_name)
        if value is not None and task != info.field_name:
            raise ValueError(f"settings of the task {info.field_name}, and the task is {task}; leave them out")
        return value

    @model_validator(mode="after")
    def _complete(self) -> Recipe:
        if self.task == "grpo" and self.grpo is None:
            raise ValueError("the task grpo needs the section grpo, which names the rewards")
        if self.task in (*LANGUAGE, "cad") and self.train.label_smoothing:
            raise ValueError(f"train.label_smoothing: there is none in the task {self.task}; leave it out")
        for modality, field in self._without_encoder():
            raise ValueError(f"data.mix: rows with {modality} need an encoder for it: give model.{field}")
        if self.evaluate.problems is not None and self.task not in LANGUAGE:
            raise ValueError(f"evaluate.problems: the task {self.task} answers no problems; leave it out")
        if self.evaluate.shapes is not None and self.task != "cad":
            raise ValueError(f"evaluate.shapes: the task {self.task} makes none; leave it out")
        if self.evaluate.problems is not None and not self.checkpoint.at_end:
            raise ValueError(
                "evaluate.problems: they are answered by the last checkpoint; leave checkpoint.at_end true"
            )
        if self.evaluate.shapes is not None and not self.checkpoint.at_end:
            raise ValueError("evaluate.shapes: the last checkpoint makes them; leave checkpoint.at_end true")
        if self.train.micro_batch == AUTO and self.probe is not None and self.probe.batch_norm:
            raise ValueError(
                "train.micro_batch: probe.batch_norm sees micro-batches, so the numbers depend on them: give a number"
            )
        if self.quantised and self.strategy.name == "zeropp":
            raise ValueError(
                "model.quantize: zeropp rounds weights to int8 to send them, which packed ones do not survive: use "
                "zero3, zero2 or ddp"
            )
        if self.quantised and self.strategy.offload.params == "nvme":
            raise ValueError(
                "model.quantize: weights in 4 bits are packed one by one, which DeepSpeed does not do on nvme: use "
                "strategy=zero3+offload_all, which keeps them in the host's memory"
            )
        metric, known = self.evaluate.best_metric, METRICS[self.task]
        if metric is not None and metric not in known:
            raise ValueError(f"evaluate.best_metric: {metric} is no figure of the task {self.task}; {', '.join(known)}")
        return self

    def _without_encoder(self) -> list[tuple[str, str]]:
        """Of the task cad: what rows see and the model does not, with the field that would let it."""
        if self.task != "cad":
            return []
        encoders = {"points": ("points", self.cad_model.points), "image": ("vision", self.cad_model.vision)}
        shown = {modality: found for modality, found in encoders.items() if self.cad.shows(modality)}
        return [(modality, field) for modality, (field, encoder) in shown.items() if encoder is None]

    @property
    def best_metric(self) -> str:
        """The validation figure that names the best checkpoint."""
        return self.evaluate.best_metric or METRICS[self.task][0]

    @property
    def images(self) -> Data:
        """`data` of a task on images."""
        assert isinstance(self.data, Data)
        return self.data

    @property
    def quantised(self) -> bool:
        """Whether `model` holds weights in 4 bits."""
        return self.quantize is not None

    @property
    def quantize(self) -> Literal["nf4"] | None:
        """How `model` holds the weights of its blocks, where that is in 4 bits."""
        return self.model.quantize if isinstance(self.model, CausalLM) else None

    @property
    def text(self) -> Text:
        """`data` of a task on text."""
        assert isinstance(self.data, Text)
        return self.data

    @property
    def cad(self) -> Cad:
        """`data` of the task cad."""
        assert isinstance(self.data, Cad)
        return self.data

    @property
    def image_model(self) -> ImageModel:
        """`model` of a task on images."""
        assert isinstance(self.model, ImageModel)
        return self.model

    @property
    def language_model(self) -> LanguageSection:
        """`model` of a task on text, which CAD is too."""
        assert isinstance(self.model, LanguageSection)
        return self.model

    @property
    def cad_model(self) -> CadMllm:
        """`model` of the task cad."""
        assert isinstance(self.model, CadMllm)
        return self.model
