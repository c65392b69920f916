"""What a run that ran out of memory is told."""

from __future__ import annotations

import pytest

from zerofit.launch.failure import Failure
from zerofit.launch.shortfall import lines, phase
from zerofit.plan.prediction import Fit, Memory, Prediction

TORCH = (
    "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total capacity of 10.75 GiB of "
    "which 1.17 GiB is free. Of the allocated memory 8.50 GiB is allocated by PyTorch."
)
BACKWARD = """\
Traceback (most recent call last):
  File "zerofit/tasks/loop.py", line 75, in train
    run.trainer.train()
  File "torch/autograd/graph.py", line 979, in _engine_run_backward
    return Variable._execution_engine.run_backward(
"""


def prediction(*, host: float = 30.0) -> Prediction:
    memory = Memory(peak_gib=9.9, phase="backward", split={}, phases={}, host_gib=host, exact=False)
    fit = Fit(
        verdict="tight",
        needed_gib=12.0,
        least_gib=10.6,
        card_gib=10.75,
        host_needed_gib=host,
        host_gib=24.0,
        host_verdict="does not fit",
    )
    return Prediction(peak_gib=9.9, memory=memory, fit=fit, levers=("train.micro_batch=1: ~7.1 GiB",))


@pytest.mark.parametrize(
    ("frames", "place"),
    [
        (BACKWARD, "backward"),
        (BACKWARD + '  File "recompute.py", line 3, in compute_loss\n    model(x)\n', "forward"),
        ('  File "adam.py", line 1, in step\n    x\n', "step"),
        ('  File "stepping.py", line 1, in steps\n    x\n', None),
    ],
)
def test_the_innermost_frame_that_is_known_tells_the_place(frames: str, place: str | None) -> None:
    assert phase(frames) == place


def test_a_gpus_shortage_comes_with_what_was_predicted_and_what_helps() -> None:
    said = lines(TORCH, BACKWARD, prediction())
    assert said[0].startswith("out of memory in backward: 2.00 GiB more could not be had of the GPU's memory")
    assert said[1] == "predicted: 9.9 GiB of 10.75 in backward, within 15 %"
    assert said[2:] == ["what would lower it most, with what that comes to:", "  train.micro_batch=1: ~7.1 GiB"]


def test_of_a_rank_that_was_killed_the_hosts_memory_is_told_and_the_exit_code_stays() -> None:
    killed = "killed by SIGKILL: most often by the kernel, out of memory"
    assert lines(killed, "", prediction())[1] == "predicted: 30.0 GiB of 24 of host memory for all ranks"
    assert Failure(0, 0.0, False, killed, "").code == 1
    assert Failure(0, 0.0, False, TORCH, "").code == 3
    assert Failure(0, 0.0, False, "ValueError: no", "").code == 1
    assert lines("ValueError: no", BACKWARD, prediction()) == []
