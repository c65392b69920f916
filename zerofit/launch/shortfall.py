"""What is said of a run that ran out of memory: where, what was predicted, and what would help."""

from __future__ import annotations

from zerofit.plan.closed_form import ERROR
from zerofit.plan.fitting import EXACT_ERROR
from zerofit.plan.prediction import Prediction
from zerofit.report.shortage import Shortage, shortage

# Lines of a traceback that tell what a rank was at; the innermost decides. Functions of torch, DeepSpeed and ours.
PLACES = (
    ("in _engine_run_backward", "backward"),
    ("in clip_grad_norm_", "step"),
    ("in step\n", "step"),
    ("in take_model_step", "step"),
    ("in rollout", "rollout"),
    ("in validate", "evaluation"),
    ("in evaluate", "evaluation"),
    ("in training_step", "forward"),
    ("in compute_loss", "forward"),
    ("in build_model", "init"),
    ("in initialize", "init"),
)


def ran_out(message: str) -> Shortage | None:
    """Of a rank's error that says itself that memory ran out; null for others, and for a rank that was killed."""
    return None if "SIGKILL" in message else shortage(message)


def lines(message: str, traceback: str, prediction: Prediction | None) -> list[str]:
    """For the terminal, of a failed rank; nothing where it says nothing of memory."""
    short = shortage(message)
    if short is None:
        return []
    place = phase(traceback)
    said = [f"out of memory{f' in {place}' if place else ''}: {short.words()}"]
    if prediction is None:
        return said
    memory, fit = prediction.memory, prediction.fit
    within = f"within {100 * (EXACT_ERROR if memory.exact else ERROR):.0f} %"
    if short.of == "GPU":
        said.append(f"predicted: {memory.peak_gib:.1f} GiB of {fit.card_gib:g} in {memory.phase}, {within}")
    else:
        there = "" if fit.host_gib is None else f" of {fit.host_gib:g}"
        said.append(f"predicted: {fit.host_needed_gib:.1f} GiB{there} of host memory for all ranks")
    if short.of == "GPU" and prediction.levers:
        said.append("what would lower it most, with what that comes to:")
        said += [f"  {lever}" for lever in prediction.levers]
    return said


def phase(traceback: str) -> str | None:
    """What the rank was at; null where its traceback does not tell."""
    found = [(traceback.rfind(mark), place) for mark, place in PLACES if mark in traceback]
    return max(found)[1] if found else None
