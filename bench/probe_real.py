"""Fine-tune a ViT and a patch_lm on CIFAR-10, then probe both with every preset, online and on cached features.

    python bench/probe_real.py --data data/cifar10 --out runs/probe-real        # a JSON line for each run

Every run is `zerofit train`, on all GPUs or two CPU processes. The presets' augmentation and length hold except where
`--set` says otherwise; cached runs train the head alone with a grid of rates.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

RECIPE: dict[str, Any] = {
    "data": {"source": "folder", "workers": 6},
    "train": {"micro_batch": 64, "global_batch": 128, "seed": 0},
    "evaluate": {"micro_batch": 250},
}
SHAPE = {"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 6, "intermediate_size": 512}
MODELS: dict[str, dict[str, Any]] = {
    "vit": {"kind": "vit", "shape": "vit-tiny", "image_size": 32, "patch_size": 4},
    "patch_lm": {
        "kind": "patch_lm",
        "shape": {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 32, **SHAPE},
        "image_size": 32,
        "patch_size": 4,
        "attention_mask": "bidirectional",
    },
}
FINETUNE = {
    "optimizer": {"lr": 1e-3, "warmup": {"epochs": 2}, "clip_grad": 1.0},
    "data": {"augment": {"crop_scale": [0.6, 1.0], "flip": 0.5}},
}
GRID = {"features": "cached", "lr_scales": [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0], "batch_norms": [False, True]}
KINDS: dict[str, dict[str, Any]] = {
    "online": {},
    "cached": {**GRID, "views": 1},
    "cached-8-views": {**GRID, "views": 8},
}


def train(name: str, recipe: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Run one recipe, and read what came of it."""
    run = options.out / name
    path = options.out / f"{name}.yaml"
    path.write_text(json.dumps({**recipe, "name": name}))  # JSON is YAML
    command = [sys.executable, "-m", "zerofit", "train", str(path), f"run_dir={run}", *options.set]
    with (options.out / f"{name}.log").open("w") as log:
        try:
            done = subprocess.run(command, stdout=log, stderr=log, timeout=options.limit, check=False)
        except subprocess.TimeoutExpired:
            return {"run": name, "error": f"no end within {options.limit} s"}
    if done.returncode != 0:
        return {"run": name, "error": (options.out / f"{name}.log").read_text()[-600:]}
    result = json.loads((run / "result.json").read_text())
    shown = {key: result.get(key) for key in ("wall_s", "train_s", "samples_s", "steps", "knn_top1", "peak_alloc_gib")}
    grid = {key: result[key] for key in ("chosen", "features") if key in result}
    return {
        "run": name,
        "top1": round(result["test"]["top1"], 4),
        "loss": round(result["test"]["loss"], 4),
        **shown,
        **grid,
    }


def laid(*parts: dict[str, Any]) -> dict[str, Any]:
    """Later sections over earlier ones, field by field."""
    merged: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
    return merged


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with train/<class> and test/<class>, or zips of them")
    parser.add_argument("--out", type=Path, default=Path("runs/probe-real"))
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--presets", nargs="+", default=["moco-v3", "mae", "moco-lars"])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--finetune-epochs", type=int, default=10)
    parser.add_argument("--probe-epochs", type=int, default=10, help="instead of the presets' 90 and 100")
    parser.add_argument("--strategy", default="zero2")
    parser.add_argument("--limit", type=int, default=300, help="seconds for each run")
    parser.add_argument("--set", nargs="*", default=[], help="further overrides, a.b=c")
    options = parser.parse_args()
    options.out = options.out.resolve()
    options.out.mkdir(parents=True)
    data = {"data": {"path": str(Path(options.data).resolve())}}
    for name, model in MODELS.items():
        if name not in options.models:
            continue
        common = laid(RECIPE, data, {"model": model, "strategy": options.strategy})
        length = {"train": {"epochs": options.finetune_epochs}}
        print(json.dumps(train(f"{name}-finetune", laid(common, FINETUNE, length), options)), flush=True)
        for preset in options.presets:
            for kind in options.kinds:
                probe = {"preset": preset, **KINDS[kind]}
                if kind != "online":
                    probe["cache"] = str(options.out / f"features-{name}")
                parts = {
                    "task": "probe",
                    "init_from": str(options.out / f"{name}-finetune"),
                    "probe": probe,
                    "train": {"epochs": options.probe_epochs},
                    "model": {"trainable": ["^head\\."]} if kind != "online" else {},
                }
                warmup = (
                    {"optimizer": {"warmup": {"epochs": max(1, options.probe_epochs // 9)}}} if preset == "mae" else {}
                )
                print(json.dumps(train(f"{name}-{preset}-{kind}", laid(common, parts, warmup), options)), flush=True)


if __name__ == "__main__":
    main()
