"""Predicted against measured peak memory and step time, a configuration a line.

    python bench/plan_accuracy.py predict --gpu h200 --gpus 1 --file docs/plan-accuracy.jsonl      # needs no GPU
    python bench/plan_accuracy.py measure --gpus 1 --file docs/plan-accuracy.jsonl --together 4    # on the GPUs

`predict` adds a line for each configuration that has none; `measure` fills in what runs reach, and never changes a
prediction: predictions are committed before. Random weights of exact shapes; images and texts are noise made here.
`--together N` runs so many at once on each set of GPUs: memory is each process's own, times are then left out.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QWEN = "model.pretrained=null", "data.classes=null", "data.source=folder", "data.path=DATA/images"
SFT = "model.pretrained=null", "model.tokenizer=bytes", "model.chat_template=chatml", "data.path=DATA/train.jsonl"
ALWAYS = (
    "train.epochs=null",
    "train.max_steps=4",
    "optimizer.warmup={fraction: 0.1}",
    "checkpoint.at_end=false",
    "evaluate.at_end=false",
)
NEVER = ("checkpoint.every_steps=null", "evaluate.every_steps=null")
ZERO_AND_OTHERS = ("ddp", "zero1", "zero2", "zero3", "fsdp2")


@dataclass(frozen=True)
class Case:
    """A recipe with fields changed, under each of some strategies."""

    name: str
    recipe: str
    fields: tuple[str, ...]
    micro_batch: int
    accumulation: int = 1
    strategies: tuple[str, ...] = ZERO_AND_OTHERS


CASES = (
    Case("classify-1.7b", "qwen3-8b-cifar10", (*QWEN, "model.shape=qwen3-1.7b"), 64),
    Case("classify-1.7b-accumulated", "qwen3-8b-cifar10", (*QWEN, "model.shape=qwen3-1.7b"), 32, 2, ("ddp", "zero2")),
    Case("classify-8b", "qwen3-8b-cifar10", (*QWEN, "model.shape=qwen3-8b"), 16, 1, ("zero2+offload_optimizer",)),
    Case("vit-huge", "vit-huge-food101", (*QWEN, "model.shape=vit-huge", "data.workers=1"), 32),
    Case("vit-base", "vit-huge-food101", (*QWEN, "model.shape=vit-base", "data.workers=1"), 128, 1, ("ddp", "zero2")),
    Case(
        "sft-1.7b",
        "qwen3-8b-sft",
        (*SFT, "model.shape=qwen3-1.7b", "data.max_length=2048", "strategy.activation_checkpointing=none"),
        4,
        1,
        (*ZERO_AND_OTHERS, "zero2+offload_optimizer", "zero3+offload_all", "fsdp2+offload_all"),
    ),
    Case("sft-1.7b-8192", "qwen3-8b-sft", (*SFT, "model.shape=qwen3-1.7b"), 1, 2, ("zero2", "zero3", "fsdp2")),
    Case(
        "lora-8b",
        "qwen3-8b-sft",
        (*SFT, "model.shape=qwen3-8b", "model.lora={rank: 16, alpha: 32}", "data.max_length=2048"),
        2,
        1,
        ("ddp", "zero2", "zero3", "fsdp2"),
    ),
    Case(
        "qlora-7b",
        "deepseek-r1-7b-sft",
        (*SFT, "model.shape=deepseek-r1-distill-qwen-7b", "hardware.memory_cap=11GiB", "strategy.precision=fp16"),
        1,
        4,
        ("ddp", "zero2"),
    ),
)


def words(case: Case, strategy: str, gpus: int, data: Path) -> list[str]:
    """What `zerofit plan` and `zerofit train` are given."""
    name = "single" if strategy == "ddp" and gpus == 1 else strategy
    size = case.micro_batch * case.accumulation * gpus
    fields = [*ALWAYS, *NEVER, *case.fields, f"train.micro_batch={case.micro_batch}", f"train.global_batch={size}"]
    whole = name.partition("+")
    offload = {"": "{}", "offload_optimizer": "{optimizer: cpu}", "offload_all": "{optimizer: cpu, params: cpu}"}
    fields += [f"strategy.name={whole[0]}", f"strategy.offload={offload[whole[2]]}"]
    if "DATA/images" not in " ".join(case.fields):
        fields.append("data.validation=0")
        fields.append("data.validation_path=DATA/train.jsonl")
    return [case.recipe, *(field.replace("DATA", str(data)) for field in fields)]


def configurations(gpus: int, data: Path) -> Iterator[tuple[str, list[str]]]:
    """(name, words) of each."""
    for case in CASES:
        for strategy in case.strategies:
            yield f"{case.name}/{strategy}/{gpus}", words(case, strategy, gpus, data)


def make_data(root: Path) -> None:
    """Noise: 512 images of ten classes, and 256 rows of text that fill 2,048 and 8,192 bytes."""
    import numpy as np
    from PIL import Image

    if root.exists():
        return
    drawn = np.random.default_rng(0)
    for split, count in (("train", 512), ("test", 20)):
        for number in range(count):
            directory = root / "images" / split / f"class-{number % 10}"
            directory.mkdir(parents=True, exist_ok=True)
            pixels = drawn.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(directory / f"{number}.png")
    random.seed(0)
    letters = "abcdefghij klmnop "
    with (root / "train.jsonl").open("w") as file:
        for number in range(512):
            said = "".join(random.choices(letters, k=1850))
            turns = [{"role": "user", "content": f"row {number}"}, {"role": "assistant", "content": said}]
            file.write(json.dumps({"messages": turns}) + "\n")


def read(file: Path) -> dict[str, dict[str, Any]]:
    """The lines of the file, by configuration."""
    if not file.exists():
        return {}
    return {row["configuration"]: row for row in map(json.loads, file.read_text().splitlines())}


def write(file: Path, rows: dict[str, dict[str, Any]]) -> None:
    """All of them, whole or not at all."""
    beside = file.with_suffix(".new")
    beside.write_text("".join(json.dumps(row) + "\n" for row in rows.values()))
    beside.replace(file)


def predict(options: argparse.Namespace) -> None:
    """A line for each configuration without one."""
    rows = read(options.file)
    asked = ["--gpu", options.gpu, "--gpus", str(options.gpus), "--json"]
    for name, given in configurations(options.gpus, options.data):
        if name in rows:
            continue
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "zerofit", "plan", *given, *asked], capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(json.dumps({"configuration": name, "error": done.stderr.strip()[-300:]}), flush=True)
            continue
        rows[name] = {"configuration": name, **predicted(json.loads(done.stdout)), "plan_s": time.monotonic() - began}
        print(json.dumps(rows[name]), flush=True)
        write(options.file, rows)


def predicted(answer: dict[str, Any]) -> dict[str, Any]:
    """Of what `zerofit plan --json` prints."""
    raise NotImplementedError


def measure(options: argparse.Namespace) -> None:
    """What each configuration reaches that has no measurement yet."""
    rows, waiting = read(options.file), list(configurations(options.gpus, options.data))
    waiting = [(name, given) for name, given in waiting if rows.get(name, {}).get("measured_gib") is None]
    running: list[tuple[str, Path, subprocess.Popen[bytes]]] = []
    end = time.monotonic() + options.limit
    while (waiting or running) and time.monotonic() < end:
        while waiting and len(running) < options.together:
            name, given = waiting.pop(0)
            run = options.out / name.replace("/", "-")
            shutil.rmtree(run, ignore_errors=True)
            command = [sys.executable, "-m", "zerofit", "train", *given, f"run_dir={run}", "--nproc", str(options.gpus)]
            log = (options.out / f"{run.name}.log").open("wb")
            running.append((name, run, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)))
        for one in [one for one in running if one[2].poll() is not None]:
            running.remove(one)
            name, run, process = one
            if process.returncode:
                log = (options.out / f"{run.name}.log").read_text()[-600:]
                print(json.dumps({"configuration": name, "failed": process.returncode, "log": log}), flush=True)
                continue
            rows[name] = {**rows.get(name, {"configuration": name}), **measured(run, alone=options.together == 1)}
            print(json.dumps(rows[name]), flush=True)
            write(options.file, rows)
        time.sleep(0.5)
    for name, _, process in running:
        print(json.dumps({"configuration": name, "failed": "time"}), flush=True)
        process.terminate()


def measured(run: Path, alone: bool) -> dict[str, Any]:
    """Of a run's own records."""
    result, planned = (json.loads((run / name).read_text()) for name in ("result.json", "run.json"))
    found = {
        "measured_gib": result["peak_alloc_gib"],
        "reserved_gib": result["peak_reserved_gib"],
        "host_gib": result["host_gib"],
        "gpu": planned["hardware"]["name"],
        "versions": {name: planned["versions"][name] for name in ("torch", "transformers", "deepspeed")},
    }
    if alone:
        found["samples_s"] = result["samples_s"]
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("predict", "measure"))
    parser.add_argument("--file", type=Path, default=Path("docs/plan-accuracy.jsonl"))
    parser.add_argument("--data", type=Path, default=Path("/tmp/plan-accuracy-data"))
    parser.add_argument("--out", type=Path, default=Path("/tmp/plan-accuracy"), help="where runs go")
    parser.add_argument("--gpu", default="h200")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--together", type=int, default=1)
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds of measuring")
    options = parser.parse_args()
    make_data(options.data)
    options.out.mkdir(parents=True, exist_ok=True)
    {"predict": predict, "measure": measure}[options.what](options)


if __name__ == "__main__":
    main()
