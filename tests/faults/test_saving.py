"""A save that fails on any rank (gloo) is given up by all: the old checkpoint stays, and training goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from safetensors.torch import load_file

from zerofit.checkpoint.agreement import Agreement, Unanswered
from zerofit.checkpoint.manifest import read_manifest
from zerofit.config.schema import Recipe
from zerofit.data.images import describe
from zerofit.launch.environment import prepare
from zerofit.launch.failure import Failure
from zerofit.launch.local import run_ranks
from zerofit.plan.build import make_plan
from zerofit.plan.files import write_spec
from zerofit.plan.spec import Hardware

WORKER = Path(__file__).with_name("saving_worker.py")
CPU = Hardware(device="cpu", count=1, name="CPU", memory_gib=8.0, capability=None, cpus=2)
SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 33}
STRATEGIES = ("ddp", "fsdp2", "zero2", "zero3")
TWICE = {4: "rank 1 writes", 6: "rank 0 writes"}
DRIVE = "2m"


@dataclass
class Case:
    """One run: saved after every second step, with faults at some of these saves."""

    name: str
    strategy: str
    faults: dict[int, str]
    steps: int = 8
    behind: dict[int, str] | None = None
    """Faults of what goes on behind training; null: nothing does."""
    run: str = ""
    outcome: dict[str, Any] = field(default_factory=dict)

    def plan(self, directory: Path) -> None:
        recipe = Recipe.model_validate(
            {
                "task": "classify",
                "model": {"kind": "vit", "patch_size": 4, "shape": SHAPE},
                "data": {"source": "digits", "limit": 96},
                "train": {"max_steps": self.steps, "micro_batch": 8, "global_batch": 16},
                "optimizer": {"lr": 1e-3, "warmup": {"steps": 2}},
                "evaluate": {"micro_batch": 60, "every_steps": 2},
                "checkpoint": {"every_steps": 2, "keep": 1, "async_save": self.behind is not None},
                "strategy": self.strategy,
            }
        )
        facts = describe(recipe.data, None, 0)
        spec = make_plan(recipe, facts=facts, hardware=CPU, ranks=2, run_dir=directory / self.name)
        write_spec(spec)
        self.run = str(spec.run_dir)

    @property
    def losses(self) -> list[float]:
        records = [json.loads(line) for line in (Path(self.run) / "metrics.jsonl").read_text().splitlines()]
        return [record["loss"] for record in records if "loss" in record]


class Start(dict[str, Case]):
    """The cases by name, after one start of two ranks; and what ended it."""

    failure: Failure | None
    mounted: bool


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    directory = tmp_path_factory.mktemp("saving")
    stops = {4: "fills", 6: "full", 10: "full", 12: "fills", 14: "full"}
    cases = [
        Case("undisturbed", "ddp", {}),
        Case("ddp", "ddp", TWICE),
        Case("last", "ddp", {4: "rank 1 writes nothing", 8: "rank 1 writes"}),
        Case("drive", "ddp", stops, steps=20),
        Case("behind", "ddp", {}, behind={4: "held", 6: "fails"}),
        Case("behind thrice", "ddp", {}, steps=12, behind={4: "fails", 6: "fails", 8: "fails"}),
        Case("fsdp2", "fsdp2", TWICE),
        Case("zero2", "zero2", TWICE),
        Case("zero3", "zero3", TWICE),  # replaces F.linear for the rest of the process
        Case("amid", "zero3", {4: "amid"}),  # ends the start
    ]
    for case in cases:
        case.plan(directory)
    drive = directory / "drive" / "checkpoints"
    drive.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DRIVE}", "tmpfs", str(drive)]
    start = Start({case.name: case for case in cases})
    start.mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    if not start.mounted:
        del start["drive"]
    environ = dict(os.environ)
    prepare(environ, CPU, local_size=2)
    (directory / "cases.json").write_text(json.dumps([asdict(case) for case in start.values()]))
    try:
        start.failure = run_ranks(
            [sys.executable, str(WORKER), str(directory / "cases.json")], 2, directory / "logs", environ
        ).failure
        for case in start.values():
            path = directory / case.name / "outcome.json"
            assert path.exists() or case.name == "amid", start.failure
            case.outcome = json.loads(path.read_text()) if path.exists() else {}
        yield start
    finally:
        if start.mounted:
            subprocess.run(["umount", str(drive)], check=True)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_rank_cannot_write(start: Start, strategy: str) -> None:
    outcome = start[strategy].outcome
    assert outcome["said"] == [
        "checkpoint of step 4 was not saved: rank 1: File too large; the one of step 2 stays; training goes on",
        "checkpoint of step 6 was not saved: rank 0: File too large; the one of step 2 stays; training goes on",
    ]
    kept = ["step-000002", ["best.json", "step-000002"]]
    assert [outcome["after"][step] for step in ("2", "4", "6")] == [kept] * 3
    assert outcome["after"]["8"][0] == "step-000008"
    assert outcome["stopped"] is None
    expected = start["undisturbed"].losses
    assert len(expected) == 8
    assert start[strategy].losses == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("strategy", "each"), [("ddp", 12), ("fsdp2", 16), ("zero2", 20), ("zero3", 16)])
def test_the_size_is_about_known_beforehand(start: Start, strategy: str, each: int) -> None:
    checkpoint = Path(start[strategy].run) / "checkpoints" / "step-000008"
    elements = sum(value.numel() for value in load_file(checkpoint / "model.safetensors").values())
    assert start[strategy].outcome["sizes"] == [elements * each] * 4
    written = sum(entry.size for entry in read_manifest(checkpoint).files.values())
    assert elements * each < written  # the rest does not grow with the model


def test_what_a_probe_finds_is_found_before_anything_is_written(start: Start) -> None:
    outcome = start["last"].outcome
    assert outcome["said"] == [
        "checkpoint of step 4 was not saved: rank 1: File too large; the one of step 2 stays; training goes on"
    ]
    assert 4 not in outcome["parts"]
    assert outcome["after"]["6"][0] == "step-000006"


def test_a_run_does_not_end_well_without_its_last_checkpoint(start: Start) -> None:
    outcome = start["last"].outcome
    assert outcome["stopped"] == (
        "checkpoint of step 8 was not saved: rank 1: File too large; the one of step 6 stays; it is of the last step, "
        f"so the run stops. Mend the cause, then go on with: zerofit train --resume {start['last'].run}"
    )
    assert outcome["after"]["8"][0] == "step-000006"


def test_a_full_drive_three_times_in_a_row_ends_the_run(start: Start) -> None:
    if not start.mounted:
        pytest.skip("mount is not allowed here")
    outcome = start["drive"].outcome
    first, second, *later = outcome["said"]
    none = "No space left on device"
    goes_on = "training goes on"
    assert first == f"checkpoint of step 4 was not saved: rank 0: {none}; the one of step 2 stays; {goes_on}"
    assert second.startswith("checkpoint of step 6 was not saved: rank 0: ")
    assert "KiB are needed and 16.0 KiB are free in " in second
    assert 6 not in outcome["parts"]
    assert [line.split(" was")[0] for line in later] == ["checkpoint of step 10", "checkpoint of step 12"]
    assert "; it is the third in a row, so the run stops. Mend" in outcome["stopped"]
    assert outcome["stopped"].startswith("checkpoint of step 14 was not saved: rank 0: ")
    whole = ["step-000002"] * 3 + ["step-000008"] * 4
    assert [name for name, _ in outcome["after"].values()] == whole
    assert not any(name.startswith(".") for _, names in outcome["after"].values() for name in names)
    assert len(start["drive"].losses) == 14


def test_training_goes_on_while_a_checkpoint_is_brought_to_the_drive(start: Start) -> None:
    outcome = start["behind"].outcome
    assert outcome["meanwhile"] == {"5": "step-000002"}  # that of step 4 is held until step 5 is done
    assert outcome["said"] == [
        "checkpoint of step 6 was not saved: rank 0: File too large; the one of step 4 stays; training goes on"
    ]
    assert outcome["after"]["8"] == ["step-000008", ["best.json", "step-000004", "step-000008"]]  # the best, the last
    assert start["behind"].losses == start["undisturbed"].losses
    assert outcome["memory"] == []


def test_three_failures_behind_training_in_a_row_end_the_run(start: Start) -> None:
    outcome = start["behind thrice"].outcome
    assert [line.split(":")[0] for line in outcome["said"]] == [
        f"checkpoint of step {step} was not saved" for step in (4, 6)
    ]
    assert outcome["stopped"].startswith(
        "checkpoint of step 8 was not saved: rank 0: File too large; the one of step 2"
    )
    assert "; it is the third in a row, so the run stops." in outcome["stopped"]
    assert len(start["behind thrice"].losses) == 10  # heard of at the save after it


def test_a_rank_that_fails_while_its_peers_wait_in_a_collective_ends_the_run_with_its_cause(start: Start) -> None:
    assert start.failure is not None
    assert start.failure.rank == 1
    assert start.failure.message == (
        "OutOfStep: rank 1 failed amid a save that its peers wait in: MemoryError: no more"
    )


def test_a_rank_that_does_not_answer_is_waited_for_no_longer_than_the_limit() -> None:
    store = dist.HashStore()
    answers: dict[int, str | None] = {}

    def be(rank: int) -> None:
        agreement = Agreement(store, rank, 3)
        for fault in (None, "No space left on device" if rank else None):
            answers[rank] = agreement.reach(fault)

    ranks = [threading.Thread(target=be, args=(rank,)) for rank in range(3)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert answers == dict.fromkeys(range(3), "rank 1: No space left on device (and 1 more)")
    alone = Agreement(dist.PrefixStore("other", store), 0, 3, timedelta(milliseconds=1))
    with pytest.raises(Unanswered, match=r"^ranks 1, 2 have not answered for .*; rank 0 itself failed: it did$"):
        alone.reach("it did")
