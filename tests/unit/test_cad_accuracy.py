"""Command and parameter accuracy: against their formulas written out, and at their ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cad_examples import SEQUENCES
from hypothesis import given
from hypothesis import strategies as st

from zerofit.cad.accuracy import command_accuracy, parameter_accuracy
from zerofit.cad.sequence import ArcTo, CircleAt, Extrude, LineTo, Path, Sequence
from zerofit.cad.shape import Extent, Operation
from zerofit.cad.vectors import from_vector, to_vector

DISC = Path((CircleAt((176, 128), 48),))
BASE = Extrude(
    paths=(DISC,),
    angles=(128, 128, 128),
    origin=(64, 64, 128),
    size=96,
    distances=(160, 128),
    operation=Operation.NEW_BODY,
    extent=Extent.ONE_SIDE,
)
TRUTH = Sequence((BASE,))
HALF_MOON = Path((ArcTo((223, 128), 128, counter_clockwise=True), LineTo((128, 128))))


def by_hand(truth: Sequence, prediction: Sequence, tolerance: int) -> tuple[float, float | None]:
    """The paper's sums, a term at a time."""
    wanted, made = to_vector(truth).tolist()[:-1], to_vector(prediction).tolist()[:-1]
    recovered, values = 0, []
    for row, other in zip(wanted, made, strict=False):
        if row[0] != other[0]:
            continue
        recovered += 1
        for column, (one, two) in enumerate(zip(row, other, strict=True)):
            if column and one != -1:
                values.append(one == two if column in (4, 15, 16) else abs(one - two) < tolerance)
    return recovered / len(wanted), sum(values) / len(values) if values else None


@given(SEQUENCES, SEQUENCES, st.integers(1, 64))
def test_both_are_the_papers_sums(truth: Sequence, prediction: Sequence, tolerance: int) -> None:
    commands, parameters = by_hand(truth, prediction, tolerance)
    assert command_accuracy(truth, prediction) == pytest.approx(commands)
    assert parameter_accuracy(truth, prediction, tolerance) == pytest.approx(parameters)


@given(SEQUENCES, SEQUENCES)
def test_the_truth_is_all_right_and_so_is_what_goes_on_after_it(truth: Sequence, more: Sequence) -> None:
    longer = Sequence(truth.extrudes + more.extrudes)
    for prediction in (truth, longer):
        assert (command_accuracy(truth, prediction), parameter_accuracy(truth, prediction)) == (1.0, 1.0)


@given(SEQUENCES, st.data())
def test_a_value_counts_up_to_two_levels_away(truth: Sequence, data: st.DataObject) -> None:
    vector = to_vector(truth)
    scales = [(r, c) for r in range(len(vector)) for c in (1, 2, 3, 5, *range(6, 15)) if vector[r, c] >= 0]
    place = data.draw(st.sampled_from(scales))
    away = data.draw(st.integers(max(-5, -int(vector[place])), min(5, 255 - int(vector[place]))))
    vector[place] += away
    found = parameter_accuracy(truth, from_vector(vector))
    assert found is not None
    assert (found == 1.0) is (abs(away) <= 2)


@pytest.mark.parametrize("change", [{"operation": Operation.CUT}, {"extent": Extent.SYMMETRIC}])
def test_choices_have_no_tolerance(change: dict[str, Operation | Extent]) -> None:
    assert parameter_accuracy(TRUTH, Sequence((replace(BASE, **change),))) == pytest.approx(13 / 14)


def test_a_direction_of_an_arc_has_none_either() -> None:
    other = Path((replace(HALF_MOON.commands[0], counter_clockwise=False), *HALF_MOON.commands[1:]))
    one, two = (Sequence((replace(BASE, paths=(path,)),)) for path in (HALF_MOON, other))
    assert parameter_accuracy(one, two) == pytest.approx(16 / 17)


def test_what_a_prediction_lacks_is_wrong() -> None:
    two = Sequence((BASE, BASE))
    assert (command_accuracy(two, TRUTH), parameter_accuracy(two, TRUTH)) == (0.5, 1.0)
    assert (command_accuracy(TRUTH, Sequence(())), parameter_accuracy(TRUTH, Sequence(()))) == (0.0, None)


def test_no_values_are_compared_where_only_a_loops_start_is_recovered() -> None:
    assert command_accuracy(TRUTH, Sequence((replace(BASE, paths=(HALF_MOON,)),))) == pytest.approx(1 / 3)
    assert parameter_accuracy(TRUTH, Sequence((replace(BASE, paths=(HALF_MOON,)),))) is None
