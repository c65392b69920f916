"""How long a host takes for an operation of a model, as the planner counts operations."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zerofit.measure.operations import Count
from zerofit.measure.rates import launches


def test_what_takes_no_time_is_not_counted() -> None:
    matrix = torch.ones(4, 4)
    with Count() as count:
        matrix.view(-1, 2)[1:].t().detach()
        assert count.operations == 0
        matrix.add_(1)
        matrix.t_()
    assert count.operations == 2, "what changes its input is done, whatever it returns"


def test_backward_passes_count() -> None:
    layer = nn.Linear(4, 4, bias=False)
    with Count() as count:
        loss = layer(torch.ones(2, 4, requires_grad=True)).sum()
        forward = count.operations
        loss.backward()
    assert forward == 3, "ones, a product and a sum"
    assert count.operations - forward == 3, "ones of the loss, and a product for each of the layer's two gradients"


def test_a_pass_is_divided_by_its_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = list[int]()

    def of_one(work: object, *_: object) -> float:
        assert callable(work)
        with Count() as count:
            work()
        passes.append(count.operations)
        return 6.0

    monkeypatch.setattr(launches, "seconds", of_one)
    found = launches.launch_seconds(torch.device("cpu"), torch.bfloat16, 1.0)
    assert passes[0] > 50 * launches.LAYERS
    assert found == 6.0 / passes[0]
