"""The recipe: what a user says. Everything derived from it lives in `zerofit.plan`.

Frozen, and closed to unknown keys. Each field's docstring is its description in `zerofit schema`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from zerofit.config.ranges import NO_BOOL, AboveZero, BelowOne, Count, Fraction, NonNegative, Number, Positive, Whole

STRATEGIES = ("single", "ddp", "fsdp2", "zero1", "zero2", "zero3", "zeropp")
ZERO_STAGE = {"zero1": 1, "zero2": 2, "zero3": 3, "zeropp": 3}
Tracker = Literal["trackio", "wandb", "tensorboard"]


class Section(BaseModel):
    """A part of the recipe."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )


class Rule(Section):
    """How the parameters whose whole name the pattern finds are trained. The first rule that matches decides."""

    pattern: str
    """Regular expression, searched (`re.search`) in the parameter's name, for example `^backbone\\.` or `\\.bias$`."""
    freeze: bool = False
    """True: no gradient, no optimizer state."""
    lr_scale: NonNegative = 1.0
    """Factor on the learning rate, on top of layer-wise decay."""
    weight_decay: NonNegative | None = None
    """Weight decay of these parameters; null takes `optimizer.weight_decay`."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"{value!r} is not a regular expression: {error}") from None
        return value


NO_DECAY = r"(?i)(^|[._])(bias|cls_token|mask_token|position_embeddings?)$|(^|\.)(\w*norm\w*|ln_?\w*)\.(weight|bias)$"
DEFAULT_RULES = (Rule(pattern=NO_DECAY, weight_decay=0.0), Rule(pattern=r"."))


class ModelSection(Section):
    """Fields that every image model has."""

    shape: str | dict[str, Any] | None = None
    """Name of a shape (`zerofit.plan.shapes`), or a mapping of transformers config fields; null with `pretrained`."""
    pretrained: str | None = None
    """Local directory or hub id whose weights are loaded; null builds the shape with fresh weights."""
    image_size: Count | None = None
    """Pixels per side that the model sees; null takes the pretrained model's or the data's."""
    patch_size: Count | None = None
    """Pixels per side of a patch; null takes the shape's."""
    dropout: Fraction = 0.0
    """Probability of every dropout in the model."""
    attention: Literal["auto", "eager", "sdpa", "flash"] = "auto"
    """Attention kernel; auto is sdpa."""
    trainable: tuple[Rule, ...] = Field(default=DEFAULT_RULES, min_length=1)
    """Ordered rules; a parameter that no rule covers is an error."""

    @model_validator(mode="after")
    def _one_origin(self) -> ModelSection:
        if (self.shape is None) == (self.pretrained is None):
            raise ValueError("needs exactly one of shape and pretrained")
        return self


class Vit(ModelSection):
    """Transformers' ViT with a linear head."""

    kind: Literal["vit"]
    """`vit`"""


class PatchLM(ModelSection):
    """A decoder LLM as image backbone: Conv2d patches -> transformer blocks -> pooling -> linear head."""

    kind: Literal["patch_lm"]
    """`patch_lm`"""
    pool: Literal["mean", "last", "cls"] = "mean"
    """How the patches become one vector; cls puts a learnt token at the end, which causal attention needs."""
    attention_mask: Literal["causal", "bidirectional"] = "causal"
    """Which patches a patch sees."""


Model = Annotated[Vit | PatchLM, Field(discriminator="kind")]


class Augment(Section):
    """Augmentation of training batches, on the device (kornia): a function of (seed, epoch, sample) alone."""

    crop_scale: tuple[AboveZero, AboveZero] | None = None
    """Random resized crop: range of the crop's area as fractions of the image, for example [0.5, 1.0]."""
    crop_ratio: tuple[Positive, Positive] = (0.75, 4.0 / 3.0)
    """Range of the crop's width / height."""
    flip: Fraction = 0.0
    """Probability of a horizontal flip."""
    randaugment: tuple[Count, Annotated[int, Field(ge=0, le=30), NO_BOOL]] | None = None
    """RandAugment: [number of operations, magnitude 0..30]."""
    mixup: NonNegative = 0.0
    """Alpha of mixup's Beta distribution; 0 is off."""
    cutmix: NonNegative = 0.0
    """Alpha of CutMix's Beta distribution; 0 is off. With both, each sample draws one of the two."""

    @model_validator(mode="after")
    def _ordered(self) -> Augment:
        for name in ("crop_scale", "crop_ratio"):
            pair = getattr(self, name)
            if pair is not None and pair[0] > pair[1]:
                raise ValueError(f"{name} must be [smaller, larger], not {list(pair)}")
        return self


class Data(Section):
    """Images and their classes."""

    source: Literal["digits", "folder", "cifar", "mnist", "hub"]
    """digits (embedded), folder (one per class), cifar (10/100, binary or python), mnist (idx), hub (`datasets`)."""
    path: str | None = None
    """Directory, archive, or hub id; digits takes none."""
    name: str | None = None
    """Configuration of a hub data set."""
    image_column: str | None = None
    """Hub data set's image column; null finds the one of type Image."""
    label_column: str | None = None
    """Hub data set's label column; null finds the one of type ClassLabel. CIFAR-100: `fine` (default) or `coarse`."""
    classes: Count | None = None
    """Expected number of classes; it is read from the data, and a contradiction is an error."""
    validation: BelowOne = 0.0
    """Fraction of train held out for validation where the data has no validation split; 0: the test split."""
    limit: Count | None = None
    """Use only this many training samples (drawn with `train.seed`)."""
    mean: tuple[Number, Number, Number] = (0.5, 0.5, 0.5)
    """Subtracted per channel from pixels in 0..1."""
    std: tuple[Positive, Positive, Positive] = (0.5, 0.5, 0.5)
    """Divides per channel after the mean."""
    workers: Whole = 0
    """Data loader processes per rank."""
    on_bad_item: Literal["fail", "skip"] = "fail"
    """An unreadable image stops the run with its name, or is left out (and counted)."""
    augment: Augment = Augment()
    """Augmentation of training batches."""

    @model_validator(mode="after")
    def _path(self) -> Data:
        if (self.source == "digits") != (self.path is None):
            raise ValueError(
                "digits is embedded and takes no path" if self.path is not None else f"{self.source} needs a path"
            )
        return self


class Train(Section):
    """How long, how much at once, and from which seed."""

    epochs: Positive | None = None
    """Passes over the training data. One of epochs and max_steps may be left out; the smaller one ends training."""
    max_steps: Count | None = None
    """Optimizer steps."""
    micro_batch: Count
    """Samples per rank and forward."""
    global_batch: Count
    """Samples per optimizer step = micro_batch x accumulation x ranks; accumulation follows."""
    seed: Annotated[int, Field(ge=0, lt=2**32), NO_BOOL] = 0
    """Decides weights, order of samples, and augmentation."""
    label_smoothing: BelowOne = 0.0
    """Share of the target spread over all classes."""

    @model_validator(mode="after")
    def _length(self) -> Train:
        if self.epochs is None and self.max_steps is None:
            raise ValueError("needs epochs or max_steps")
        return self


class Warmup(Section):
    """Length of the linear warm-up: exactly one field."""

    steps: Whole | None = None
    """In optimizer steps."""
    epochs: NonNegative | None = None
    """In epochs."""
    fraction: Fraction | None = None
    """As a fraction of all steps."""

    @model_validator(mode="after")
    def _one(self) -> Warmup:
        if sum(value is not None for value in (self.steps, self.epochs, self.fraction)) != 1:
            raise ValueError("needs exactly one of steps, epochs and fraction")
        return self


class Optimizer(Section):
    """The optimizer and its schedule."""

    name: Literal["adamw"] = "adamw"
    """Algorithm."""
    lr: Positive | None = None
    """Peak learning rate; exactly one of lr and blr."""
    blr: Positive | None = None
    """Base learning rate: lr = blr x global_batch / 256."""
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    """AdamW's decay rates."""
    eps: Positive = 1e-8
    """AdamW's epsilon."""
    weight_decay: NonNegative = 0.05
    """Decoupled weight decay; rules of `model.trainable` change it per parameter."""
    layer_decay: AboveZero = 1.0
    """Layer-wise learning rate decay: a block d blocks below the head gets lr x layer_decay^d (BEiT, MAE)."""
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    """What follows the warm-up; cosine and linear end at 0."""
    warmup: Warmup = Warmup(steps=0)
    """Linear warm-up from 0."""
    clip_grad: Positive | None = None
    """Largest global gradient norm; null does not clip."""

    @model_validator(mode="after")
    def _one_rate(self) -> Optimizer:
        if (self.lr is None) == (self.blr is None):
            raise ValueError("needs exactly one of lr and blr")
        return self


class Offload(Section):
    """What lives outside the GPU between uses."""

    optimizer: Literal["cpu", "nvme"] | None = None
    """Where master weights and optimizer state live."""
    params: Literal["cpu", "nvme"] | None = None
    """Where weights live."""
    pin_memory: bool = True
    """Page-locked host memory: faster copies, more host memory."""
    nvme_path: str | None = None
    """Directory on the NVMe drive; needed for nvme."""

    @model_validator(mode="after")
    def _nvme(self) -> Offload:
        if "nvme" in (self.optimizer, self.params) and self.nvme_path is None:
            raise ValueError("nvme needs nvme_path, a directory on that drive")
        return self


class Strategy(Section):
    """How the work is spread. Short forms: `zero2`, `zero2+offload_optimizer`, `zero3+offload_all`."""

    name: Literal["single", "ddp", "fsdp2", "zero1", "zero2", "zero3", "zeropp"] = "ddp"
    """Who holds what: see docs/numerics.md."""
    offload: Offload = Offload()
    """Offload of optimizer state and weights."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """auto: fp16 below compute capability 8.0, bf16 above, fp32 on CPU."""
    activation_checkpointing: Literal["none", "selective", "full"] = "none"
    """Recompute nothing, every other block, or every block in backward."""
    compile: bool = False
    """`torch.compile` the transformer blocks; not under ZeRO-3."""
    deepspeed: dict[str, Any] | str | None = None
    """DeepSpeed settings laid over the generated ones: a mapping, or the path of a JSON file. ZeRO strategies only."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return parse_strategy(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _possible(self) -> Strategy:
        where = self.offload
        if self.name in ("single", "ddp") and (where.optimizer or where.params):
            raise ValueError(f"{self.name} cannot offload: use a ZeRO strategy or fsdp2")
        if self.name == "fsdp2":
            if "nvme" in (where.optimizer, where.params):
                raise ValueError("fsdp2 cannot offload to nvme: use zero3")
            if where.optimizer and not where.params:
                raise ValueError(
                    "fsdp2 cannot offload the optimizer alone, which works on the sharded weights where they lie: "
                    "use fsdp2+offload_all, or zero2+offload_optimizer"
                )
            if where.params and not where.optimizer:
                raise ValueError("fsdp2 offloads weights and optimizer together: use fsdp2+offload_all")
        if self.name in ("zero1", "zero2") and where.params:
            raise ValueError(
                f"{self.name} keeps whole weights on every rank and cannot offload them: use zero3+offload_all"
            )
        if self.name in ("zero1", "zero2") and where.optimizer == "nvme":
            raise ValueError(f"{self.name} offloads to cpu alone: nvme needs zero3")
        if self.compile and ZERO_STAGE.get(self.name) == 3:
            raise ValueError(
                f"{self.name} gathers weights inside each block, a compiled one cannot: use zero2, fsdp2 or ddp"
            )
        if self.deepspeed is not None and self.name not in ZERO_STAGE:
            raise ValueError(f"deepspeed settings need a ZeRO strategy, not {self.name}")
        return self


def parse_strategy(text: str) -> dict[str, Any]:
    """`zero3+offload_all` -> the mapping it stands for. Raises ValueError on an unknown addition."""
    name, *additions = text.split("+")
    offload: dict[str, str] = {}
    for addition in additions:
        if addition not in ("offload_optimizer", "offload_all"):
            raise ValueError(f"unknown addition +{addition}: use +offload_optimizer or +offload_all")
        offload["optimizer"] = "cpu"
        if addition == "offload_all":
            offload["params"] = "cpu"
    return {"name": name, "offload": offload} if offload else {"name": name}


class Checkpoint(Section):
    """When checkpoints are written; one at the end always is."""

    every_steps: Count | None = None
    """Every so many optimizer steps."""
    every_epochs: Count | None = None
    """Every so many epochs."""
    keep: Count = 2
    """How many of the newest stay; of those saved at a step that was validated the best one stays besides."""

    @model_validator(mode="after")
    def _one(self) -> Checkpoint:
        return _at_most_one(self)


class Evaluate(Section):
    """When the validation split is evaluated; the test split is evaluated at the end."""

    every_steps: Count | None = None
    """Every so many optimizer steps."""
    every_epochs: Count | None = None
    """Every so many epochs."""
    micro_batch: Count | None = None
    """Samples per rank and forward; null takes train.micro_batch."""
    best_metric: Literal["top1", "top5", "loss"] = "top1"
    """Which validation figure names the best checkpoint."""

    @model_validator(mode="after")
    def _one(self) -> Evaluate:
        return _at_most_one(self)


S = TypeVar("S", "Checkpoint", "Evaluate")


def _at_most_one(section: S) -> S:
    if section.every_steps is not None and section.every_epochs is not None:
        raise ValueError("takes one of every_steps and every_epochs, not both")
    return section


class Track(Section):
    """Where figures go. metrics.jsonl is always written."""

    every: Count = 1
    """Write a line each so many optimizer steps."""
    to: tuple[Tracker, ...] = ()
    """Other trackers; none unless asked."""
    project: str = "zerofit"
    """Project name in those trackers."""


class Recipe(Section):
    """One training job."""

    name: Annotated[str, Field(pattern=r"^[^./\\][^/\\]*$")] | None = None
    """Name of the run directory under `runs/`; null takes the recipe file's."""
    description: str = ""
    """One line for `zerofit recipes`."""
    task: Literal["classify"] = "classify"
    """Kind of work."""
    model: Model
    """What is trained."""
    data: Data
    """On what."""
    train: Train
    """How long and how much at once."""
    optimizer: Optimizer
    """How it is optimized."""
    strategy: Strategy = Strategy()
    """How the work is spread over ranks."""
    checkpoint: Checkpoint = Checkpoint()
    """When it is saved."""
    evaluate: Evaluate = Evaluate()
    """When it is evaluated."""
    track: Track = Track()
    """Where its figures go."""
    run_dir: Path | None = None
    """The run directory; null makes `runs/<name>`, with a number where that exists."""
