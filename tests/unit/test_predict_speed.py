"""How long a step takes: a roofline of operations, what strategies move, and which of them is slowest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from fake_runs import BLOCKS, VIT, images, text
from hypothesis import given
from hypothesis import strategies as st
from plan_examples import CPU
from torch.utils._python_dispatch import TorchDispatchMode

from zerofit.config.load import load_job
from zerofit.launch.asked import Asked
from zerofit.launch.planning import staged_plan
from zerofit.plan.prediction import Speed
from zerofit.predict import roofline, speed
from zerofit.predict.augmenting import augmenting
from zerofit.predict.ledger import Phase
from zerofit.predict.rates import KERNEL_S, LAUNCH_S, Rates, rates_of
from zerofit.predict.roofline import Roofline
from zerofit.predict.seen import Counted
from zerofit.predict.timing import Timing
from zerofit.predict.traffic import traffic

RATES = Rates(products={"bf16": 1e12, "fp32": 1e11}, memory=1e10, link=1e10, pcie=1e9, host=1e9)


class Watching(TorchDispatchMode):
    """Hands each operation to a roofline."""

    def __init__(self, roofline: Roofline, phase: Phase) -> None:
        super().__init__()
        self.roofline, self.phase = roofline, phase

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        self.roofline.op(func, args, made, self.phase)
        return made


@pytest.mark.parametrize(
    ("dtype", "size", "seconds"),
    [
        (torch.float32, 512, 2 * 512**3 / 1e11),  # by arithmetic
        (torch.bfloat16, 256, 3 * 2 * 256**2 / 1e10),  # by memory: products are ten times as fast
        (torch.float32, 8, KERNEL_S),
    ],
)
def test_an_operation_takes_what_limits_it(dtype: torch.dtype, size: int, seconds: float) -> None:
    seen, matrix = Roofline(RATES, "bf16"), torch.ones(size, size, dtype=dtype)
    with Watching(seen, "backward"):
        matrix @ matrix.t()
    assert seen.seconds == pytest.approx(seconds)
    assert (seen.operations, seen.flops) == (1, 2 * size**3), "a view is no operation"


def test_attention_counts_shared_keys_as_often_as_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch 2.13 does; torch 2.11's count raises where heads differ."""
    count = roofline.flop_registry[torch.ops.aten._scaled_dot_product_flash_attention]

    def strict(query: torch.Size, key: torch.Size, value: torch.Size, *others: Any, **more: Any) -> Any:
        assert query[1] == key[1] == value[1]
        return count(query, key, value, *others, **more)

    monkeypatch.setitem(roofline.flop_registry, torch.ops.aten._scaled_dot_product_flash_attention, strict)
    heads, shared = (torch.empty(2, count, 8, 16, device="meta", dtype=torch.bfloat16) for count in (4, 2))
    seen = Roofline(RATES, "bf16")
    attention = torch.ops.aten._scaled_dot_product_flash_attention.default
    seen.op(attention, (heads, shared, shared), torch.empty_like(heads), "forward")
    assert seen.flops == 2 * 2 * (2 * 4) * 8 * 8 * 16, "scores, and what they weigh"


def test_a_step_and_an_evaluation_are_no_part_of_passes() -> None:
    seen = Roofline(RATES, "fp32")
    for phase in ("init", "forward", "forward", "backward", "step", "forward", "evaluation"):
        with Watching(seen, phase):
            torch.ones(4).add_(1)
    assert (seen.operations, seen.micro_steps) == (2 * 4, 2)


elements = st.integers(1, 10**10)


@given(trained=elements, frozen=elements, ranks=st.sampled_from([1, 2, 4, 8]), accumulation=st.integers(1, 4))
def test_what_is_sent_is_what_the_papers_count(trained: int, frozen: int, ranks: int, accumulation: int) -> None:
    share = (ranks - 1) / ranks

    def moved(name: str) -> Any:
        strategy = {"name": name if ranks > 1 or name != "ddp" else "single", "precision": "bf16"}
        return traffic(images(VIT, ranks, accumulation=accumulation, strategy=strategy), trained, frozen)

    assert moved("ddp").hidden == pytest.approx(8 * trained * share)
    assert moved("zero1").hidden == pytest.approx(4 * trained * share)
    assert moved("zero2").hidden == pytest.approx(accumulation * 4 * trained * share)
    assert moved("zero2").exposed == moved("zero1").exposed == pytest.approx(2 * trained * share)
    whole = accumulation * (4 * (trained + frozen) + 2 * trained) * share
    assert moved("zero3").hidden == moved("fsdp2").hidden == pytest.approx(whole)
    assert moved("fsdp2").optimizer == pytest.approx(28 * trained / ranks)
    assert moved("zero3").optimizer == pytest.approx(74 * trained / ranks)
    assert moved("zero3").pcie == 0
    assert traffic(
        images(VIT, ranks, strategy={"name": "zero3", "offload": {"optimizer": "cpu"}, "precision": "bf16"}), 100, 0
    ).pcie == pytest.approx(2 * 2 * 100 / ranks)


def counted(strategy: str, *, ranks: int = 1, accumulation: int = 1, checkpointing: str = "none") -> float:
    """What is done on the host besides operations, for ten gradients in two blocks."""
    chosen = {"name": strategy, "activation_checkpointing": checkpointing, "precision": "bf16"}
    seen = Counted(seconds=1.0, operations=1, trained=1, frozen=0, gradients=10, modules=4, units=2)
    return speed.managing(images(VIT, ranks, accumulation=accumulation, strategy=chosen), seen)


def test_zero1_reduces_once_a_step_and_zero2_in_each_micro_batch() -> None:
    assert counted("zero1") == counted("zero2") == 10 * (speed.HOOK + speed.REDUCED)
    assert counted("zero2", accumulation=4) == 4 * counted("zero2")
    assert counted("zero1", accumulation=4) == 10 * (4 * speed.HOOK + speed.REDUCED)
    assert counted("zero2", ranks=4) == 10 * (speed.HOOK + speed.REDUCED / 4), "a rank keeps its share"


@pytest.mark.parametrize("strategy", ["single", "zero2", "zero3", "fsdp2"])
def test_blocks_that_are_recomputed_cost_the_host_more_than_their_operations(strategy: str) -> None:
    none, half, full = (counted(strategy, accumulation=3, checkpointing=one) for one in ("none", "selective", "full"))
    assert (half - none, full - none) == (3 * speed.RECOMPUTED, 3 * 2 * speed.RECOMPUTED)


seconds = st.floats(0, 1e3)


@given(gpu=seconds, host=seconds)
def test_passes_take_the_longer_of_gpu_and_host_and_a_fifth_more_where_they_are_alike(gpu: float, host: float) -> None:
    found = speed.together(gpu, host)
    assert max(gpu, host) <= found <= 1.19 * max(gpu, host) * (1 + 1e-3)
    assert speed.together(gpu, gpu) == pytest.approx(2**0.25 * gpu)
    assert speed.together(gpu, 4 * gpu) == pytest.approx(4 * gpu, rel=1e-3)


def timed(timing: Timing, strategy: str, name: str, *fields: str) -> Speed:
    """Of a recipe with weights that are made, on 4 H200s."""
    (recipe,) = load_job(name, ["model.pretrained=null", *fields, f"strategy.name={strategy}"]).stages
    made = timing.speed(staged_plan(recipe, Asked(gpus=4, gpu="h200"), None, follows=False).spec)
    assert isinstance(made, Speed)
    assert made.samples_s == pytest.approx(recipe.train.global_batch / made.step_s, rel=1e-3)
    return made


def test_vit_huge_is_ranked_right_and_met_within_the_band_and_half_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 images a rank: 0.194, 0.201 and 0.986 s a step (torch 2.11, without data loading).

    The last with each module gathered by itself, as ZeRO-3 did then.
    """
    timing, found = Timing(), {}
    words = ("vit-huge-food101", "model.shape=vit-huge", "train.micro_batch=64", "train.global_batch=256")
    blocks = timed(timing, "zero3", *words).parts["host"]
    monkeypatch.setattr(speed, "gathers_blocks", lambda _: False)
    for strategy, seconds in (("ddp", 0.194), ("zero2", 0.201), ("zero3", 0.986)):
        found[strategy] = made = timed(timing, strategy, *words)
        assert made.step_s == pytest.approx(seconds, rel=1.5 * made.error)
    assert found["zero3"].step_s > 3 * found["zero2"].step_s
    assert blocks - found["zero2"].parts["host"] < (found["zero3"].parts["host"] - found["zero2"].parts["host"]) / 3
    assert found["ddp"].parts["compute"] > found["zero2"].parts["compute"], "autocast casts at each use"


def test_qwen3_8b_on_images_is_met_within_the_band() -> None:
    """16 images a rank, measured: 259.6, 231.0 and 122.4 samples/s (docs/performance.md)."""
    timing = Timing()
    words = ("qwen3-8b-cifar10", "model.shape=qwen3-8b", "train.micro_batch=16", "train.global_batch=64")
    for strategy, samples_s in (("zero2", 259.6), ("fsdp2", 231.0), ("zero3", 122.4)):
        made = timed(timing, strategy, *words)
        assert made.samples_s == pytest.approx(samples_s, rel=made.error)


def test_a_host_augments_before_each_micro_batch() -> None:
    augment = {"crop_scale": [0.3, 1.0], "flip": 0.5, "randaugment": [2, 9], "mixup": 0.8, "cutmix": 1.0}
    plain, strong = (
        images(VIT, micro=32, accumulation=3, data={"source": "digits", "augment": one}) for one in ({}, augment)
    )
    few, many = augmenting(plain), augmenting(strong)
    assert few < 10 < 300 < many < 900, "scaled alone; and a thousand before warps were done together"
    less, more = Timing().speed(plain), Timing().speed(strong)  # each with a roofline of its own
    assert less is not None
    assert more is not None
    added = more.parts["host"] - less.parts["host"]
    assert added == pytest.approx(3 * LAUNCH_S * (many - few), rel=0.1), "three micro-batches a step"
    assert augmenting(text()) == 0


def test_no_time_is_predicted_for_a_cpu() -> None:
    assert rates_of(CPU, 2) is None
    assert Timing().speed(images(VIT | {"shape": BLOCKS}).model_copy(update={"hardware": CPU})) is None


def test_what_a_play_saw_that_broke_off_is_not_kept() -> None:
    timing, spec = Timing(), images(VIT)
    with pytest.raises(RuntimeError, match="watched by 1"), timing.watching(spec) as observers:
        raise RuntimeError(f"broke off, watched by {len(observers)}")
    with timing.watching(spec) as observers:
        assert len(observers) == 1
    with timing.watching(spec) as observers:
        assert observers == []
