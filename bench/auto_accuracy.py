"""Whether `strategy: auto` takes the fastest: what it takes, predicted, beside what strategies reach, measured.

    python bench/auto_accuracy.py predict --gpus 2 4                                             # needs no GPU
    python bench/auto_accuracy.py measure --gpus 2 4 --cards 4 --limit 900                       # on GPUs
    python bench/auto_accuracy.py show                                                           # a table

`predict` adds a line to docs/auto-accuracy.jsonl for each comparison that has none, with what auto takes on such GPUs
and the samples/s of each strategy; `measure` runs `zerofit compare` of these strategies, as many comparisons side by
side as the cards have room for, and never changes a prediction. Random weights of exact shapes; data are noise.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plan_accuracy
from plan_accuracy import CASES, Case, Running, ended, give_up, ranks_of, read, words, write, zerofit

COMPARED = (
    "sft-1.7b",
    "lora-8b",
    "classify-1.7b",
    "vit-huge",
    "cad-alike-1.7b",
    "vit-base",
    "classify-1.7b-accumulated",
    "sft-1.7b-8192",
)
"""Of plan_accuracy.py's cases, those that are timed; the first ones first."""
ALWAYS = ("ddp", "zero2", "zero3", "fsdp2")
"""Are measured, as far as they fit, beside what auto takes."""
NEAR = 0.05
"""Of the fastest: what auto takes is to be no slower than that."""


def comparisons(gpus: int, data: Path) -> Iterator[tuple[str, list[str]]]:
    """(name, recipe and fields) of each, without a strategy."""
    cases = {case.name: case for case in CASES}
    for name in COMPARED:
        yield f"{name}/{gpus}", [word for word in given(cases[name], gpus, data) if not word.startswith("strategy.n")]


def given(case: Case, gpus: int, data: Path) -> list[str]:
    """The case's words, less the offload that they say, and with the recipe's workers: one cannot feed a ViT."""
    left_out = ("strategy.offload", "data.workers")
    return [word for word in words(case, "zero2", gpus, data) if not word.startswith(left_out)]


def predict(options: argparse.Namespace) -> None:
    """A line for each comparison without one."""
    from zerofit.config.load import load_job
    from zerofit.launch.asked import Asked
    from zerofit.launch.planning import chosen, staged_plan
    from zerofit.launch.predicting import Timed

    rows = read(options.file)
    for gpus in options.gpus:
        for name, (recipe, *fields) in comparisons(gpus, options.data):
            if name in rows:
                continue
            job = load_job(recipe, [*fields, "strategy.name=auto"])
            asked = staged_plan(job.stages[0], Asked(gpus=gpus, gpu=options.gpu), None, follows=False)
            choice = chosen(asked, Timed()).spec.choice  # as `zerofit train` does: the best one's step is played
            assert choice is not None
            assert choice.chosen is not None, choice.why
            taken, kept = choice.chosen.strategy, choice.chosen.activation_checkpointing
            alike = [row for row in choice.table if row.verdict == "fits" and row.activation_checkpointing == kept]
            able = {row.strategy: row.samples_s for row in alike}
            rows[name] = {
                "configuration": name,
                "auto": taken,
                "activation_checkpointing": kept,
                "predicted": {one: able[one] for one in dict.fromkeys((*ALWAYS, taken)) if one in able},
            }
            print(json.dumps(rows[name]), flush=True)
            write(options.file, rows)


def measure(options: argparse.Namespace) -> None:
    """Each predicted comparison that was not measured yet, in the file's order."""
    rows = read(options.file)
    asked = {name: fields for gpus in options.gpus for name, fields in comparisons(gpus, options.data)}
    waiting = [name for name, row in rows.items() if name in asked and "measured" not in row]
    running: list[Running] = []
    end = time.monotonic() + options.limit
    while (waiting or running) and time.monotonic() < end:
        free = sorted(set(range(options.cards)) - {card for one in running for card in one.cards})
        for name in [one for one in waiting if ranks_of(one) <= len(free)][:1]:
            waiting.remove(name)
            running.append(start(rows[name], asked[name], free[: ranks_of(name)], options))
        for one in ended(running):
            rows[one.name] |= figures(one)
            print(json.dumps(rows[one.name]), flush=True)
            write(options.file, rows)
        time.sleep(0.5)
    give_up(running)


def start(row: dict[str, Any], given: list[str], cards: list[int], options: argparse.Namespace) -> Running:
    """`zerofit compare`, whose output goes to a file."""
    name, strategies = row["configuration"], ",".join(row["predicted"])
    directory = options.out / name.replace("/", "-")
    given = [*given, f"strategy.activation_checkpointing={row['activation_checkpointing']}"]
    command = ["compare", *given, "--strategies", strategies, "--gpus", str(len(cards)), "--steps", str(options.steps)]
    command += ["--no-profile", "--output", str(directory)]
    return Running(name, directory, cards, zerofit(command, cards, options.cards, Path(f"{directory}.log")))


def figures(one: Running) -> dict[str, Any]:
    """Of its own records: samples/s of each strategy that ran, and the share of the fastest that auto would have."""
    path = one.run / "compare.json"
    if not path.exists():
        return {"failed": Path(f"{one.run}.log").read_text()[-600:]}
    found = json.loads(path.read_text())
    measured = {f"{row['strategy']}{row['offload']}": row["samples_s"] for row in found["rows"] if row["samples_s"]}
    failed = {row["label"]: row["why"] for row in found["rows"] if not row["samples_s"]}
    return {"measured": measured, "gpu": found["hardware"]["name"], **({"failed": failed} if failed else {})}


def share(row: dict[str, Any]) -> float:
    """Of the fastest strategy's samples/s, what the one has that auto takes."""
    return float(row["measured"][row["auto"]] / max(row["measured"].values()))


def show(options: argparse.Namespace) -> None:
    """A row for each comparison that was measured, and in how many auto is near the fastest."""
    every = (row for row in read(options.file).values() if row["auto"] in row.get("measured", {}))
    rows = [row for row in every if len(row["measured"]) > 1]
    print("| comparison, GPUs | auto takes | samples/s measured (predicted) | of the fastest |")
    print("|---|---|---|---|")
    for row in rows:
        both = (f"{name} {rate:,.1f} ({row['predicted'][name]:,.1f})" for name, rate in row["measured"].items())
        name, _, gpus = row["configuration"].rpartition("/")
        print("|", " | ".join((f"{name}, {gpus}", row["auto"], ", ".join(both), f"{100 * share(row):.0f} %")), "|")
    near = sum(share(row) >= 1 - NEAR for row in rows)
    print(f"\nwithin {100 * NEAR:.0f} % of the fastest in {near} of {len(rows)}")


def main() -> None:
    """See the module."""
    parser = plan_accuracy.options(__doc__, Path("docs/auto-accuracy.jsonl"), Path("/tmp/auto-accuracy"))
    parser.add_argument("--steps", type=int, default=8, help="of each run")
    plan_accuracy.follow(parser, {"predict": predict, "measure": measure, "show": show})


if __name__ == "__main__":
    main()
