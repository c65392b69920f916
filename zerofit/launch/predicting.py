"""The prediction of a run: the one place that asks for it, by formulas or by a run of fake tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from zerofit.config.errors import UserError
from zerofit.launch import workarounds
from zerofit.launch.alternatives import Alternative
from zerofit.launch.recipe import override
from zerofit.plan.answer import Outlook
from zerofit.plan.auto import settled
from zerofit.plan.build import make_plan
from zerofit.plan.calibration import Calibration
from zerofit.plan.closed_form import estimate_memory
from zerofit.plan.fitting import fit
from zerofit.plan.levers import candidates
from zerofit.plan.prediction import Memory, Prediction, Speed, TooLong, Unpredicted
from zerofit.plan.spec import RunSpec
from zerofit.plan.strategy import resolve_strategy

if TYPE_CHECKING:
    from zerofit.predict.seen import Seen
    from zerofit.predict.watch import Observer

Predict = Callable[[RunSpec], Memory]
"""Raises Unpredicted."""
LEVERS = 3
"""Of those that lower the peak, how many are named."""
WORTH = 0.98
"""What is left of the peak, at most, where a change is worth to be named."""


def prediction(
    spec: RunSpec,
    host_gib: float | None,
    predict: Predict = estimate_memory,
    calibration: Calibration | None = None,
) -> Prediction:
    """What is to be expected of a run, levers apart. Raises Unpredicted, and UserError as `fit` does."""
    memory = predict(spec)
    return Prediction(peak_gib=memory.peak_gib, memory=memory, fit=fit(memory, spec, host_gib, calibration))


def with_levers(found: Prediction, spec: RunSpec, predict: Predict = estimate_memory) -> Prediction:
    """`found` with the changes of its recipe that lower its peak most: `train.micro_batch=2: 18.4 GiB`.

    Which these are, formulas say; what each comes to, `predict`.
    """
    lowered: list[tuple[float, str, RunSpec]] = []
    try:
        base = estimate_memory(spec).peak_gib
    except Unpredicted:
        return found
    for word in candidates(spec):
        changed = changed_spec(spec, [word])
        if changed is None:
            continue
        peak = estimate_memory(changed).peak_gib
        if peak <= base * WORTH:
            lowered.append((peak, word, changed))
    best = sorted(lowered, key=lambda one: one[0])[:LEVERS]
    told = sorted(((predict(changed), word) for _, word, changed in best), key=lambda one: one[0].peak_gib)
    return found.model_copy(update={"levers": tuple(f"{word}: {_about(memory)} GiB" for memory, word in told)})


def _about(memory: Memory) -> str:
    """`18.4`; `~18.4` by formulas."""
    size = f"{memory.peak_gib:.2f}" if memory.peak_gib < 1 else f"{memory.peak_gib:.1f}"
    return size if memory.exact else f"~{size}"


Played = Literal["none", "own", "all"]
"""Of which strategies a step is played through: of none, of the recipe's, of all and of its levers."""


def outlooks(
    every: Sequence[Alternative],
    host_gib: float | None,
    played: Played = "none",
    calibration: Calibration | None = None,
    timing: Timed | None = None,
) -> list[Outlook]:
    """The prediction of each; of the recipe's own with levers. Raises UserError for a card that nothing fits.

    `calibration` is what was measured of such cards; `timing` has played steps of this recipe before.
    """
    timing = None if played == "none" else timing or Timed(calibration)
    found = []
    for one in every:
        step = played == "all" or (played == "own" and one.own)
        predict = estimate_memory if timing is None or not step else timing.closest
        if one.spec is None:
            found.append(Outlook(strategy=one.short, own=one.own, ranks=None, prediction=None, reason=one.reason))
            continue
        made, reason = None, None
        try:
            made = prediction(one.spec, host_gib, predict, calibration)
            if one.own:
                made = with_levers(made, one.spec, closest if played == "all" else estimate_memory)
        except Unpredicted as why:
            reason = f"not predicted: {why}"
        ranks = one.spec.batches.ranks
        found.append(Outlook(strategy=one.short, own=one.own, ranks=ranks, prediction=made, reason=reason))
    return found if timing is None else [_timed(one, of.spec, timing) for one, of in zip(found, every, strict=True)]


def _timed(one: Outlook, spec: RunSpec | None, timing: Timed) -> Outlook:
    """With its speed, where it is not out of the question. After all memory, whose played steps serve here, too."""
    if spec is None or one.prediction is None or one.prediction.fit.verdict == "does not fit":
        return one
    made = one.prediction.model_copy(update={"speed": timing.speed(spec)})
    return one.model_copy(update={"prediction": made})


class Timed:
    """Memory and speed of one step that is played through."""

    def __init__(self, calibration: Calibration | None = None) -> None:
        workarounds.quiet()
        from zerofit.predict.timing import Timing  # torch and transformers: seconds

        self._timing = Timing(calibration)
        self._too_long = False
        self._memory: dict[tuple[str, str], Memory] = {}

    def closest(self, spec: RunSpec) -> Memory:
        """As `closest`; each step of a recipe is played through once."""
        key = spec.strategy.model_dump_json(), spec.batches.model_dump_json()
        if key not in self._memory:
            try:
                with self._timing.watching(spec) as observers:
                    self._memory[key] = play(spec, observers)
            except Unpredicted as why:
                self._too_long |= isinstance(why, TooLong)
                self._memory[key] = _by_formulas(spec, why)
        return self._memory[key]

    def seen(self, spec: RunSpec) -> Seen | None:
        """What was seen of micro-batches that compute as those of `spec` do; null: none was played through."""
        return self._timing.seen(spec)

    def speed(self, spec: RunSpec) -> Speed | None:
        """Null where it is not predicted, whatever goes wrong."""
        try:
            return None if self._too_long else self._timing.speed(spec)
        except Exception:  # memory has been predicted by formulas then, and says so
            return None


def play(spec: RunSpec, observers: Sequence[Observer] = ()) -> Memory:
    """By a step that is played through on tensors without memory. Raises Unpredicted, whatever goes wrong."""
    workarounds.quiet()
    from zerofit.predict.memory import predict_memory  # torch and transformers: seconds

    try:
        return predict_memory(spec, observers)
    except Unpredicted:
        raise
    except Exception as error:  # of a library that was never meant to run so; formulas are there
        said = (" ".join(str(error).split()) or type(error).__name__)[:200]
        raise Unpredicted(f"a step could not be played through: {said}") from error


def closest(spec: RunSpec) -> Memory:
    """By a step that is played through; where that cannot be, by formulas. Raises Unpredicted."""
    try:
        return play(spec)
    except Unpredicted as why:
        return _by_formulas(spec, why)


def _by_formulas(spec: RunSpec, why: Unpredicted) -> Memory:
    """Of a run whose step cannot be played through, and why that is."""
    found = estimate_memory(spec)
    return found.model_copy(update={"not_modelled": (*found.not_modelled, f"more than formulas say ({why})")})


def changed_spec(spec: RunSpec, words: Sequence[str], **others: int) -> RunSpec | None:
    """The plan of the run with `a.b=c` applied to its recipe; null where that is refused."""
    try:
        recipe = override(settled(spec), words)
        return make_plan(
            recipe,
            facts=spec.data,
            hardware=spec.hardware,
            ranks=others.get("ranks", spec.batches.ranks),
            run_dir=spec.run_dir,
            origin=spec.origin,
            origin_step=spec.origin_step,
            chosen=resolve_strategy(recipe),
            here=False,
            like=spec,
        )
    except UserError:
        return None


def predicted(
    spec: RunSpec, host_gib: float | None, calibration: Calibration | None = None
) -> tuple[RunSpec, str | None]:
    """`spec` with its prediction, and why it has none, in a line. A run is never refused for that."""
    if spec.hardware.device != "cuda":
        return spec, None
    try:
        found = with_levers(prediction(spec, host_gib, calibration=calibration), spec)
    except (Unpredicted, UserError) as why:
        return spec, f"memory: not predicted: {why}"
    return spec.model_copy(update={"prediction": found}), None
