"""The probe of a Qwen3-8B on GPUs: images/s while probing online, and while its features are extracted.

    python bench/probe.py --nproc 1 --micro-batch 256        # one JSON line for each measurement

Recipe qwen3-8b-cifar100-probe with random weights of the exact shape (they cost the same time and memory as trained
ones), on random 32 px images in CIFAR-100's binary layout, 64 patches an image. Each measurement has its own processes
and its own time limit; one that fails is a line that says so.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from ranks import FIGURES, be_rank, run_ranks, training, write_plan

CACHED = ["probe.features=cached", r"model.trainable=['^head\.']"]
VARIANTS = {
    "online": ["strategy.compile=false"],
    "online-compiled": ["strategy.compile=true"],
    "extract": ["strategy.compile=false", *CACHED],
    "extract-compiled": ["strategy.compile=true", *CACHED],
}


def write_images(directory: Path, train: int) -> None:
    """CIFAR-100, binary version, of random pixels and labels."""
    directory.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name, count in (("train.bin", train), ("test.bin", 1024)):
        records = random.integers(0, 256, (count, 3074), dtype=np.uint8)
        records[:, 0] %= 20
        records[:, 1] = np.arange(count) % 100
        records.tofile(directory / name)
    for kind, count in (("fine", 100), ("coarse", 20)):
        (directory / f"{kind}_label_names.txt").write_text("".join(f"{kind}{i}\n" for i in range(count)))


def plan(variant: str, options: argparse.Namespace) -> Path:
    """Write the run directory of one measurement."""
    run_dir: Path = (options.out / variant).resolve()
    overrides = [
        "init_from=null",
        f"model.shape={options.shape}",
        f"data.path={options.data}",
        f"train.max_steps={options.steps}",
        f"train.micro_batch={options.micro_batch}",
        f"train.global_batch={options.micro_batch * options.nproc}",
        "evaluate.every_epochs=null",
        f"evaluate.micro_batch={options.micro_batch}",
        *VARIANTS[variant],
        *([f"probe.cache={options.out}/features-{variant}"] if variant.startswith("extract") else []),
        *options.set,
    ]
    write_plan("qwen3-8b-cifar100-probe", overrides, options.nproc, run_dir)
    return run_dir


def probing(spec: Any, device: Any) -> dict[str, Any]:
    """What one rank measures: the extraction of features, or training on images."""
    return extraction(spec, device) if spec.recipe.probe.features == "cached" else training(spec, device)


def extraction(spec: Any, device: Any) -> dict[str, float]:
    """Extract twice, into two caches: the first compiles and warms up, the second is measured."""
    from zerofit.measure.memory import Peak
    from zerofit.tasks.cached import backbone_of
    from zerofit.tasks.features import extract

    peak = Peak(device)
    model, engine = backbone_of(spec, device)
    with engine.autocast():
        extract(model, spec, device, f"{model.frozen_hash}-warm")
        started = time.perf_counter()
        features = extract(model, spec, device, str(model.frozen_hash))
        seconds = time.perf_counter() - started
    images = spec.data.train + spec.data.test
    return {"samples_s": images / seconds, "own_images_s": features.images_s, **peak.figures()}


def measure(variant: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one measurement and read what it wrote."""
    run_dir = plan(variant, options)
    error = run_ranks(__file__, run_dir, options.nproc, options.limit)
    if error is not None:
        return {"variant": variant, "error": error}
    figures = json.loads((run_dir / FIGURES).read_text())
    if (run_dir / "metrics.jsonl").exists():
        steps = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
        steady = steps[len(steps) // 3 :]  # the first steps warm up, the very first compiles
        figures["samples_s"] = statistics.median(step["samples_s"] for step in steady)
        figures |= {"mfu": steady[-1]["mfu"], "losses": [steps[0]["loss"], steps[-1]["loss"]]}
    figures["samples_s_per_gpu"] = round(figures["samples_s"] / options.nproc, 1)
    return {"variant": variant, "ranks": options.nproc, "micro_batch": options.micro_batch, **figures}


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--shape", default="qwen3-8b")
    parser.add_argument("--nproc", type=int, default=1)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--micro-batch", type=int, default=256)
    parser.add_argument("--images", type=int, default=8192, help="training images")
    parser.add_argument("--limit", type=int, default=180, help="seconds for each measurement")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-probe"))
    parser.add_argument("--set", nargs="*", default=[], help="further overrides, a.b=c")
    options = parser.parse_args()
    if options.rank:
        be_rank(options.rank, probing)
        return
    options.out = options.out.resolve()
    options.data = options.out / "cifar-100-binary"
    write_images(options.data, options.images)
    for variant in options.variants:
        print(json.dumps(measure(variant, options)), flush=True)


if __name__ == "__main__":
    main()
