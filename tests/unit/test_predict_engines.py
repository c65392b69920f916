"""Engines replayed for predictions: what they hold, by formula, and when gathered weights come and go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_examples import FACTS, gpus, recipe
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from zerofit.models.trained import TrainedModel
from zerofit.plan.build import make_plan
from zerofit.plan.spec import RunSpec
from zerofit.predict.coordinator import Coordinator, Limits, Status, Weight
from zerofit.predict.fake import fake_model, pretending
from zerofit.predict.flat import Flat
from zerofit.predict.gathering import Gathered, Shares
from zerofit.predict.host import page_locked
from zerofit.predict.known import KnowingMode
from zerofit.predict.ledger import Ledger
from zerofit.predict.playing import play
from zerofit.predict.replay import Books, Replay
from zerofit.predict.replays import REPLAYS
from zerofit.predict.updating import optimizer_groups
from zerofit.predict.zero3_hooks import hook_modules

SHAPE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 65}
MODEL = {"kind": "vit", "patch_size": 4, "shape": {"model_type": "vit", **SHAPE}}
FROZEN = {**MODEL, "trainable": ["head", {"pattern": ".", "freeze": True}]}
FLOAT, LOW = 4, 2


def spec_of(
    strategy: str | dict[str, Any],
    ranks: int,
    *,
    model: dict[str, Any] = MODEL,
    accumulation: int = 1,
    bucket: int | None = None,
    card: float = 80.0,
) -> RunSpec:
    fields: dict[str, Any] = {"name": strategy} if isinstance(strategy, str) else dict(strategy)
    if bucket is not None:
        fields["deepspeed"] = {"zero_optimization": {"reduce_bucket_size": bucket}}
    made = recipe(
        model=model,
        strategy={**fields, "precision": "bf16"},
        train={"micro_batch": 1, "global_batch": ranks * accumulation, "max_steps": 9, "epochs": None},
    )
    hardware = gpus(max(8, ranks)).model_copy(update={"memory_gib": card})
    return make_plan(made, facts=FACTS, hardware=hardware, ranks=ranks, run_dir=Path("runs/test"))


def attached(spec: RunSpec) -> tuple[Replay, TrainedModel]:
    books, mode = Books(Ledger(), Ledger()), KnowingMode()
    replay = REPLAYS[spec.strategy.name](spec, books)
    model = fake_model(spec, replay.held(), mode)
    with pretending(mode, None):
        replay.attach(model)
    return replay, model


def sizes(model: nn.Module, *, trained: bool) -> list[int]:
    return [one.numel() for one in model.parameters() if one.requires_grad == trained]


def flats(model: TrainedModel, spec: RunSpec) -> list[Flat]:
    """Of the optimizer's groups: vectors are not decayed."""
    groups = optimizer_groups(model, spec)
    return [Flat(tuple(one.numel() for one in group), spec.batches.ranks) for group in groups]


RANKS = st.integers(1, 64)


@given(sizes=st.lists(st.integers(1, 500), min_size=1, max_size=30), ranks=RANKS)
def test_partitions_are_equal_and_hold_every_element_once(sizes: list[int], ranks: int) -> None:
    flat = Flat(tuple(sizes), ranks)
    assert flat.elements == ranks * flat.partition
    assert flat.elements % (2 * ranks) == 0
    assert sum(sizes) <= flat.elements < sum(sizes) + 2 * ranks
    assert [sum(cut.length for cut in cuts) for cuts in flat.cuts] == sizes
    held = [flat.of(rank) for rank in range(ranks)]
    assert sum(length for one in held for _, length in one) == sum(sizes)
    assert all(sum(length for _, length in one) <= flat.partition for one in held)
    assert all(length > 0 for one in held for _, length in one)


@given(st.integers(1, 2**45))
def test_page_locked_memory_comes_in_powers_of_two(size: int) -> None:
    taken = page_locked(size)
    assert size <= taken < 2 * size
    assert taken & (taken - 1) == 0


@settings(max_examples=10, deadline=None)
@given(ranks=RANKS, frozen=st.booleans())
def test_zero_2_holds_whole_weights_and_twelve_bytes_of_its_partition(ranks: int, frozen: bool) -> None:
    spec = spec_of("zero2", ranks, model=FROZEN if frozen else MODEL)
    replay, model = attached(spec)
    groups = flats(model, spec)
    now = replay.books.device.now
    assert now["weights"] == LOW * (sum(flat.elements for flat in groups) + sum(sizes(model, trained=False)))
    assert now["optimizer"] == 3 * FLOAT * sum(flat.partition for flat in groups)
    assert not now.get("gradients")


@settings(max_examples=10, deadline=None)
@given(ranks=RANKS, frozen=st.booleans())
def test_zero_3_holds_shares_and_one_bucket(ranks: int, frozen: bool) -> None:
    replay, model = attached(spec_of("zero3", ranks, model=FROZEN if frozen else MODEL, bucket=1000))
    trained, others = ([-(-one // ranks) for one in sizes(model, trained=which)] for which in (True, False))
    now = replay.books.device.now
    assert now["weights"] == LOW * (sum(trained) + sum(others))
    assert now["optimizer"] == FLOAT * sum(trained)  # moments are made in the first step
    assert now["gradients"] == LOW * sum(trained)
    assert now["buckets"] == LOW * 1000
    assert not now.get("gathered")


@settings(max_examples=10, deadline=None)
@given(ranks=RANKS)
def test_fsdp2_holds_float32_shards_of_whole_rows(ranks: int) -> None:
    replay, model = attached(spec_of("fsdp2", ranks))
    shards = [-(-one.shape[0] // ranks) * one[0].numel() for one in model.parameters()]
    now = replay.books.device.now
    assert now["weights"] == FLOAT * sum(shards)
    assert now["optimizer"] == 2 * FLOAT * sum(shards)


def test_offloaded_optimizers_lie_on_the_host_and_page_locked_but_for_the_moments() -> None:
    off = {"offload": {"optimizer": "cpu"}}
    spec = spec_of({"name": "zero2", **off}, 2)
    replay, model = attached(spec)
    parts, largest = [flat.partition for flat in flats(model, spec)], max(sizes(model, trained=True))
    device, host = replay.books.device.now, replay.books.host.now
    assert not device.get("optimizer")
    assert device["gradients"] == LOW * largest
    masters, weights = (sum(page_locked(item * part) for part in parts) for item in (FLOAT, LOW))
    assert host["optimizer"] == masters + weights + 2 * FLOAT * sum(parts)
    assert host["gradients"] == masters + page_locked(LOW * largest)
    plain = {"offload": {"optimizer": "cpu", "pin_memory": False}}
    unpinned, _ = attached(spec_of({"name": "zero2", **plain}, 2))
    assert unpinned.books.host.now["optimizer"] == (3 * FLOAT + LOW) * sum(parts)


def test_weights_are_flattened_on_the_host_where_the_card_has_no_room_beside_them() -> None:
    roomy, model = attached(spec_of("zero2", 64))
    whole = LOW * sum(sizes(model, trained=True))
    tight, _ = attached(spec_of("zero2", 64, card=1.5 * whole / 2**30))
    assert roomy.books.device.peaks["init"].total > 1.9 * whole
    assert tight.books.device.peaks["init"].total < 1.2 * whole
    assert tight.books.host.peaks["init"].total > 1.9 * whole
    assert tight.books.host.total == 0


@pytest.mark.parametrize("strategy", ["zero1", "zero2", "zero3", "zeropp", "fsdp2"])
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("ranks", [1, 4])
def test_after_a_step_all_is_as_it_was(strategy: str, accumulation: int, ranks: int) -> None:
    spec = spec_of(strategy, ranks, accumulation=accumulation, bucket=None if strategy == "fsdp2" else 3000)
    device = play(spec).books.device
    before, _ = attached(spec)
    for kind in ("buckets", "gradients") if strategy == "zeropp" else ("weights", "buckets", "gradients"):
        assert device.now.get(kind, 0) == before.books.device.now.get(kind, 0), kind
    assert not device.now.get("activations")


def test_zeropp_has_a_second_share_of_weights_from_their_first_use_to_the_step() -> None:
    limits = ("max_reuse_distance", "param_persistence_threshold", "prefetch_bucket_size")
    at_once = dict.fromkeys((f"stage3_{limit}" for limit in limits), 0)  # all are dropped in forward
    settings = {"deepspeed": {"zero_optimization": at_once}}
    plain, plus = (play(spec_of({"name": name, **settings}, 4)).books.device for name in ("zero3", "zeropp"))
    shares = plain.now["weights"]
    assert plus.now["weights"] == shares
    assert plus.peaks["backward"].split["weights"] == 2 * shares


def test_two_buckets_are_there_where_communication_overlaps() -> None:
    plain, wide = (play(spec_of("zero2", 2, bucket=bucket)).books.device for bucket in (20_000, 1_020_000))
    apart = wide.peaks["backward"].split["buckets"] - plain.peaks["backward"].split["buckets"]
    assert apart == pytest.approx(2 * LOW * 1_000_000, rel=0.05)


def test_gradients_added_up_in_float32_cost_zero_1_all_of_them_and_zero_2_its_partition() -> None:
    spec = spec_of("zero1", 4, accumulation=2)
    groups = flats(attached(spec)[1], spec)
    whole, part = (
        play(spec_of(name, 4, accumulation=2)).books.device.peaks["forward"].split["gradients"]
        for name in ("zero1", "zero2")
    )
    assert whole == FLOAT * sum(flat.elements for flat in groups)
    assert part == FLOAT * sum(flat.partition for flat in groups)


def test_one_rank_gathers_nothing() -> None:
    device = play(spec_of("zero3", 1)).books.device
    assert not any(moment.split.get("gathered") for name, moment in device.peaks.items() if name in ("forward", "step"))


@settings(max_examples=20, deadline=None)
@given(layers=st.integers(2, 12), live=st.integers(1, 6), prefetch=st.integers(0, 4), reuse=st.integers(0, 8))
def test_gathered_weights_stay_within_their_limits(layers: int, live: int, prefetch: int, reuse: int) -> None:
    size, ledger = 100, Ledger()
    modules: list[nn.Module] = [nn.Identity() for _ in range(layers)]
    weights = [Weight(number, size, trained=True, persistent=False) for number in range(layers)]
    gathered = Gathered(ledger, Shares(ranks=2, item=1, offloaded=False, on_cuda=True))
    limits = Limits(prefetch * size, live * size, reuse * size)
    of = {module: [weight] for module, weight in zip(modules, weights, strict=True)}
    coordinator = Coordinator(of, gathered, limits)
    for _ in range(3):
        coordinator.begin()
        for module in modules:
            coordinator.fetch(module, forward=True)
            assert of[module][0].status is Status.HERE
            coordinator.leave(module, forward=True)
        for module in reversed(modules):
            coordinator.fetch(module, forward=False)
            assert of[module][0].status is Status.HERE
            coordinator.leave(module, forward=False)
        coordinator.drop_all(weights)
        assert ledger.total == 0
    # The limit is looked at before each weight is prefetched, and not for what is needed or kept; what came with others
    # is there twice, for a while.
    assert ledger.peaks["init"].total <= 2 * size * (live + reuse + 2)


class Reading(nn.Module):
    """Reads its child's weight, without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.child, self.other = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = self.other(x) @ self.child.weight
        return product


def test_a_weight_that_is_read_past_its_module_is_gathered_for_the_one_that_reads() -> None:
    with FakeTensorMode():
        model = Reading()
        weights = {id(one): Weight(i, one.numel(), True, False) for i, one in enumerate(model.parameters())}
        gathered = Gathered(Ledger(), Shares(ranks=2, item=4, offloaded=False, on_cuda=True))
        own = {module: [weights[id(one)] for one in module.parameters(recurse=False)] for module in model.modules()}
        coordinator = Coordinator(own, gathered, Limits(1000, 1000, 0))
        hook_modules(model, coordinator, weights, gathered)
        read = weights[id(model.child._parameters["weight"])]
        for _ in range(2):
            model(torch.empty(2, 8, requires_grad=True)).sum().backward()
            coordinator.leave_the_rest()
    assert own[model] == [read]
    assert {weight.status for weight in weights.values()} == {Status.ABSENT}
