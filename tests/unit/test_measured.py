"""What real steps change of a prediction: the arithmetic, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_examples import CPU, gpus
from typer.testing import CliRunner

from zerofit import cli
from zerofit.config.errors import UserError
from zerofit.config.load import load_recipe
from zerofit.launch import measuring, planning, trials
from zerofit.launch.asked import HERE, Asked
from zerofit.launch.failure import Failure
from zerofit.launch.local import Outcome
from zerofit.launch.measuring import conclude
from zerofit.launch.planning import outlook, staged_plan
from zerofit.launch.recipe import override
from zerofit.launch.trials import Interrupted, run, trials_of
from zerofit.plan.answer import Plan
from zerofit.plan.measured import Correction, Trial, correction
from zerofit.plan.prediction import Speed
from zerofit.report.measured import table
from zerofit.report.pages.document import render
from zerofit.report.pages.plan import page

sizes = st.floats(0.01, 200.0)
parts = st.floats(-2.0, 2.0)
micros = st.integers(1, 64)


def trial(micro: int, predicted: float | None, peak: float | None, **fields: Any) -> Trial:
    known: dict[str, Any] = {"accumulation": 1, "fits": peak is not None, "predicted_s": None}
    return Trial(micro_batch=micro, predicted_gib=predicted, peak_gib=peak, **known | fields)


@given(
    always=sizes,
    each=st.floats(0.0, 3.0),
    offset=parts,
    slope=st.floats(0.0, 0.1),
    own=micros,
    two=st.sets(micros, min_size=2, max_size=2),
)
def test_what_is_missed_on_a_line_is_found_for_every_micro_batch(
    always: float, each: float, offset: float, slope: float, own: int, two: set[int]
) -> None:
    def predicted(micro: int) -> float:
        return 5.0 + always + each * micro

    def real(micro: int) -> float:
        return predicted(micro) + offset + slope * micro

    found = correction([trial(micro, predicted(micro), real(micro)) for micro in two])
    assert found.peak_gib(predicted(own), own) == pytest.approx(real(own), rel=1e-6, abs=1e-6)


@given(peaks=st.lists(sizes, min_size=1, max_size=2), own=micros, predicted=sizes)
def test_a_larger_micro_batch_takes_no_less_than_a_smaller_one_took(
    peaks: list[float], own: int, predicted: float
) -> None:
    found = correction([trial(micro, 1.0, peak) for micro, peak in enumerate(peaks, 1)])
    corrected = found.peak_gib(predicted, own)
    assert corrected >= max(peak for micro, peak in enumerate(peaks, 1) if micro <= own)
    if len(peaks) == 1:
        assert corrected == pytest.approx(max(peaks[0], predicted + peaks[0] - 1.0))


@given(own=micros, predicted=sizes)
def test_a_prediction_that_was_right_stays(own: int, predicted: float) -> None:
    found = correction([trial(1, 0.001, 0.001), trial(2, 0.002, 0.002)])
    assert found.peak_gib(predicted, own) == pytest.approx(max(predicted, 0.001 if own == 1 else 0.002))
    assert correction([]) == Correction()
    assert correction([]).peak_gib(predicted, own) == predicted


def test_slack_and_speed_by_hand() -> None:
    one = trial(1, 10.0, 10.0, reserved_gib=12.0, predicted_s=0.1, step_s=0.3)
    two = trial(2, 11.0, 12.0, reserved_gib=13.2, predicted_s=0.2, step_s=0.3)
    failed = trial(4, 13.0, None, why="no more")
    found = correction([two, failed, one])
    assert (found.offset_gib, found.slope_gib, found.floor) == (-1.0, 1.0, ((1, 10.0), (2, 12.0)))
    assert (found.slack, found.ratio) == (pytest.approx(0.2), pytest.approx(1.5))
    assert (one.error, one.error_s, two.missed_gib) == (0.0, pytest.approx(-2 / 3), 1.0)
    speed = found.speed(Speed(step_s=2.0, samples_s=10.0, error=0.3, parts={"compute": 2.0}))
    assert speed is not None
    assert (speed.step_s, speed.samples_s, speed.rates) == (3.0, 6.667, "measured")
    assert correction([failed]).speed(speed) is None
    assert correction([trial(1, 1.0, 1.0, reserved_gib=0.9)]).slack == 0.0


def staged(monkeypatch: pytest.MonkeyPatch, *words: str, source: str = "digits") -> planning.Staged:
    """The plan of a recipe for 2 GPUs that are pretended to be here."""
    monkeypatch.setattr(planning, "detect", lambda: gpus(2))
    return staged_plan(load_recipe(source, words), HERE, 2, follows=False)


def test_trials_are_the_two_smallest_that_divide(monkeypatch: pytest.MonkeyPatch) -> None:
    found = trials_of(staged(monkeypatch, "strategy=ddp", "train.on_oom=retry").spec)
    assert [(one.batches.micro, one.batches.accumulation, one.batches.ranks) for one in found] == [(1, 1, 2), (2, 1, 2)]
    for one in found:
        recipe = one.recipe
        assert (one.batches.total_steps, one.batches.checkpoint_steps, one.batches.evaluate_steps) == (3, None, None)
        assert not any((recipe.checkpoint.at_end, recipe.evaluate.at_end, recipe.track.to, recipe.profile))
        assert recipe.train.on_oom == "fail"
        assert override(recipe, []) == recipe, "a worker reads it as it is"


def test_rewards_take_as_many_micro_batches_as_a_generation_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["name=grpo", "strategy=ddp"]
    from zerofit.config.load import load_job

    (_, recipe) = load_job("arithmetic", words).stages
    monkeypatch.setattr(planning, "detect", lambda: gpus(2))
    one = staged_plan(recipe, HERE, 2, follows=True)
    found = trials_of(one.spec)
    assert len(found) == 2
    for spec in found:
        assert spec.grpo is not None
        assert spec.grpo.completions % spec.grpo.num_generations == 0
    assert found[0].batches.micro < found[1].batches.micro


def test_weights_are_fresh_ones_of_the_same_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["model.pretrained=google/vit-huge-patch14-224-in21k", "init_from=gone.pth"]
    one = staged(monkeypatch, *words, source="vit-huge-food101")
    found = trials_of(one.spec)
    assert {spec.recipe.model.pretrained for spec in found} == {None}
    assert {spec.recipe.init_from for spec in found} == {None}
    assert all(spec.shape is not None and spec.shape["hidden_size"] == 1280 for spec in found)


def test_memory_that_runs_out_is_an_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one = staged(monkeypatch, "strategy=ddp")
    planned = outlook(one, 2)
    message = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB."
    failed = Outcome(failure=Failure(rank=0, time=0.0, user=False, message=message, traceback="in _engine"))
    directories: list[Path] = []

    def conduct(launch: Any, hardware: Any) -> Outcome:
        directories.append(launch.run_dir)
        return failed

    monkeypatch.setattr(trials, "conduct", conduct)
    figures = run(trials_of(one.spec), one.spec.hardware)
    assert [taken.why for taken in figures] == ["20.0 MiB more could not be had of the GPU's memory"], "one is enough"
    assert not directories[0].parent.exists()
    first = trial(1, 1.0, None, why=figures[0].why)
    found = conclude(one, planned, [first])
    assert (found.verdict, found.peak_gib, found.fit) == ("does not fit", None, None)
    assert "a micro-batch of 1 does not fit: measured: 20.0 MiB more could not be had" in table("digits", found)
    later = conclude(one, planned, [trial(1, 1.0, 1.0), trial(2, 1.0, None, why="no more")])
    assert (later.verdict, later.correction.slope_gib) == ("does not fit", 0.0)
    crash = Outcome(failure=Failure(rank=1, time=0.0, user=False, message="ValueError: odd\nmore", traceback="there"))
    monkeypatch.setattr(trials, "conduct", lambda launch, hardware: crash)
    with pytest.raises(UserError, match=r"--measure: rank 1 failed: ValueError: odd$"):
        run(trials_of(one.spec), one.spec.hardware)
    monkeypatch.setattr(trials, "conduct", lambda launch, hardware: Outcome(signal=15))
    with pytest.raises(Interrupted, match="143"):
        run(trials_of(one.spec), one.spec.hardware)


def test_a_plan_is_corrected_by_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    one = staged(monkeypatch, "strategy=ddp")
    planned = outlook(one, 2)
    own = next(item.prediction for item in planned.strategies if item.own)
    assert own is not None
    taken = [trial(1, 1.0, 1.5, reserved_gib=1.8), trial(2, 1.0, 1.75, reserved_gib=1.8)]
    found = conclude(one, planned, taken)
    assert found.peak_gib == pytest.approx(own.peak_gib + 0.25 + 0.25 * 32, abs=1e-3)
    assert found.fit is not None
    assert found.fit.needed_gib == pytest.approx(found.fit.least_gib + 0.2 * found.peak_gib, abs=0.02)
    assert found.verdict == "fits"
    said = table("digits", found)
    assert "corrected, micro-batch 32" in said
    assert "verdict: fits" in said
    corrected = planned.model_copy(update={"measured": found})
    assert json.loads(corrected.model_dump_json())["measured"]["verdict"] == "fits"
    drawn = render(page(Plan(recipe="digits", stages=(corrected,))))
    assert "1.75 GiB" in drawn
    assert "corrected, micro-batch 32" in drawn


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpus", "2"], "--measure takes steps on this machine's GPUs: leave --gpus,"),
        (["--host-memory", "1GiB"], "--measure takes steps on this machine's GPUs"),
        (["--quick"], "leave --quick out"),
        (["--search"], "--measure is for one machine"),
        ([], "--measure: memory is predicted for GPUs, and this machine has none"),
    ],
)
def test_where_no_step_can_be_taken_it_is_refused_in_a_line(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "detect", lambda: CPU)
    done = CliRunner().invoke(cli.app, ["plan", "digits", "--measure", *words])
    assert done.exit_code == 2
    assert done.output.count("\n") == 1
    assert said in done.output


def test_data_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(planning, "detect", lambda: gpus(2))
    monkeypatch.setattr(measuring, "detect", lambda: gpus(2))
    done = CliRunner().invoke(cli.app, ["plan", "qwen3-8b-sft", "--measure"])
    assert done.exit_code == 2
    assert "--measure takes real steps of qwen3-8b-sft, and its data not found (data.path: " in done.output
    assert Asked() == HERE
