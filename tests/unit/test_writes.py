"""What is written behind training is what was there when it was saved."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from pathlib import Path

import pytest
import torch

from zerofit.train.writes import AtOnce, Later, on_host


class Scaler:
    def __init__(self, scale: float) -> None:
        self.scale = scale


def test_training_on_changes_nothing_that_waits(tmp_path: Path) -> None:
    weight, scaler = torch.arange(6.0).view(2, 3), Scaler(4.0)
    groups = [{"lr": 0.1, "params": (0, 1), "view": weight.t()}]
    state = OrderedDict(module={"weight": weight}, groups=groups, scaler=scaler, size=weight.shape)
    later, now = Later(tmp_path / "memory", tmp_path / "drive"), AtOnce()
    later.add(torch.save, state, tmp_path / "memory" / "tag" / "a.pt")
    now.add(torch.save, weight.clone(), tmp_path / "right.pt")
    weight.zero_()
    groups[0]["lr"], scaler.scale = 0.2, 8.0
    assert not (tmp_path / "drive").exists()
    later.run()
    with torch.serialization.safe_globals([Scaler]):
        found = torch.load(tmp_path / "drive" / "tag" / "a.pt", weights_only=True)
    right = torch.load(tmp_path / "right.pt", weights_only=True)
    assert type(found) is OrderedDict
    assert torch.equal(found["module"]["weight"], right)
    assert torch.equal(found["groups"][0]["view"], right.t())
    assert (found["groups"][0]["lr"], found["scaler"].scale, found["groups"][0]["params"]) == (0.1, 4.0, (0, 1))
    assert found["size"] == (2, 3)
    later.run()  # nothing waits any more


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_every_dtype_is_copied(dtype: torch.dtype) -> None:
    for value in (torch.tensor([0, 1, 2]).to(dtype), torch.zeros((), dtype=dtype), torch.empty(0, 3, dtype=dtype)):
        copied = on_host(value)
        assert (copied.dtype, copied.shape) == (dtype, value.shape)
        assert torch.equal(copied.view(torch.uint8), value.view(torch.uint8)) if value.ndim else copied == value
        assert not value.numel() or copied.data_ptr() != value.data_ptr()


def test_a_container_that_could_hide_tensors_is_refused() -> None:
    with pytest.raises(AssertionError, match="defaultdict"):
        on_host(defaultdict(list))
