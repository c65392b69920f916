"""A loss scale goes on where it was: torch's and DeepSpeed's scalers count alike."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from deepspeed.runtime.fp16 import loss_scaler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zerofit.checkpoint.native import _torch_scale
from zerofit.models.torch_files import load
from zerofit.models.zero_states import _loss_scale
from zerofit.train.restoring import restore_scale
from zerofit.train.state import LossScale

WINDOW = 5


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed's scaler asks for its rank, to print on the first."""
    monkeypatch.setattr(loss_scaler, "dist", SimpleNamespace(get_rank=lambda: 1))


def deepspeed_scaler() -> Any:
    return loss_scaler.DynamicLossScaler(
        init_scale=2**16, scale_window=WINDOW, min_scale=1.0, delayed_shift=2, consecutive_hysteresis=False,
        raise_error_at_min_scale=False,
    )  # fmt: skip


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.lists(st.booleans(), max_size=17), after=st.lists(st.booleans(), max_size=17))
def test_deepspeeds_scale_goes_on(before: list[bool], after: list[bool], tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("scale") / "x.pt"
    scaler, fresh = deepspeed_scaler(), deepspeed_scaler()
    for overflow in before:
        scaler.update_scale(overflow)
    torch.save({"loss_scaler": scaler}, path)
    found = _loss_scale(load(path, trust=False))
    assert found is not None
    restore_scale(fresh, LossScale(*found))
    for overflow in after:
        assert fresh.cur_scale == scaler.cur_scale
        scaler.update_scale(overflow)
        fresh.update_scale(overflow)
    assert fresh.cur_scale == scaler.cur_scale


def test_a_constant_scale_is_none(tmp_path: Path) -> None:
    torch.save({"loss_scaler": loss_scaler.LossScaler(scale=1.0)}, tmp_path / "x.pt")
    assert _loss_scale(load(tmp_path / "x.pt", trust=False)) is None
    assert _loss_scale({}) is None


def test_torchs_scale_is_read_as_it_is_written(tmp_path: Path) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for _ in range(5):  # grows once, after 3
        scaler.scale(weight.sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    torch.save(scaler.state_dict(), tmp_path / "scaler.pt")
    assert _torch_scale(tmp_path) == LossScale(scale=2.0**11, good_steps=2)
    assert _torch_scale(tmp_path / "none") is None
