"""Engines that generate amid training: the same completions, weights gathered once, and steps that notice nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rollout_worker import STEPS
from starts import run_script

SHORT = ("ddp", "fsdp2", "ddp:lora", "fsdp2:lora", "ddp:bf16")
# zero3 last: it replaces F.linear for the rest of a process
ALL = (*SHORT, "ddp:lora:bf16", "fsdp2:bf16", "fsdp2:lora:bf16", "ddp:nf4", "fsdp2:nf4")
ALL += ("zero1", "zero2", "zero2:lora", "zero2:bf16", "zero2:nf4")
ALL += ("zero3", "zero3:lora", "zero3:bf16", "zero3+offload_all:lora", "zero3:nf4")


@pytest.fixture(
    scope="module", params=[pytest.param(SHORT, id="short"), pytest.param(ALL, id="all", marks=pytest.mark.thorough)]
)
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Of each rank, for each work."""
    path = tmp_path_factory.mktemp("rollout") / "works.json"
    path.write_text(json.dumps(request.param))
    run_script("rollout_worker.py", path, world=2)
    return [json.loads(path.with_suffix(f".{rank}.json").read_text()) for rank in range(2)]


def like(work: str) -> str:
    """The work that needs no care with weights."""
    return ":".join(["ddp", *work.split(":")[1:]])


def test_training_goes_on_as_if_nothing_had_been(outcomes: list[dict[str, Any]]) -> None:
    for one in outcomes:
        for work, outcome in one.items():
            assert outcome["disturbed"] == outcome["losses"], work
            assert outcome["same"], work


def test_every_engine_completes_alike(outcomes: list[dict[str, Any]]) -> None:
    for one in outcomes:
        for work, outcome in one.items():
            if work.endswith(":bf16"):
                continue  # each rounds in its own way
            for index in range(STEPS):
                found, right = outcome["completions"][index], one[like(work)]["completions"][index]
                assert [tokens for tokens, _ in found] == [tokens for tokens, _ in right], work
                for (_, some), (_, other) in zip(found, right, strict=True):
                    assert some == pytest.approx(other, abs=1e-4), work


def test_a_completion_depends_on_no_rank(outcomes: list[dict[str, Any]]) -> None:
    for first, second in zip(*(one.values() for one in outcomes), strict=True):
        shared = [tokens for tokens, _ in first["completions"][0]][1:]
        assert shared == [tokens for tokens, _ in second["completions"][0]]


def test_ranks_speak_once_however_many_tokens_there_are(outcomes: list[dict[str, Any]]) -> None:
    for one in outcomes:
        for work, outcome in one.items():
            for few, many, plainly in outcome["spoken"]:
                assert few == many == plainly, work
                assert (few > 0) == work.startswith(("fsdp2", "zero3")), work
