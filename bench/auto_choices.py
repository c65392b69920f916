"""Whether `strategy: auto` with `train.micro_batch: auto` takes the fastest of all ways to do the work on one card.

    python bench/auto_choices.py predict                              # needs no GPU
    python bench/auto_choices.py measure --limit 900                  # on one GPU, with nothing else on it
    python bench/auto_choices.py show                                 # a table
    python bench/auto_choices.py show --again                         # what was measured, as it is predicted today

A case of plan_accuracy.py on a card whose memory is capped, so that something has to be given up for it: auto weighs
strategy, offload, micro-batch and activation checkpointing. `predict` adds a line to docs/auto-choices.jsonl for each
comparison that has none: what auto takes, and the fastest other ways by its table; `measure` trains each of them for a
few steps under that cap, and never changes a prediction. Random weights of exact shapes; data are noise.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import noise
import plan_accuracy
from auto_accuracy import show
from plan_accuracy import CASES, read, words, write

if TYPE_CHECKING:
    from zerofit.plan.choice import Choice, Row

COMPARED = (
    ("vit-huge", 24, 256),
    ("classify-1.7b", 40, 64),
    ("sft-1.7b", 48, 16),
    ("lora-8b", 24, 8),
    ("cad-alike-1.7b", 40, 16),
    ("vit-base", 11, 512),
    ("vit-huge", 11, 256),
    ("classify-1.7b", 24, 64),
    ("sft-1.7b", 80, 16),
    ("lora-8b", 40, 8),
    ("cad-alike-8b", 48, 16),
    ("vit-huge", 60, 256),
    ("sft-1.7b-8192", 80, 4),
)
"""(case, GiB of the card, samples of an optimizer step)."""
CHOSEN = (
    "data.workers",
    "strategy.n",
    "strategy.offload",
    "strategy.activation_checkpointing",
    "train.micro_batch",
    "hardware.memory",
)
"""Fields of a case that are left to auto here, or set."""
AUTO = ("strategy.name=auto", "strategy.activation_checkpointing=auto", "train.micro_batch=auto")
OFFLOADS = {"": "{}", "offload_optimizer": "{optimizer: cpu}", "offload_all": "{optimizer: cpu, params: cpu}"}
WARM = str(Path(__file__).with_name("warm.py"))
AHEAD = 3
"""Runs that are being measured or import."""
MOST = 4
"""Ways that are measured in a comparison, at most."""


def comparisons(data: Path) -> dict[str, list[str]]:
    """Recipe and fields of each, less what auto chooses."""
    cases = {case.name: case for case in CASES}
    found = {}
    for name, gib, batch in COMPARED:
        given = [word for word in words(cases[name], "zero2", 1, data) if not word.startswith(CHOSEN)]
        found[f"{name}, {gib} GiB/1"] = [
            *(word for word in given if not word.startswith("train.global_batch")),
            f"hardware.memory_cap={gib}GiB",
            f"train.global_batch={batch}",
        ]
    return found


def label(row: Row) -> str:
    """`zero2+offload_optimizer 8x2 full`: strategy, micro-batch x accumulation, activation checkpointing."""
    return f"{row.strategy} {row.micro_batch}x{row.accumulation} {row.activation_checkpointing}"


def fields(way: str) -> list[str]:
    """What a recipe says for what `label` has written."""
    strategy, batches, kept = way.split()
    name, _, offload = strategy.partition("+")
    return [
        f"strategy.name={name}",
        f"strategy.offload={OFFLOADS[offload]}",
        f"strategy.activation_checkpointing={kept}",
        f"train.micro_batch={batches.partition('x')[0]}",
    ]


def rivals(choice: Choice) -> list[Row]:
    """What auto takes, the fastest of each other strategy, and the fastest other way of its own strategy."""
    taken = choice.chosen
    assert taken is not None, choice.why
    able = [row for row in choice.table if row.verdict == "fits" and row.samples_s is not None]
    able.sort(key=lambda row: -(row.samples_s or 0))
    own = [row for row in able if row.strategy == taken.strategy and label(row) != label(taken)]
    best = {row.strategy: row for row in reversed(able) if row.strategy != taken.strategy}
    others = sorted([*best.values(), *own[:2]], key=lambda row: -(row.samples_s or 0))
    return [taken, *others[: MOST - 1]]


def predict(options: argparse.Namespace) -> None:
    """A line for each comparison without one."""
    from zerofit.config.load import load_job
    from zerofit.launch.asked import Asked
    from zerofit.launch.planning import chosen, staged_plan
    from zerofit.launch.predicting import Timed

    rows = read(options.file)
    for name, (recipe, *given) in comparisons(options.data).items():
        if name in rows:
            continue
        job = load_job(recipe, [*given, *AUTO])
        asked = staged_plan(job.stages[0], Asked(gpus=1, gpu=options.gpu), None, follows=False)
        choice = chosen(asked, Timed()).spec.choice
        assert choice is not None
        ways = rivals(choice)
        predicted = {label(row): row.samples_s for row in ways}
        rows[name] = {"configuration": name, "auto": label(ways[0]), "why": choice.why, "predicted": predicted}
        print(json.dumps(rows[name]), flush=True)
        write(options.file, rows)


def measure(options: argparse.Namespace) -> None:
    """Each way of each comparison that was not measured yet, one after another; the next one imports meanwhile."""
    rows = read(options.file)
    asked = comparisons(options.data)
    end = time.monotonic() + options.limit
    waiting = [
        (name, way)
        for name, row in rows.items()
        for way in row["predicted"]
        if name in asked and way not in row.get("measured", {}) and way not in row.get("failed", {})
    ]
    ahead: list[Warm] = []
    while waiting or ahead:
        while waiting and len(ahead) < AHEAD:
            name, way = waiting.pop(0)
            ahead.append(warm(name, way, [*asked[name], *fields(way), f"train.max_steps={options.steps}"], options))
        if time.monotonic() > end:
            break
        one = ahead.pop(0)
        row = rows[one.name]
        code = one.go(options.each)
        if code:
            row.setdefault("failed", {})[one.way] = f"{code}: {one.log.read_text()[-400:]}"
        else:
            row.setdefault("measured", {})[one.way] = figure(one.run, row)
        found = {key: row.get(key, {}).get(one.way) for key in ("predicted", "measured", "failed")}
        print(json.dumps({"configuration": one.name, "way": one.way, **found}), flush=True)
        write(options.file, rows)
    for one in ahead:
        one.process.kill()


@dataclass
class Warm:
    """A run that has imported what it needs, or is about to (warm.py)."""

    name: str
    way: str
    run: Path
    log: Path
    process: subprocess.Popen[bytes]

    def go(self, seconds: float) -> int | str:
        """Its exit status, or why it has none."""
        try:
            self.process.communicate(b"go\n", timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return f"not done in {seconds:.0f} s"
        return self.process.returncode


def warm(name: str, way: str, given: list[str], options: argparse.Namespace) -> Warm:
    """A run of these words that waits for its turn."""
    run = options.out / f"{name} {way}".replace("/", "-").replace(" ", "-")
    shutil.rmtree(run, ignore_errors=True)
    log = Path(f"{run}.log")
    command = [sys.executable, WARM, "train", *given, f"run_dir={run}"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT)
    return Warm(name, way, run, log, process)


def figure(run: Path, row: dict[str, Any]) -> float:
    """Samples/s of a finished run without its first step and its waits for data, which are few here; notes the GPU."""
    spec = json.loads((run / "run.json").read_text())
    row["gpu"] = spec["hardware"]["name"]
    batch = spec["batches"]["global_batch"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [batch / line["samples_s"] - line["data_wait_s"] for line in lines if "samples_s" in line][1:]
    return round(batch / statistics.median(steps), 3)


def shown(options: argparse.Namespace) -> None:
    """The table; or the same of today's predictions, in which auto takes one of what was measured, by its rule.

    Without rows whose measured code has `changed` since.
    """
    if not options.again:
        show(options)
        return
    noise.make(options.data)
    rows, asked = read(options.file), comparisons(options.data)
    anew = {}
    for name, row in rows.items():
        recipe, *given = asked[re.sub(r" \(.*\)", "", name)]
        if len(row.get("measured", {})) > 1 and not row.get("changed"):
            predicted = {way: today([recipe, *given, *fields(way)], options) for way in row["measured"]}
            anew[name] = {**row, "predicted": predicted, "auto": taken(predicted)}
    options.file = options.out / "again.jsonl"
    write(options.file, anew)
    show(options)


def taken(predicted: dict[str, float]) -> str:
    """By the rule of `strategy: auto`; all fit."""
    from zerofit.plan.choice import Row
    from zerofit.predict.choose import best

    rows = {}
    for way, samples_s in predicted.items():
        strategy, batches, kept = way.split()
        micro_batch, accumulation = map(int, batches.split("x"))
        rows[way] = Row(
            strategy=strategy,
            micro_batch=micro_batch,
            accumulation=accumulation,
            activation_checkpointing=kept,
            verdict="fits",
            samples_s=samples_s,
        )
    chosen = best(list(rows.values()))
    return next(way for way, row in rows.items() if row is chosen)


def today(given: list[str], options: argparse.Namespace) -> float:
    """Samples/s."""
    from zerofit.config.load import load_job
    from zerofit.launch.asked import Asked
    from zerofit.launch.planning import staged_plan
    from zerofit.predict.timing import Timing

    stage = load_job(given[0], given[1:]).stages[0]
    made = Timing().speed(staged_plan(stage, Asked(gpus=1, gpu=options.gpu), None, follows=False).spec)
    assert made is not None
    return made.samples_s


def main() -> None:
    """See the module."""
    parser = plan_accuracy.options(__doc__, Path("docs/auto-choices.jsonl"), Path("/tmp/auto-choices"))
    parser.add_argument("--steps", type=int, default=5, help="of each run")
    parser.add_argument("--each", type=float, default=120.0, help="seconds of a run, at most")
    parser.add_argument("--again", action="store_true", help="with show: predict anew what was measured")
    plan_accuracy.follow(parser, {"predict": predict, "measure": measure, "show": shown})


if __name__ == "__main__":
    main()
