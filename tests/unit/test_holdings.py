"""What memory holds, counted by storage, and the time around a step."""

from __future__ import annotations

import pytest
import torch

from zerofit.measure.clock import HostClock, clock_for
from zerofit.train.holdings import sizes, state_tensors, tensors_in

CPU = torch.device("cpu")
GIB = 2**30


def test_memory_that_is_shared_counts_once_and_for_the_first_kind() -> None:
    flat = torch.zeros(1000)
    held = {"weights": [flat[:10], flat[500:]], "gradients": [flat, torch.zeros(3), torch.zeros(0)]}
    assert sizes(held, CPU) == {"weights": 4000 / GIB, "gradients": 12 / GIB}
    assert sizes(held, torch.device("cuda")) == {"weights": 0, "gradients": 0}


def test_tensors_are_found_in_lists_and_mappings() -> None:
    one, two, three = torch.zeros(1), torch.zeros(2), torch.zeros(3)
    assert list(tensors_in({0: [one, None], "a": {"b": (two,)}, "c": 5, "d": three})) == [one, two, three]


def test_the_state_of_adamw_is_two_moments_and_a_count() -> None:
    weight = torch.nn.Parameter(torch.zeros(100))
    optimizer = torch.optim.AdamW([weight])
    assert sizes({"optimizer": state_tensors(optimizer)}, CPU) == {"optimizer": 0}
    weight.grad = torch.ones(100)
    optimizer.step()
    assert sizes({"optimizer": state_tensors(optimizer)}, CPU)["optimizer"] == pytest.approx((2 * 400 + 4) / GIB)


def test_a_clock_tells_what_was_added_since_it_was_read() -> None:
    clock = HostClock()
    assert clock.read() == 0
    for _ in range(2):
        clock.start()
        clock.stop()
    assert clock.read() > 0
    assert clock.read() == 0
    unread = clock_for(CPU, read=False)
    unread.start()
    unread.stop()
    assert unread.read() == 0
