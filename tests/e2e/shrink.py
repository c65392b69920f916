"""A shipped recipe made small enough for two CPU cores: sizes change, and nothing that decides which code runs.

Models keep their family and the way they are loaded, data their layout on disk and number of classes.
"""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zerofit.config.changes import changed_fields
from zerofit.config.data import Data
from zerofit.config.model import CadMllm
from zerofit.config.schema import Recipe
from zerofit.config.stages import Job
from zerofit.data.arithmetic import problem
from zerofit.data.byte_tokenizer import byte_tokenizer
from zerofit.plan.auto import micro_by_rule
from zerofit.plan.batch import make_batches
from zerofit.plan.deepspeed import make_deepspeed
from zerofit.plan.shapes import ENCODERS, SHAPES
from zerofit.plan.spec import RunSpec
from zerofit.plan.strategy import resolve_strategy

STEPS = 3
CHANGED = {
    "model.pretrained",
    "model.shape",
    "data.path",
    "data.workers",
    "data.problems",
    "data.test_problems",
    "data.parts",
    "data.test_parts",
    "model.points.width",
    "model.points.depth",
    "model.vision.pretrained",
    "data.limit",
    "grpo.sampling.max_tokens",
    "grpo.rollout.batch",
    "evaluate.problems.max_tokens",
    "evaluate.problems.data",
    "evaluate.problems.limit",
    "train.max_steps",
    "train.micro_batch",
    "train.global_batch",
    "optimizer.warmup.epochs",
}
"""The fields of a recipe that shrinking may change. It gives the model's own sizes under `model.shape`."""
SIZES = {
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "zero_optimization.reduce_bucket_size",
    "zero_optimization.stage3_max_live_parameters",
    "zero_optimization.stage3_prefetch_bucket_size",
    "zero_optimization.stage3_param_persistence_threshold",
}
"""The same for what DeepSpeed is given."""
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 272,
}
PRETRAINED = {
    "facebook/dinov2-large": "dinov2-large",
    "Qwen/Qwen3-8B": "qwen3-8b",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": "deepseek-r1-distill-qwen-7b",
    "google/vit-base-patch16-224-in21k": "vit-base",
    "google/vit-huge-patch14-224-in21k": "vit-huge",
}


def shrunk_job(job: Job, directory: Path) -> list[str]:
    """Overrides that make a job small: those of its first stage, and what the others have besides."""
    overrides = shrunk(job.stages[0], directory)
    for number, stage in enumerate(job.stages):
        above = f"stages.{number}." if job.staged else ""
        if number and stage.data.path is not None and stage.data.path != job.stages[0].data.path:
            overrides.append(f"{above}data.path={DATA[Path(stage.data.path).name](directory / stage.data.path)}")
        if stage.evaluate.problems is not None:
            overrides.append(f"{above}evaluate.problems.max_tokens=8")
            if stage.evaluate.problems.data is not None:
                asked = questions(directory / stage.evaluate.problems.data)
                overrides += [f"{above}evaluate.problems.data={asked}", f"{above}evaluate.problems.limit=4"]
        if stage.grpo is not None:
            overrides += [f"{above}grpo.sampling.max_tokens=8", f"{above}grpo.rollout.batch=4"]
    return overrides


def shrunk(recipe: Recipe, directory: Path) -> list[str]:
    """Overrides that make `recipe` small, with the files that they need, written under `directory`."""
    said = recipe.train.micro_batch
    micro = 4 if said == "auto" else min(said, 4)
    accumulated = said != "auto" and recipe.train.global_batch > 2 * said  # on two ranks
    overrides = [
        f"train.max_steps={STEPS}",
        f"train.micro_batch={said if said == 'auto' else micro}",
        f"train.global_batch={micro * (4 if accumulated else 2)}",
    ]
    if recipe.model.pretrained is not None:
        overrides.append(f"model.pretrained={pretrained(recipe.model.pretrained, directory)}")
    elif recipe.model.shape == "qwen3-8b":
        overrides.append(f"model.shape={json.dumps(small('qwen3-8b'))}")
    overrides += seen(recipe, directory)
    if recipe.optimizer.warmup.epochs is not None:
        overrides.append("optimizer.warmup.epochs=0.1")
    if recipe.data.path is not None:
        write = DATA[Path(recipe.data.path).name]
        overrides.append(f"data.path={write(directory / recipe.data.path)}")
    if isinstance(recipe.data, Data) and recipe.data.path is not None:
        overrides.append(f"data.workers={min(recipe.data.workers, 1)}")
    if recipe.data.source == "arithmetic":
        overrides += ["data.problems=64", "data.test_problems=8"]
    if recipe.data.source == "parts":
        overrides += ["data.parts=48", "data.test_parts=8"]
    if recipe.data.source == "documents":
        overrides.append("data.limit=40")
    return overrides


def seen(recipe: Recipe, directory: Path) -> list[str]:
    """Overrides for the encoders of a CAD-MLLM."""
    if not isinstance(recipe.model, CadMllm):
        return []
    vision, overrides = recipe.model.vision, []
    if recipe.model.points is not None:
        overrides += ["model.points.width=24", "model.points.depth=1"]
    if vision is not None and vision.pretrained is not None:
        overrides.append(f"model.vision.pretrained={pretrained(vision.pretrained, directory)}")
    return overrides


def small(shape: str) -> dict[str, Any]:
    """Config fields of a known shape with small sizes, and all else its own."""
    whole = {**SHAPES, **ENCODERS}[shape]
    return {**whole, **{name: size for name, size in SMALL.items() if name in whole}}


def pretrained(name: str, directory: Path) -> Path:
    """A directory as the hub would give for `name`, with a small model of the same family."""
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    path = directory / name
    config = AutoConfig.for_model(**small(PRETRAINED[name]))
    encoder = config.model_type in ("vit", "dinov2")
    model = (AutoModel if encoder else AutoModelForCausalLM).from_config(config)
    model.save_pretrained(path)
    if not encoder:
        byte_tokenizer().save_pretrained(path)
    return path


def differences(shipped: Recipe, ran: Recipe) -> set[str]:
    """The fields in which a run's recipe is not the shipped one; a model's sizes are one field, and the sizes alone."""
    fields = {line.split(":")[0] for line in changed_fields(shipped, ran)}
    if isinstance(shipped.model.shape, str) and isinstance(ran.model.shape, dict):
        assert ran.model.shape == small(shipped.model.shape)
        fields = {"model.shape" if field.startswith("model.shape.") else field for field in fields}
    return fields


def deepspeed_differences(shipped: Recipe, spec: RunSpec) -> set[str]:
    """Where DeepSpeed's settings in a run are not what the shipped recipe gives on the same ranks and machine."""
    enough = spec.data.model_copy(update={"train": 1_000_000})
    ranks = spec.batches.ranks
    batches = make_batches(shipped, enough, ranks, micro_by_rule(shipped, enough, ranks))
    wanted = make_deepspeed(shipped, resolve_strategy(shipped), batches, spec.precision, spec.hardware)
    found, expected = dict(_flat(spec.deepspeed or {})), dict(_flat(wanted or {}))
    return {name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)}


def _flat(node: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield above + key, value


# --- data, a few images a class, in the layout of each download


def cifar100(path: Path) -> Path:
    """cifar-100-python.tar.gz, an image a class in train and in test."""
    labels = list(range(100))
    batch = {"data": levels(labels), "fine_labels": labels, "coarse_labels": [label // 5 for label in labels]}
    names = {
        "fine_label_names": [f"fine {i}" for i in labels],
        "coarse_label_names": [f"coarse {i}" for i in range(20)],
    }
    return tarball(path, "cifar-100-python", {"train": batch, "test": batch, "meta": names})


def cifar10(path: Path) -> Path:
    """cifar-10-python.tar.gz, an image a class in each batch."""
    labels = list(range(10))
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    batches = {name: {"data": levels(labels), "labels": labels} for name in names}
    meta = {"label_names": [f"class {i}" for i in labels]}
    return tarball(path, "cifar-10-batches-py", {**batches, "batches.meta": meta})


def levels(labels: list[int]) -> np.ndarray:
    """Noise [n, 3072] whose mean tells the label."""
    noise = np.random.default_rng(0).integers(0, 50, (len(labels), 3072))
    return (noise + 2 * np.array(labels)[:, None]).astype(np.uint8)


def tarball(path: Path, folder: str, files: dict[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, value in files.items():
            content = pickle.dumps(value, protocol=2)
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def image_folder(path: Path) -> Path:
    """train/<class>/*.png and test/<class>/*.png, 32 px, ten classes."""
    for split, count in (("train", 4), ("test", 2)):
        for label in range(10):
            for index in range(count):
                picture(path / split / f"class{label}" / f"{index}.png", 32, 20 * label + index)
    return path


def food101(path: Path) -> Path:
    """food-101/ as unpacked, an image a class in train and in test."""
    names = [f"dish_{label:03d}" for label in range(101)]
    images = {"train": [f"{name}/{1000 + i}" for i, name in enumerate(names)]}
    images["test"] = [f"{name}/{2000 + i}" for i, name in enumerate(names)]
    (path / "meta").mkdir(parents=True)
    for file, lines in {"classes": names, **images}.items():
        (path / "meta" / f"{file}.txt").write_text("\n".join(lines) + "\n")
    for number, image in enumerate(images["train"] + images["test"]):
        picture(path / "images" / f"{image}.jpg", 40, number)
    return path


def tiny_imagenet(path: Path) -> Path:
    """tiny-imagenet-200/ as unpacked: validation labels in one file, test without any."""
    wnids = [f"n{label:08d}" for label in range(200)]
    for number, wnid in enumerate(wnids):
        picture(path / "train" / wnid / "images" / f"{wnid}_0.JPEG", 64, number)
        (path / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t63\t63\n")
        picture(path / "val" / "images" / f"val_{number}.JPEG", 64, number)
    picture(path / "test" / "images" / "test_0.JPEG", 64, 0)
    annotations = [f"val_{number}.JPEG\t{wnid}\t0\t0\t63\t63\n" for number, wnid in enumerate(wnids)]
    (path / "val" / "val_annotations.txt").write_text("".join(annotations))
    (path / "wnids.txt").write_text("\n".join(reversed(wnids)) + "\n")
    (path / "words.txt").write_text("".join(f"{wnid}\tthing\n" for wnid in wnids))
    return path


def picture(path: Path, size: int, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (number % 256, 3 * number % 256, 90)).save(path)


def questions(path: Path) -> Path:
    """A file of questions with answers, and the reasoning that leads there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    problems = [problem(0, index) for index in range(500)]
    lines = [{"question": one.question, "answer": f"{one.completion}\n#### {one.answer}"} for one in problems]
    path.with_suffix(".jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path.with_suffix(".jsonl")


def stories(path: Path) -> Path:
    """A file of plain texts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [{"text": " ".join([problem(1, index).question] * 8)} for index in range(40)]
    path.with_suffix(".jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    return path.with_suffix(".jsonl")


def omni_cad(path: Path) -> Path:
    """json/<shard>/<id>.json and txt/<shard>.json: blocks of forty heights, without clouds and images."""
    captions = []
    for number in range(40):
        name, height = f"{number:08d}_00001", (number + 1) / 40
        (path / "json" / "0000").mkdir(parents=True, exist_ok=True)
        (path / "json" / "0000" / f"{name}.json").write_text(json.dumps(block(height)))
        captions.append({"id": f"0000/{name}", "text caption": f"A block, {height} high."})
    (path / "txt").mkdir()
    (path / "txt" / "0000.json").write_text(json.dumps(captions))
    return path


def block(height: float) -> dict[str, Any]:
    """DeepCAD's document of a block on the unit square."""

    def place(x: float, y: float, z: float) -> dict[str, float]:
        return {"x": x, "y": y, "z": z}

    corners = [place(0, 0, 0), place(1, 0, 0), place(1, 1, 0), place(0, 1, 0)]
    edges = [
        {"type": "Line3D", "start_point": one, "end_point": other}
        for one, other in zip(corners, corners[1:] + corners[:1], strict=True)
    ]
    axes = {"x_axis": place(1, 0, 0), "y_axis": place(0, 1, 0), "z_axis": place(0, 0, 1)}
    sketch = {
        "type": "Sketch",
        "transform": {"origin": place(0, 0, 0), **axes},
        "profiles": {"P": {"loops": [{"is_outer": True, "profile_curves": edges}]}},
    }
    none = {"distance": {"value": 0.0}, "taper_angle": {"value": 0.0}}
    extrusion = {
        "type": "ExtrudeFeature",
        "profiles": [{"sketch": "S", "profile": "P"}],
        "operation": "NewBodyFeatureOperation",
        "start_extent": {"type": "ProfilePlaneStartDefinition"},
        "extent_type": "OneSideFeatureExtentType",
        "extent_one": {**none, "distance": {"value": height}},
        "extent_two": none,
    }
    return {
        "entities": {"S": sketch, "E": extrusion},
        "sequence": [
            {"index": 0, "type": "Sketch", "entity": "S"},
            {"index": 1, "type": "ExtrudeFeature", "entity": "E"},
        ],
        "properties": {"bounding_box": {"min_point": place(0, 0, 0), "max_point": place(1, 1, height)}},
    }


DATA: dict[str, Callable[[Path], Path]] = {
    "cifar-100-python.tar.gz": cifar100,
    "cifar-10-python.tar.gz": cifar10,
    "cifar10": image_folder,
    "food-101": food101,
    "tiny-imagenet-200": tiny_imagenet,
    "reasoning": questions,
    "gsm8k": questions,
    "TinyStories": stories,
    "Omni-CAD": omni_cad,
}
"""What lies at a recipe's data.path, by its last part."""
