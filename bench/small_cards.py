"""DeepSeek-R1-Distill-Qwen-7B within 11 GiB a card: SFT and GRPO with QLoRA, LoRA with its base offloaded.

    python bench/small_cards.py --gpus 2 --runs sft grpo-1024 grpo-2048 lora --steps 20 --together
    ZEROFIT_DEVICE=cpu python bench/small_cards.py --gpus 2 --tiny --steps 2                # whether it runs at all

Random weights of the exact shape in fp16, rows of letters, completions that end by chance alone. A JSON line for each
run: its peak beside what was planned, and a step's time (with --together of runs that share the cards, and says so).
What --limit ends goes on with the same command: it is interrupted as by a scheduler, and saved.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import noise

SHAPE = ("model.pretrained=null", "model.tokenizer=bytes", "model.chat_template=chatml")
FULL = ("model.shape=deepseek-r1-distill-qwen-7b", "hardware.memory_cap=11GiB", "strategy.precision=fp16")
TINY = (
    "model.shape={model_type: qwen2, hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4, "
    "num_key_value_heads: 2, intermediate_size: 128, vocab_size: 384, max_position_embeddings: 4096}",
    "strategy.precision=fp32",
)
QUIET = ("data.validation=0", "evaluate.every_steps=null", "evaluate.at_end=false", "checkpoint.every_steps=null")
SFT, GRPO = "deepseek-r1-7b-sft", "deepseek-r1-7b-grpo"
RUNS: dict[str, tuple[str, ...]] = {
    "sft": (SFT, "train.epochs=null", "checkpoint.at_end=false"),
    "lora": (SFT, "train.epochs=null", "model.quantize=null", "strategy=zero3+offload_all", "checkpoint.at_end=false"),
    "grpo-1024": (GRPO, "grpo.sampling.max_tokens=1024", "checkpoint.at_end=false"),
    "grpo-2048": (GRPO, "grpo.sampling.max_tokens=2048", "grpo.rollout.batch=8"),
}
SAMPLES = {"sft": 4, "lora": 2, "grpo-1024": 4, "grpo-2048": 4}
"""Of a step, on each card."""


def words(name: str, options: argparse.Namespace) -> list[str]:
    """What `zerofit train` is given."""
    recipe, *fields = RUNS[name]
    data = options.out / "data" / ("problems.jsonl" if recipe == GRPO else "train.jsonl")
    run = options.out / name
    if (run / "checkpoints").is_dir():
        return ["--resume", str(run)]
    shutil.rmtree(run, ignore_errors=True)
    return [
        recipe,
        *SHAPE,
        *(TINY if options.tiny else FULL),
        *QUIET,
        *fields,
        *(["grpo.sampling.max_tokens=16"] if options.tiny and recipe == GRPO else []),
        f"data.path={data}",
        f"data.validation_path={data}",
        f"train.global_batch={SAMPLES[name] * options.gpus}",
        f"train.max_steps={options.steps}",
        f"run_dir={run}",
    ]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--together", action="store_true", help="all at once: they share the cards")
    parser.add_argument("--tiny", action="store_true", help="another shape, to see whether it runs")
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds for all")
    parser.add_argument("--out", type=Path, default=Path("/tmp/small-cards"), help="where runs go")
    options = parser.parse_args()
    noise.make(options.out / "data")
    end, left = time.monotonic() + options.limit, list(options.runs)
    running: dict[str, subprocess.Popen[bytes]] = {}
    while left or running:
        while left and (options.together or not running):
            name = left.pop(0)
            running[name] = start(name, options)
        for name, process in list(running.items()):
            if process.poll() is None and time.monotonic() < end:
                continue
            process.terminate()
            process.wait()
            print(json.dumps(figures(name, process.returncode, options)), flush=True)
            del running[name]
        time.sleep(0.5)


def start(name: str, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    """The run, whose output goes to a file beside it."""
    command = [sys.executable, "-m", "zerofit", "train", *words(name, options), "--nproc", str(options.gpus)]
    with (options.out / f"{name}.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def figures(name: str, code: int, options: argparse.Namespace) -> dict[str, Any]:
    """Of its own records, finished or not."""
    run: Path = options.out / name
    found: dict[str, Any] = {"run": name, "gpus": options.gpus, "shared": options.together, "code": code}
    if code:
        found["log"] = (options.out / f"{name}.log").read_text()[-500:]
    if not (run / "metrics.jsonl").exists():
        return found
    rows = [row for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "loss" in row]
    planned = json.loads((run / "run.json").read_text())["prediction"]
    times = [SAMPLES[name] * options.gpus / row["samples_s"] for row in rows[1:]]
    return {
        **found,
        "steps": rows[-1]["step"] if rows else 0,
        "losses": [rows[0]["loss"], rows[-1]["loss"]] if rows else [],
        **{
            key: max(row.get(key) or 0 for row in rows)
            for key in ("peak_alloc_gib", "peak_reserved_gib", "host_used_gib")
        },
        "step_s": round(statistics.median(times), 2) if times else None,
        "planned_gib": None if planned is None else planned["peak_gib"],
    }


if __name__ == "__main__":
    main()
