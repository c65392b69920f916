"""Where AdamW is fused, and that a loss scaler skips a step of it as of the ordinary one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.scheduler import AcceleratedScheduler
from accelerate.state import AcceleratorState, GradientState
from plan_examples import FACTS, gpus, recipe
from tiny_models import VIT, build, tiny_spec

from zerofit.plan import fused
from zerofit.plan.build import make_plan
from zerofit.plan.fused import is_fused
from zerofit.train.engine import WrongEngine
from zerofit.train.optimizers import make_optimizer
from zerofit.train.strategy import engine_for

MODEL: dict[str, Any] = {"kind": "vit", "shape": VIT}


@pytest.mark.parametrize(
    ("strategy", "optimizer", "expected"),
    [
        ("ddp", "adamw", True),
        ("fsdp2", "adamw", True),
        ("zero3", "adamw", True),
        ("zero2+offload_optimizer", "adamw", False),
        ("fsdp2+offload_all", "adamw", False),
        ("ddp", "sgd", False),
        ("ddp", "lars", False),
    ],
)
def test_what_is_stepped_on_cuda_is_fused(strategy: str, optimizer: str, expected: bool) -> None:
    made = recipe(strategy=strategy, optimizer={"name": optimizer})
    spec = make_plan(made, facts=FACTS, hardware=gpus(2), ranks=2, run_dir=Path("run"))
    assert is_fused(spec, "cuda") is expected
    assert not is_fused(spec, "cpu")


def test_an_optimizer_of_the_other_way_does_not_train(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tiny_spec(MODEL)
    engine = engine_for(spec, torch.device("cpu"))
    ordinary = make_optimizer(build(MODEL), spec, engine)
    assert ordinary.defaults["fused"] is None, "what a checkpoint of a CPU holds is as it was"
    engine.expect_optimizer(ordinary)
    monkeypatch.setattr(fused, "DEVICES", {"cpu"})
    engine.expect_optimizer(make_optimizer(build(MODEL), spec, engine))
    with pytest.raises(WrongEngine, match="the optimizer says that fused is None"):
        engine.expect_optimizer(ordinary)


@pytest.fixture
def accelerate() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.mark.usefixtures("accelerate")
@pytest.mark.parametrize("devices", [set(), {"cpu"}], ids=["ordinary", "fused"])
def test_an_overflow_is_no_step_of_the_schedule(devices: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By accelerate's own wrappers, with which Trainer trains in fp16."""
    monkeypatch.setattr(fused, "DEVICES", devices)
    Accelerator(cpu=True)
    spec, model = tiny_spec(MODEL), build(MODEL)
    inner = make_optimizer(model, spec, engine_for(spec, torch.device("cpu")))
    halving = torch.optim.lr_scheduler.StepLR(inner, 1, gamma=0.5)
    scaler = torch.amp.GradScaler("cpu")
    optimizer = AcceleratedOptimizer(inner, device_placement=False, scaler=scaler)
    schedule = AcceleratedScheduler(halving, optimizer)
    weight = next(model.parameters())
    skipped, rates = [], []
    for factor in (1.0, float("inf"), 1.0):
        before = weight.detach().clone()
        loss = factor * torch.stack([parameter.sum() for parameter in model.parameters()]).sum()
        scaler.scale(loss).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        skipped.append(optimizer.step_was_skipped)
        rates.append(inner.param_groups[0]["lr"])
        assert torch.equal(weight, before) == optimizer.step_was_skipped
    assert skipped == [False, True, False]
    assert rates == [0.5 * spec.lr, 0.5 * spec.lr, 0.25 * spec.lr]
    assert {float(kept["step"]) for kept in inner.state.values()} == {2.0}
