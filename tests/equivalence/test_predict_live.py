"""Engines replayed for predictions, held to the real ones on two ranks of this CPU: what the tensors of a rank take.

It is told of a step's passes and of its optimizer.

    python -m pytest tests/equivalence/test_predict_live.py -m 'thorough or not thorough'
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from cases import plan, recipe
from starts import asked_for, run_script

from zerofit.plan import fused
from zerofit.plan.files import write_spec
from zerofit.plan.spec import RunSpec
from zerofit.predict import playing
from zerofit.predict.replay import Books

# Two million parameters, and a few hundred thousand numbers besides: engines decide on what is there.
SHAPE = {"hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 768}
VIT = {"kind": "vit", "patch_size": 4, "shape": SHAPE}
QWEN3 = {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 64, **SHAPE}
LORA = {"kind": "patch_lm", "patch_size": 4, "shape": QWEN3, "lora": {"rank": 4, "alpha": 8}}
TOP = {**VIT, "trainable": [r"layers?\.2\.|head", {"pattern": ".", "freeze": True}]}
STEPS = 10
CLOSE = 0.006


def zero(name: str, bucket: int = 400_000, offload: tuple[str, ...] = (), **others: Any) -> dict[str, Any]:
    """A ZeRO strategy whose buckets, groups and limits are met by so small a model."""
    settings: dict[str, Any] = {"reduce_bucket_size": bucket}
    if name == "zero3":
        settings |= {"stage3_prefetch_bucket_size": 300_000, "sub_group_size": 700_000}
        settings |= {"stage3_max_reuse_distance": 600_000, "stage3_max_live_parameters": 1_500_000}
    parts = {part: "cpu" for part in offload}
    return {"name": name, "offload": parts, "deepspeed": {"zero_optimization": settings}, **others}


BOTH = ("optimizer", "params")
FULL = {"activation_checkpointing": "full"}
# Of each: model, strategy, precision, accumulation.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str, int]] = {
    "ddp-several": (VIT, {"name": "ddp"}, "bf16", 2),
    "zero1-several": (VIT, zero("zero1"), "bf16", 2),
    "zero2": (VIT, zero("zero2"), "bf16", 1),
    "zero2-fused": (VIT, zero("zero2"), "fp32", 1),
    "zero2-small-bucket": (VIT, zero("zero2", 100_000), "fp32", 1),
    "zero2-several": (VIT, zero("zero2"), "bf16", 2),
    "zero2-offloaded": (VIT, zero("zero2", offload=("optimizer",)), "bf16", 2),
    "fsdp2": (VIT, {"name": "fsdp2"}, "bf16", 2),
    "fsdp2-fused": (VIT, {"name": "fsdp2"}, "bf16", 1),
    "fsdp2-top": (TOP, {"name": "fsdp2"}, "bf16", 1),
    "zero3": (VIT, zero("zero3"), "bf16", 1),
    "zero3-small-bucket": (VIT, zero("zero3", 100_000), "fp32", 1),
    "zero3-lora-recomputed": (LORA, zero("zero3", **FULL), "fp32", 1),
    "zero3-offloaded": (VIT, zero("zero3", offload=BOTH), "bf16", 2),
}
MORE: dict[str, tuple[dict[str, Any], dict[str, Any], str, int]] = {
    "ddp": (VIT, {"name": "ddp"}, "fp32", 1),
    "zero1": (VIT, zero("zero1"), "bf16", 1),
    "zero1-several-float32": (VIT, zero("zero1"), "fp32", 2),
    "zero1-offloaded": (VIT, zero("zero1", offload=("optimizer",)), "bf16", 1),
    "zero1-offloaded-several": (VIT, zero("zero1", offload=("optimizer",)), "bf16", 2),
    "zero2-large-bucket": (VIT, zero("zero2", 5_000_000), "bf16", 1),
    "zero2-several-float32": (VIT, zero("zero2"), "fp32", 2),
    "zero2-offloaded-float32": (VIT, zero("zero2", offload=("optimizer",)), "fp32", 2),
    "zero2-top": (TOP, zero("zero2"), "bf16", 1),
    "fsdp2-offloaded": (VIT, {"name": "fsdp2", "offload": dict.fromkeys(BOTH, "cpu")}, "fp32", 1),
    "fsdp2-lora": (LORA, {"name": "fsdp2"}, "fp32", 1),
    "zero3-large-bucket": (VIT, zero("zero3", 5_000_000), "bf16", 1),
    "zero3-several": (VIT, zero("zero3"), "bf16", 2),
    "zero3-top": (TOP, zero("zero3"), "bf16", 1),
    "zero3-lora": (LORA, zero("zero3"), "fp32", 1),
    "zero3-recomputed": (VIT, zero("zero3", **FULL), "fp32", 1),
    "zero3-optimizer-offloaded": (VIT, zero("zero3", offload=("optimizer",)), "fp32", 1),
}


def spec_of(name: str, directory: Path) -> RunSpec:
    model, strategy, precision, accumulation = (CASES | MORE)[name]
    made = recipe(
        model,
        strategy={**strategy, "precision": precision},
        train={"max_steps": STEPS, "micro_batch": 1, "global_batch": 2 * accumulation},
        optimizer={"warmup": {"steps": 1}},
    )
    return plan(made, 2, directory / name)


@pytest.fixture(scope="module")
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunSpec]:
    """Train what is asked for in one start; ZeRO-3 replaces F.linear for the rest of a process, and comes last."""
    directory = tmp_path_factory.mktemp("live")
    specs = {name: spec_of(name, directory) for name in sorted(asked_for(request), key=lambda one: "zero3" in one)}
    for spec in specs.values():
        write_spec(spec)
    works = directory / "start" / "works.json"
    works.parent.mkdir()
    works.write_text(json.dumps([str(spec.run_dir) for spec in specs.values()]))
    run_script("memory_worker.py", works, world=2)
    return specs


def predicted(spec: RunSpec) -> dict[str, int]:
    """On a CPU, host and device are one; nothing is given to cuBLAS."""

    def together(device: Any, _: Any) -> Books:
        return Books(device, device)

    with (
        patch.object(playing, "Books", together),
        patch.object(playing, "multiplying", lambda _: 0),
        patch.object(fused, "DEVICES", {"cpu"} if "fused" in spec.run_dir.name else {"cuda"}),
    ):
        ranks = [played.books.device.peaks for played in playing.play_ranks(spec)]
    once, *passes, step = (
        max(peaks[phase].total for peaks in ranks) for phase in ("init", "forward", "backward", "step")
    )
    return {"passes": max(passes), "step": step} | (
        {"second": max(once, *passes)} if spec.strategy.name == "ddp" else {}  # which makes its buckets anew then
    )


def data(spec: RunSpec) -> int:
    """Bytes of the training images, which are tensors as well."""
    return spec.images.train * spec.images.image_size**2


@pytest.mark.parametrize("name", [*CASES, *(pytest.param(name, marks=pytest.mark.thorough) for name in MORE)], ids=str)
def test_a_replayed_engine_takes_what_the_real_one_does(name: str, measured: Mapping[str, RunSpec]) -> None:
    spec = measured[name]
    real = json.loads((spec.run_dir / "memory.json").read_text())
    for phase, size in predicted(spec).items():
        assert size + data(spec) == pytest.approx(real[phase], rel=CLOSE), phase
