"""Predicted against measured peak memory and step time, a configuration a line.

    python bench/plan_accuracy.py predict --gpu h200 --gpus 1 2 4 --file docs/plan-accuracy.jsonl         # needs no GPU
    python bench/plan_accuracy.py measure --gpus 1 2 4 --cards 4 --file docs/plan-accuracy.jsonl --room 110  # on GPUs
    python bench/plan_accuracy.py show --file docs/plan-accuracy.jsonl                                     # a table

`predict` adds a line for each configuration that has none; `measure` fills in what runs reach, and never changes a
prediction: predictions are committed before. Random weights of exact shapes; images and texts are noise made here.
With `--room GIB` runs go on side by side on each of `--cards` while their predictions fit into that: memory is each
process's own, and times are left out then.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import noise

if TYPE_CHECKING:
    from zerofit.plan.spec import RunSpec

QWEN = "model.pretrained=null", "data.classes=null", "data.source=folder", "data.path=DATA/images"
SFT = "model.pretrained=null", "model.tokenizer=bytes", "model.chat_template=chatml", "data.path=DATA/train.jsonl"
CAD = "data.path=DATA/alike", "data.mix={text+points+image: 1}"
"""All as long as the longest, which is what is planned for: four steps need not meet it otherwise."""
ALWAYS = (
    "train.epochs=null",
    "train.max_steps=4",
    "optimizer.warmup={fraction: 0.1}",
    "checkpoint.at_end=false",
    "evaluate.at_end=false",
)
NEVER = tuple(f"{section}.every_{unit}=null" for section in ("checkpoint", "evaluate") for unit in ("steps", "epochs"))
ZEROFIT = "-m", "zerofit"
ONE_GPU = str(Path(__file__).with_name("one_gpu.py"))
GIB = 2**30
SLACK = 1.2
"""What a run takes of a card, at most, for each GiB that it allocates."""
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
    Case("classify-4b", "qwen3-8b-cifar10", (*QWEN, "model.shape=qwen3-4b"), 16, 1, ("zero2+offload_optimizer",)),
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
    Case(
        "probe-8b",
        "qwen3-8b-cifar100-probe",
        (
            "data.classes=null",
            "data.label_column=null",
            "data.source=folder",
            "data.path=DATA/images",
            "init_from=null",
        ),
        64,
        1,
        ("ddp", "zero2", "zero3"),
    ),
    Case(
        "cad-alike-1.7b",
        "bench/cad.yaml",
        (*CAD, "model.shape=qwen3-1.7b"),
        8,
        1,
        ("ddp", "zero2", "zero3", "fsdp2"),
    ),
    Case("cad-alike-8b", "bench/cad.yaml", CAD, 8, 1, ("zero3",)),
)


def words(case: Case, strategy: str, gpus: int, data: Path) -> list[str]:
    """What `zerofit plan` and `zerofit train` are given."""
    name = "single" if strategy == "ddp" and gpus == 1 else strategy
    size = case.micro_batch * case.accumulation * gpus
    fields = [*ALWAYS, *NEVER, *case.fields, f"train.micro_batch={case.micro_batch}", f"train.global_batch={size}"]
    whole = name.partition("+")
    offload = {"": "{}", "offload_optimizer": "{optimizer: cpu}", "offload_all": "{optimizer: cpu, params: cpu}"}
    fields += [f"strategy.name={whole[0]}", f"strategy.offload={offload[whole[2]]}"]
    if "DATA/train.jsonl" in " ".join(case.fields):
        fields.append("data.validation=0")
        fields.append("data.validation_path=DATA/train.jsonl")
    return [case.recipe, *(field.replace("DATA", str(data)) for field in fields)]


def configurations(gpus: int, data: Path) -> Iterator[tuple[str, list[str]]]:
    """(name, words) of each."""
    for case in CASES:
        for strategy in case.strategies:
            yield f"{case.name}/{strategy}/{gpus}", words(case, strategy, gpus, data)


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
    every = (pair for gpus in options.gpus for pair in configurations(gpus, options.data))
    for name, (recipe, *fields) in every:
        if name in rows:
            continue
        began = time.monotonic()
        try:
            found = predicted(recipe, fields, ranks_of(name), options)
        except Exception as error:
            print(json.dumps({"configuration": name, "error": f"{type(error).__name__}: {error}"[:300]}), flush=True)
            continue
        rows[name] = {"configuration": name, **found, "plan_s": round(time.monotonic() - began, 1)}
        print(json.dumps(rows[name]), flush=True)
        write(options.file, rows)


def predicted(recipe: str, fields: list[str], gpus: int, options: argparse.Namespace) -> dict[str, Any]:
    """The planner's answer, and what DeepSpeed and accelerate say of the same model; GiB."""
    from zerofit.config.load import load_job
    from zerofit.launch.asked import Asked
    from zerofit.launch.planning import staged_plan
    from zerofit.plan.closed_form import estimate_memory
    from zerofit.plan.shaped import shaped
    from zerofit.predict.memory import predict_memory

    asked = Asked(gpus=gpus, gpu=options.gpu)
    spec = staged_plan(load_job(recipe, fields).stages[0], asked, None, follows=False).spec
    memory = predict_memory(shaped(spec))
    return {
        "predicted_gib": memory.peak_gib,
        "at": memory.phase,
        "split": memory.split,
        "closed_form_gib": estimate_memory(spec).peak_gib,
        **others(spec),
        "versions_predicted": {name: spec.versions[name] for name in ("torch", "transformers", "deepspeed")},
    }


def others(spec: RunSpec) -> dict[str, float]:
    """DeepSpeed's estimate of model states, where it has one for the strategy, and accelerate's; GiB."""
    from accelerate.commands.estimate import estimate_training_usage
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    from zerofit.plan.anatomy import anatomy_of

    count, gpus = anatomy_of(spec).parameters, spec.batches.ranks
    offload, found = spec.strategy.offload, {}
    if spec.strategy.name == "zero2":
        _, size = estimate_zero2_model_states_mem_needs(count, gpus, 1, cpu_offload=offload.optimizer is not None)
        found["deepspeed_gib"] = round(size / GIB, 2)
    elif spec.strategy.name == "zero3":
        away = {"cpu_offload": offload.optimizer is not None, "cpu_offload_params": offload.params is not None}
        _, size, _ = estimate_zero3_model_states_mem_needs(count, 0, gpus, 1, **away)
        found["deepspeed_gib"] = round(size / GIB, 2)
    kinds = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
    usage = estimate_training_usage(4 * count, kinds[spec.precision])
    return {**found, "accelerate_gib": round(max(usage.values()) / GIB, 2)}


@dataclass
class Running:
    """A configuration that is being measured, and where."""

    name: str
    run: Path
    cards: list[int]
    process: subprocess.Popen[bytes]


def measure(options: argparse.Namespace) -> None:
    """What each configuration reaches that has no measurement yet, the least of all cards' memory first."""
    rows = read(options.file)
    waiting = {
        name: given
        for gpus in options.gpus
        for name, given in configurations(gpus, options.data)
        if rows.get(name, {}).get("measured_gib") is None and re.search(options.match, name)
    }
    needs = {name: SLACK * rows.get(name, {}).get("predicted_gib", options.room) for name in waiting}
    if options.share:
        needs = {name: ranks_of(name) * need for name, need in needs.items()}
    running: list[Running] = []
    end = time.monotonic() + options.limit
    order = sorted(waiting, key=lambda name: needs[name] * ranks_of(name)) if options.room else list(waiting)
    while (order or running) and time.monotonic() < end:
        for name in list(order):
            cards = place(name, running, needs, options)
            if cards:
                order.remove(name)
                running.append(start(name, waiting[name], cards, options))
        for one in ended(running):
            if one.process.returncode:
                log = (options.out / f"{one.run.name}.log").read_text()[-600:]
                print(json.dumps({"configuration": one.name, "failed": one.process.returncode, "log": log}), flush=True)
                continue
            rows[one.name] = {**rows.get(one.name, {"configuration": one.name}), **measured(one.run, options)}
            print(json.dumps(rows[one.name]), flush=True)
            write(options.file, rows)
        time.sleep(0.5)
    give_up(running)


def ranks_of(name: str) -> int:
    """Of a configuration."""
    return int(name.rpartition("/")[2])


def place(name: str, running: list[Running], needs: dict[str, float], options: argparse.Namespace) -> list[int]:
    """The emptiest cards, as many as it has ranks; none where it has to wait.

    What offloads waits for what does: the host's memory would not hold two.
    """
    if "+" in name and any("+" in one.name for one in running):
        return []
    taken = [sum(needs[one.name] for one in running if card in one.cards) for card in range(options.cards)]
    takes = 1 if options.share else ranks_of(name)
    cards = sorted(range(options.cards), key=lambda card: taken[card])[:takes]
    room = all(not taken[card] or taken[card] + needs[name] <= options.room for card in cards)
    return cards if room and len(cards) == takes else []


def start(name: str, given: list[str], cards: list[int], options: argparse.Namespace) -> Running:
    """Its run, whose output goes to a file."""
    run = options.out / name.replace("/", "-")
    shutil.rmtree(run, ignore_errors=True)
    command = ["train", *given, f"run_dir={run}"]
    own = [] if options.share else ["--nproc", str(len(cards))]
    program = (ONE_GPU, str(ranks_of(name))) if options.share else ZEROFIT
    log = options.out / f"{run.name}.log"
    return Running(name, run, cards, zerofit([*command, *own], cards, options.cards, log, program))


def zerofit(
    words: list[str], cards: list[int], of: int, log: Path, program: tuple[str, ...] = ZEROFIT
) -> subprocess.Popen[bytes]:
    """`zerofit WORDS` on these cards of `of`; its output goes to a file."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    numbers = seen.split(",") if seen else list(map(str, range(of)))
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(numbers[card] for card in cards)}
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, *program, *words], env=environment, stdout=file, stderr=subprocess.STDOUT
        )


def ended(running: list[Running]) -> list[Running]:
    """Those that have; they are taken out."""
    found = [one for one in running if one.process.poll() is not None]
    for one in found:
        running.remove(one)
    return found


def give_up(running: list[Running]) -> None:
    """End what is left when time is over."""
    for one in running:
        print(json.dumps({"configuration": one.name, "failed": "time"}), flush=True)
        one.process.terminate()
        one.process.wait()


def measured(run: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Of a run's own records; how fast it was where it was alone."""
    result, planned = (json.loads((run / name).read_text()) for name in ("result.json", "run.json"))
    found = {
        "measured_gib": result["peak_alloc_gib"],
        "reserved_gib": result["peak_reserved_gib"],
        "host_gib": result["host_gib"],
        "gpu": planned["hardware"]["name"],
        "versions": {name: planned["versions"][name] for name in ("torch", "transformers", "deepspeed")},
    }
    if options.share:
        found["on_one_gpu"] = True
    elif options.room == 0:
        found["samples_s"] = result["samples_s"]
    return found


def show(options: argparse.Namespace) -> None:
    """A row for each case: how far each prediction is off what was measured, on average and at worst."""
    rows = [row for row in read(options.file).values() if row.get("measured_gib") is not None]
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["configuration"].partition("/")[0], []).append(row)
    print("| case | GPUs | measured | off by | worst | by formulas | DeepSpeed's estimate | accelerate's |")
    print("|---|---|---|---|---|---|---|---|")
    for case, those in [*found.items(), ("**all**", rows)]:
        gpus = ", ".join(map(str, sorted({ranks_of(row["configuration"]) for row in those})))
        worst = f"{max(off(those, 'predicted_gib'), key=abs):+.1f} %"
        others = [typical(off(those, name)) for name in ("closed_form_gib", "deepspeed_gib", "accelerate_gib")]
        cells = [case, gpus, str(len(those)), typical(off(those, "predicted_gib")), worst, *others]
        print("|", " | ".join(cells), "|")


def off(rows: list[dict[str, Any]], name: str) -> list[float]:
    """Per cent that this prediction is off what was measured, of those rows that have it."""
    return [100 * (row[name] / row["measured_gib"] - 1) for row in rows if name in row]


def typical(errors: list[float]) -> str:
    """Their mean, whatever their sign."""
    return f"{sum(map(abs, errors)) / len(errors):.1f} %" if errors else ""


def options(description: str | None, file: Path, out: Path) -> argparse.ArgumentParser:
    """Of commands that predict, measure and show."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("predict", "measure", "show"))
    parser.add_argument("--file", type=Path, default=file)
    parser.add_argument("--data", type=Path, default=Path("/tmp/plan-accuracy-data"))
    parser.add_argument("--out", type=Path, default=out, help="where runs go")
    parser.add_argument("--gpu", default="h200")
    parser.add_argument("--gpus", type=int, nargs="+", default=[2], help="of what is measured")
    parser.add_argument("--cards", type=int, help="GPUs to place it on; as many as the largest takes")
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds of measuring")
    return parser


def follow(parser: argparse.ArgumentParser, commands: dict[str, Callable[[argparse.Namespace], None]]) -> None:
    """Do what was asked for."""
    given = parser.parse_args()
    given.cards = given.cards or max(given.gpus)
    if given.what != "show":
        noise.make(given.data)
    given.out.mkdir(parents=True, exist_ok=True)
    commands[given.what](given)


def main() -> None:
    """See the module."""
    parser = options(__doc__, Path("docs/plan-accuracy.jsonl"), Path("/tmp/plan-accuracy"))
    parser.set_defaults(gpus=[1])
    parser.add_argument("--room", type=float, default=0.0, help="GiB of a GPU for runs side by side; 0: one by one")
    parser.add_argument("--share", action="store_true", help="all ranks of a run on one card (one_gpu.py)")
    parser.add_argument("--match", default="", metavar="REGEX", help="measure configurations of such names alone")
    follow(parser, {"predict": predict, "measure": measure, "show": show})


if __name__ == "__main__":
    main()
