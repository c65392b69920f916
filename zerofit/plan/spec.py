"""RunSpec: everything a worker needs, resolved. Written to run.json, which alone starts a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from zerofit.config.schema import Recipe
from zerofit.config.section import Section
from zerofit.config.strategy import AUTO, Strategy, StrategyName
from zerofit.plan.choice import Choice
from zerofit.plan.prediction import Prediction


class ImageFacts(Section):
    """What a set of images was found to hold."""

    classes: tuple[str, ...]
    """Class names, in label order."""
    train: int
    """Training samples."""
    validation: int
    """Validation samples."""
    test: int
    """Test samples; 0 where the data has none."""
    validation_from: Literal["split", "train", "test"]
    """Where the validation samples come from: a split of their own, held out of train, or the test split itself."""
    image_size: int
    """Pixels per side that batches have: the recipe's, or the first training image's longer side."""


class TextFacts(Section):
    """What text was found to hold once it was cut into samples."""

    train: int
    """Training samples: rows, or packs of them; prompts for the task grpo."""
    validation: int
    """Validation samples."""
    test: int
    """Test samples; 0 where there are none."""
    validation_from: Literal["split", "train", "test"]
    """Where the validation samples come from: rows of their own, held out of train, or the test rows."""
    rows: int
    """Training rows in those samples."""
    tokens: int
    """Tokens of the training samples, without padding."""
    targets: int
    """Of these, tokens that are learnt."""
    longest: int
    """Tokens of the longest sample of any split."""
    left_out: int
    """Training rows that are not in: too long, or nothing in them to learn."""
    vocabulary: int
    """Rows that the embedding needs: the tokenizer's highest id and one."""
    pad: int
    """Token id that fills samples up."""
    stops: tuple[int, ...]
    """Token ids that end a completion."""
    samples: Path
    """Directory where the samples lie (data/samples.py), absolute."""


class CadFacts(TextFacts):
    """What CAD models, and what is told of them, were found to hold; tokens count those of clouds and images, too."""

    clouds: float
    """Share of the training samples that show a point cloud; 0 where none does."""
    images: float
    """Images that a training sample shows, on average; 0 where none does."""
    points: int | None
    """Points of a cloud, each with its position and its unit normal; null: none is shown."""
    image_size: int | None
    """Pixels per side of an image; null: none is shown."""
    clouds_in: Path | None = None
    """Directory of the clouds (data/cad_clouds.py), absolute; null: none is shown."""
    views_in: Path | None = None
    """Directory of the images (data/cad_views.py), absolute; null: none is shown."""


class Hardware(Section):
    """What the run was planned for."""

    device: Literal["cpu", "cuda"]
    """Kind of device."""
    count: int
    """Devices that this machine lets us use (1 for cpu)."""
    name: str
    """Name of the device."""
    memory_gib: float
    """Memory of one device (host memory for cpu)."""
    capability: tuple[int, int] | None
    """CUDA compute capability; null for cpu."""
    cpus: int
    """CPU cores of the host."""


class Batches(Section):
    """Sizes and lengths, in samples and optimizer steps."""

    ranks: int
    """World size (data-parallel ranks)."""
    micro: int
    """Samples per rank and forward."""
    accumulation: int
    """Forwards per optimizer step."""
    global_batch: int
    """micro x accumulation x ranks."""
    evaluate_micro: int
    """Samples per rank and forward in evaluation."""
    steps_per_epoch: int
    """Optimizer steps in one pass; the remainder of the data is left out, another one each epoch."""
    total_steps: int
    """Optimizer steps of the run."""
    warmup_steps: int
    """Of these, warm-up."""
    checkpoint_steps: int | None
    """Write a checkpoint every so many steps; null: at the end alone (`checkpoint.at_end`)."""
    evaluate_steps: int | None
    """Validate every so many steps; null: never (the test split is evaluated at the end: `evaluate.at_end`)."""


class GrpoSizes(Section):
    """What a generation of the task grpo is, over all ranks; micro-batches and global batches count completions."""

    completions: int
    """Completions of a generation = micro x ranks x steps_per_generation."""
    prompts: int
    """Prompts of a generation = completions / num_generations."""
    num_generations: int
    """Completions of a prompt."""
    steps_per_generation: int
    """Micro-batches that a generation is cut into, on each rank."""
    generations_per_step: int
    """Generations of an optimizer step."""
    num_iterations: int
    """Passes over a generation."""
    num_generations_eval: int
    """Completions of a prompt in evaluation."""
    evaluate_prompts: int
    """Prompts that evaluation asks at once = evaluate_micro x ranks / num_generations_eval."""
    length: int
    """Tokens of the longest prompt and a completion of `max_tokens`."""


class NamedStrategy(Strategy):
    """A strategy whose files have been read, which say nothing more, and that is chosen where the recipe says auto."""

    name: StrategyName
    """Who holds what."""
    activation_checkpointing: Literal["none", "selective", "full"]
    """Recompute nothing, every other block, or every block in backward."""


def named(strategy: Strategy, **fields: Any) -> NamedStrategy:
    """A strategy that says all by itself, with other `fields`; activation checkpointing that nobody chose is none."""
    said = strategy.model_dump() | fields
    if said["activation_checkpointing"] == AUTO:
        said["activation_checkpointing"] = "none"
    return NamedStrategy.model_validate(said)


class RunSpec(Section):
    """The resolved run."""

    version: Literal[1] = 1
    """Version of this format."""
    recipe: Recipe
    """What the user said, overrides included."""
    strategy: NamedStrategy = Field(default_factory=lambda run: named(run["recipe"].strategy))
    """The recipe's, what the file that it names says, or what was chosen."""
    run_dir: Path
    """Absolute path of the run directory."""
    data: ImageFacts | TextFacts | CadFacts
    """What the data was found to hold."""
    hardware: Hardware
    """What the run was planned for."""
    batches: Batches
    """Sizes and lengths."""
    grpo: GrpoSizes | None = None
    """Sizes of generations; null for tasks without any."""
    rollout_engine: Literal["graph", "hf", "vllm"] | None = None
    """What completions come from; null for tasks without any."""
    lr: float
    """Peak learning rate."""
    precision: Literal["bf16", "fp16", "fp32"]
    """Compute precision."""
    shape: dict[str, Any] | None
    """The model's transformers config fields; null for a pretrained model."""
    origin: Path | None = None
    """Where weights are read from: a checkpoint's directory or a file, absolute (`init_from`, resolved); null: from
    `model.pretrained`, or fresh."""
    origin_step: int | None = None
    """The step at which the run goes on from `origin`, a DeepSpeed checkpoint of another program, with its optimizer
    (`--resume DIR`); null: a new training."""
    trust: bool = False
    """Whether pickles in `origin` may be read that need more than tensors and plain values (`--trust`)."""
    deepspeed: dict[str, Any] | None
    """Exactly what DeepSpeed is given; null for other engines."""
    prediction: Prediction | None = None
    """What memory and time were expected when the run was planned; null: none could be made, as on a CPU."""
    choice: Choice | None = None
    """What was chosen of what the recipe leaves to the planner, and out of what; null: it leaves nothing."""
    versions: dict[str, str]
    """Versions of python, zerofit and the libraries whose numbers matter."""
    git: str | None
    """Revision of the working directory's repository, with `+changes` where it has any."""

    @property
    def images(self) -> ImageFacts:
        """`data` of a task on images."""
        assert isinstance(self.data, ImageFacts)
        return self.data

    @property
    def quantised(self) -> bool:
        """Whether the linear layers of the blocks are held in 4 bits."""
        return self.recipe.quantised

    @property
    def text(self) -> TextFacts:
        """`data` of a task on text, which CAD is too."""
        assert isinstance(self.data, TextFacts)
        return self.data

    @property
    def cad(self) -> CadFacts:
        """`data` of the task cad."""
        assert isinstance(self.data, CadFacts)
        return self.data


def origin_of(spec: RunSpec) -> str:
    """Where a run's weights came from, in words."""
    if spec.origin is not None:
        return str(spec.origin)
    return spec.recipe.model.pretrained or f"fresh weights of seed {spec.recipe.train.seed}"
