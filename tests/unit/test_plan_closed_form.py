"""Peaks of memory by formulas: against what runs on GPUs measured, against arithmetic, and in their shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_examples import CPU, TEXT_FACTS, gpus

from zerofit.config.load import load_job
from zerofit.config.schema import Recipe
from zerofit.plan.assumed import assumed_facts
from zerofit.plan.build import make_plan
from zerofit.plan.closed_form import ERROR, estimate_memory, largest_layer
from zerofit.plan.hardware import GIB
from zerofit.plan.prediction import Unpredicted
from zerofit.plan.spec import RunSpec

MEASURED = Path(__file__).parents[2] / "docs" / "performance.jsonl"
BIG = ["train.micro_batch=32", "train.global_batch=64"]
VIT = ["train.micro_batch=64", "train.global_batch=128"]
ROWS = [  # recipe, overrides, ranks, and which line of docs/performance.jsonl measured it
    ("qwen3-8b-cifar10", BIG, 2, {"shape": "qwen3-8b", "strategy": "fsdp2", "date": "2026-11-21"}),
    ("qwen3-8b-cifar10", BIG, 2, {"shape": "qwen3-8b", "strategy": "zero2", "date": "2026-11-21"}),
    ("qwen3-8b-cifar10", BIG, 2, {"shape": "qwen3-8b", "strategy": "zero3", "date": "2026-11-21"}),
    ("qwen3-8b-cifar100-probe", ["train.micro_batch=256"], 1, {"variant": "online", "strategy": "zero2"}),
    *(
        ("vit-huge-food101", VIT, 2, {"shape": "vit-huge", "strategy": name})
        for name in ("ddp", "zero2", "zero3", "fsdp2")
    ),
    ("vit-base-cifar100-lora", ["train.micro_batch=128"], 1, {"shape": "vit-base", "strategy": "single"}),
]


def planned(name: str, overrides: list[str], ranks: int, strategy: str | None = None) -> RunSpec:
    words = [*overrides, *([] if strategy is None else [f"strategy={strategy}"])]
    (said,) = load_job(name, words).stages
    return make_plan(said, facts=assumed_facts(said), hardware=gpus(8), ranks=ranks, run_dir=Path("runs"))


@pytest.mark.parametrize(("name", "overrides", "ranks", "line"), ROWS)
def test_a_peak_is_what_a_gpu_measured(name: str, overrides: list[str], ranks: int, line: dict[str, Any]) -> None:
    lines = [json.loads(one) for one in MEASURED.read_text().splitlines()]
    found = next(one for one in lines if line.items() <= one.items())
    memory = estimate_memory(planned(name, overrides, ranks, line["strategy"]))
    assert memory.peak_gib == pytest.approx(found["peak_alloc_gib"], rel=ERROR)
    assert not memory.exact
    assert sum(memory.split.values()) == pytest.approx(memory.peak_gib, abs=0.01)
    assert max(memory.phases, key=lambda phase: memory.phases[phase]) == memory.phase


def test_what_is_held_is_counted_by_the_byte() -> None:
    """Two ranks, several micro-batches, AdamW, which makes nothing: bytes an element of 6.9 B, at the step."""
    states = {"ddp": 4 + 8 + 4, "zero1": 2 + 6 + 4, "zero2": 2 + 6 + 2, "fsdp2": 2 + 4 + 2}
    for strategy, size in states.items():
        memory = estimate_memory(planned("qwen3-8b-cifar10", [], 2, strategy))
        assert memory.phases["step"] == pytest.approx(size * 6_946_284_546 / GIB, rel=0.001), strategy


def test_offloaded_state_is_in_the_hosts_memory() -> None:
    kept, away = (estimate_memory(planned("qwen3-8b-cifar10", [], 2, name)) for name in ("zero3", "zero3+offload_all"))
    assert away.split.get("optimizer", 0.0) == away.split.get("weights", 0.0) == 0.0
    assert away.peak_gib < 0.3 * kept.peak_gib
    assert away.host_gib > 18 * 6_946_284_546 / GIB


sizes = st.sampled_from([1, 2, 4])
strategies = st.sampled_from(
    ["ddp", "zero1", "zero2", "zero3", "fsdp2", "zero2+offload_optimizer", "zero3+offload_all"]
)


@settings(max_examples=30)
@given(
    strategy=strategies,
    micro=sizes,
    ranks=sizes,
    longest=st.integers(16, 2000),
    modes=st.sampled_from([("full", "selective"), ("selective", "none"), ("full", "none")]),
    packing=st.booleans(),
)
def test_more_work_never_needs_less(
    strategy: str, micro: int, ranks: int, longest: int, modes: tuple[str, str], packing: bool
) -> None:
    def peak(**changes: Any) -> float:
        at = {"micro": micro, "longest": longest, "mode": modes[0], **changes}
        said = _sft(strategy, at["micro"], at["mode"], packing)
        facts = TEXT_FACTS.model_copy(update={"longest": at["longest"]})
        spec = make_plan(said, facts=facts, hardware=gpus(8), ranks=ranks, run_dir=Path("runs"))
        return estimate_memory(spec).peak_gib

    here = peak()
    assert peak(longest=2 * longest) >= here
    assert peak(micro=2 * micro) >= here or 64 % (2 * micro * ranks)
    assert peak(mode=modes[1]) >= here


def _sft(strategy: str, micro: int, mode: str, packing: bool) -> Recipe:
    return load_job(
        "qwen3-8b-sft",
        [
            "model.shape=qwen3-0.6b",
            "model.tokenizer=bytes",
            f"strategy={strategy}",
            f"strategy.activation_checkpointing={mode}",
            f"train.micro_batch={micro}",
            f"data.packing={str(packing).lower()}",
        ],
    ).stages[0]


def test_what_cannot_be_predicted_says_why() -> None:
    (said,) = load_job("digits").stages
    spec = make_plan(said, facts=assumed_facts(said), hardware=CPU, ranks=1, run_dir=Path("runs"))
    with pytest.raises(Unpredicted, match="for GPUs alone"):
        estimate_memory(spec)
    (said,) = load_job("qwen3-8b-cifar10", ["model.pretrained=someone/some-model"]).stages
    spec = make_plan(said, facts=assumed_facts(said), hardware=gpus(8), ranks=4, run_dir=Path("runs"))
    with pytest.raises(Unpredicted, match="the sizes of someone/some-model are not at hand"):
        estimate_memory(spec)
    assert largest_layer(spec) is None


def test_a_layer_is_the_largest_of_block_and_head() -> None:
    spec = planned("qwen3-8b-cifar10", [], 2)
    assert largest_layer(spec) == 2 * (192_937_984 + 2 * 4096 + 2 * 128)
    (said,) = load_job("qwen3-8b-sft").stages
    spec = make_plan(said, facts=assumed_facts(said), hardware=gpus(8), ranks=8, run_dir=Path("runs"))
    assert largest_layer(spec) == 2 * 151936 * 4096
