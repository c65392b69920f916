"""A step that is played on tensors without memory allocates what the same step with values does."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fake_runs import (
    LORA,
    PATCHES,
    TEXT,
    VIT,
    activations,
    counted_for_real,
    images,
    seen,
    text,
    trained_for_real,
)
from torch._subclasses import fake_tensor
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import masking_utils

from zerofit.plan.prediction import Unpredicted
from zerofit.plan.spec import RunSpec
from zerofit.predict.autocast import like_cuda
from zerofit.predict.fake import pretending
from zerofit.predict.known import MOST, KnowingMode, known, without_memory
from zerofit.predict.memory import predict_memory
from zerofit.predict.playing import play

EAGER = {"attention": "eager"}  # CPUs have none of CUDA's attention kernels
FLASH, EFFICIENT = "_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention"
RECOMPUTED = {"name": "single", "precision": "bf16", "activation_checkpointing": "full"}
HALF_RECOMPUTED = RECOMPUTED | {"activation_checkpointing": "selective"}


@pytest.mark.parametrize(
    "spec",
    [
        images(VIT | EAGER, strategy={"name": "single", "precision": "fp32"}),
        images(VIT | EAGER, train={"micro_batch": 4, "global_batch": 4, "max_steps": 3, "label_smoothing": 0.1}),
        images(PATCHES | EAGER, strategy=HALF_RECOMPUTED),
        images(PATCHES | EAGER | {"lora": LORA, "pool": "cls"}),
        images(PATCHES | EAGER | {"trainable": ["^head", {"pattern": ".", "freeze": True}]}),
    ],
    ids=["float32", "smoothed labels", "recomputed", "adapters", "frozen"],
)
def test_a_step_takes_what_it_takes_with_values(spec: RunSpec) -> None:
    inputs = spec.batches.micro * 3 * 16 * 16  # uint8, which are there in forward alone
    real = counted_for_real(spec)
    assert activations(play(spec)) == real
    assert min(real.values()) > inputs


def test_a_step_takes_what_the_allocator_of_a_real_one_sees() -> None:
    """Without any mode of torch's: of a CPU, whose allocations are not rounded."""
    spec = images(VIT | EAGER, micro=16, strategy={"name": "single", "precision": "fp32"})
    model, steps, batch, forward = trained_for_real(spec)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        loss = steps.loss(forward, batch)
        with record_function("backward"):
            loss.backward()
    events = profiled.profiler.kineto_results.events()
    start = next(event.start_ns() for event in events if event.name() == "backward")
    total, peaks = 0, {"forward": 0, "backward": 0}
    for event in sorted((one for one in events if one.name() == "[memory]"), key=lambda one: one.start_ns()):
        total += event.nbytes()
        phase = "forward" if event.start_ns() < start else "backward"
        peaks[phase] = max(peaks[phase], total)
    assert activations(play(spec)) == pytest.approx(peaks, rel=0.01)


@pytest.mark.parametrize("capability", [(7, 5), (8, 0)])
@pytest.mark.parametrize("padded", [False, True])
def test_attention_is_by_the_kernel_that_the_card_would_choose(capability: tuple[int, int], padded: bool) -> None:
    spec = text(average=30 if padded else 40)
    hardware = spec.hardware.model_copy(update={"capability": capability})
    names = seen(spec.model_copy(update={"hardware": hardware}))
    flash = capability >= (8, 0)  # padding is on the right, and its mask left out
    whole = not padded and not flash  # fewer key-value heads, which no other kernel of that card knows
    assert (FLASH in names, EFFICIENT in names, "_safe_softmax" in names) == (flash, padded and not flash, whole)


def test_packed_rows_are_kept_apart_by_a_mask() -> None:
    data = {"source": "rows", "path": "rows", "max_length": 40, "packing": True}
    spec = text(average=40, rows=1, data=data)
    assert FLASH in seen(spec)
    several = spec.model_copy(update={"data": spec.text.model_copy(update={"rows": 300})})
    assert EFFICIENT in seen(several)


def test_logits_are_there_in_tiles_alone() -> None:
    spec = text(longest=2000, average=2000, rows=4)
    split = play(spec).books.device.peaks["backward"].split
    whole = 4 * 2000 * 40_000 * 4
    assert 0 < split["logits"] < whole / 4


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_dropout_keeps_a_byte_an_element(dropout: float) -> None:
    names = seen(images(VIT | {"dropout": dropout}))
    assert ("native_dropout" in names, "bernoulli_.float" in names) == (dropout > 0, False)


def test_autocast_computes_norms_and_softmax_in_float32_as_on_a_gpu() -> None:
    rows = torch.ones(2, 4, dtype=torch.bfloat16)

    def results() -> list[torch.dtype]:
        with torch.autocast("cpu", torch.bfloat16):
            found = (F.layer_norm(rows, [4]), rows.softmax(1), rows.exp(), rows @ rows.T, rows.sum(), rows.pow(2))
        return [one.dtype for one in found]

    low, high = torch.bfloat16, torch.float32
    before = results()
    assert before == [low] * 6
    with like_cuda():
        assert results() == [high, high, high, low, high, high]
    assert results() == before


def test_nothing_of_the_pretence_is_left() -> None:
    def state() -> list[Any]:
        return [
            F.scaled_dot_product_attention,
            F.dropout,
            masking_utils.is_tracing,
            fake_tensor.CONSTANT_NUMEL_LIMIT,
            fake_tensor.log.disabled,
            torch._C._dispatch_has_kernel_for_dispatch_key("aten::layer_norm", "AutocastCPU"),
            torch._C._len_torch_dispatch_stack(),
        ]

    before = state()
    with suppress(ZeroDivisionError), pretending(KnowingMode(), None):
        assert state() != before
        raise ZeroDivisionError
    assert state() == before


def test_values_of_masks_are_known_and_others_are_not() -> None:
    mode, batch = KnowingMode(), {"mask": torch.tensor([1, 1, 0]), "pixels": torch.ones(3)}
    rows = torch.arange(4096)
    with pretending(mode, None):
        fake, wide = without_memory(batch, mode), known(rows, mode)
        assert bool((fake["mask"] == 0).any())
        assert torch.ones(5)[torch.arange(5) > 2].shape == (2,)
        with pytest.raises(fake_tensor.DataDependentOutputException):
            bool(fake["pixels"].any())
        table = wide[:, None] >= wide  # too large to be computed
        assert table.numel() > MOST
        assert wide.constant is not None
        assert table.constant is None


def test_frozen_blocks_that_are_packed_hold_what_their_bytes_are() -> None:
    spec = text(TEXT | {"quantize": "nf4", "lora": LORA}, strategy={"name": "single", "precision": "fp16"})
    plain = text(TEXT | {"lora": LORA}, strategy={"name": "single", "precision": "fp16"})
    packed, whole = (play(one).books.device.peaks["init"].split["weights"] for one in (spec, plain))
    matrices = 3 * (64 * (64 + 2 * 32) + 64 * 64 + 3 * 64 * 128)
    rest = 2 * 40_000 * 64  # embedding and head, in float16 beside packed blocks
    saved = matrices * (4 - 0.5 - 1 / 64 - 4 / (64 * 256)) + rest * 2
    assert whole - packed == pytest.approx(saved, rel=0.02)


def test_a_model_that_decides_on_values_is_not_predicted() -> None:
    experts = {
        "model_type": "mixtral",
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "intermediate_size": 32,
        "vocab_size": 300,
    }
    with pytest.raises(Unpredicted, match="cannot be played through"):
        predict_memory(text(TEXT | {"shape": experts}))
