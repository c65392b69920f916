"""Going on from a DeepSpeed checkpoint that another program wrote: weights, moments and counts, under our names.

Names there are ours, or those of transformers' model of the family with its head. Moments go the way of their weights,
and so only where that is a name: what would be resampled, split or fused is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.optim.lr_scheduler import LambdaLR

from zerofit.checkpoint.canonical import is_canonical, read_canonical, stored_shapes
from zerofit.checkpoint.foreign_files import Written, instead, read_position, read_written, said_of_resume
from zerofit.checkpoint.takeover import draw_on
from zerofit.config.errors import UserError
from zerofit.config.optimizer import Optimizer
from zerofit.models.origin import HEAD, VIT_HEAD, first
from zerofit.models.pretrained import Reader, Translated, translate
from zerofit.models.stored import stored_weights
from zerofit.models.trained import TrainedModel
from zerofit.models.whole import describe_model
from zerofit.models.zero_states import ZeroStates, zero_states
from zerofit.plan.spec import RunSpec
from zerofit.train.state import TrainingState

if TYPE_CHECKING:
    from zerofit.train.trainer import RunTrainer


@dataclass(frozen=True)
class Fitted:
    """A foreign checkpoint as the state of a run."""

    written: Written
    state: TrainingState
    dropped: tuple[str, ...]
    """Parameters that were trained there and are frozen here."""


def fitted(spec: RunSpec) -> Fitted:
    """What `spec.origin` holds, for the run's model. No tensor is read. Raises UserError, in one line, before that.

    So it does for missing files, another model, and an optimizer that keeps something else than the recipe's.
    """
    assert spec.origin is not None
    if is_canonical(spec.origin):
        return _canonical(spec, spec.origin)
    written = read_written(spec.origin, spec.trust)
    skeleton = describe_model(spec).model
    with said_of_resume(spec.origin):
        stored = zero_states(spec.origin, spec.trust)
        trained = [name for name, parameter in skeleton.named_parameters() if parameter.requires_grad]
        there = _checked(skeleton, trained, written)
        _refuse_frozen_missing(skeleton, set(there), spec)
        moments = _moments(skeleton, trained, stored, written, spec.recipe.optimizer)
        counts = {name: partial(torch.tensor, count) for name, count in stored.counts.items()}
        counted = _renamed(skeleton, counts, written)
        weights = _renamed(skeleton, stored.weights, written)
        state = TrainingState(
            weights={name: weights[name] for name in trained},
            moments=moments,
            counts={name: float(counted[name]()) for name in trained if name in counted},
        )
    if spec.recipe.optimizer.name == "adamw" and len(state.counts) < len(trained):
        raise UserError(f"--resume: {spec.origin}: its optimizer has not counted steps; {instead(spec.origin)}")
    return Fitted(written, state, tuple(name for name in there if name not in set(trained)))


def _canonical(spec: RunSpec, directory: Path) -> Fitted:
    """The same of a directory in the canonical form, whose names are ours."""
    written, state = read_position(directory), read_canonical(directory)
    skeleton, wanted = describe_model(spec).model, kinds_of(spec.recipe.optimizer)
    shapes = {name: torch.Size(shape) for name, shape in stored_shapes(directory).items()}
    for name, place in skeleton.named_parameters():
        if name not in shapes:
            raise UserError(f"{directory} lacks {name}, which the recipe's model has: they are of different models")
        _refuse_other_shape(skeleton, name, shapes[name], directory)
        kept = set(state.moments.get(name, ()))
        if place.requires_grad and kept != wanted:
            raise UserError(
                f"{directory}: the optimizer keeps {', '.join(sorted(kept)) or 'nothing'} of {name}, but "
                f"{spec.recipe.optimizer.name} keeps {', '.join(sorted(wanted)) or 'nothing'}; {instead(directory)}"
            )
    frozen = [name for name, place in skeleton.named_parameters() if not place.requires_grad and name in state.moments]
    return Fitted(written, state, tuple(frozen))


def take_up(trainer: RunTrainer) -> None:
    """Put the state in `spec.origin` into the trainer's engine, prepared and before its first step. Collective."""
    spec = trainer.spec
    assert spec.origin_step is not None
    assert spec.origin is not None
    trainer.engine.restore(trainer.classifier, trainer.model_wrapped, trainer.optimizer, fitted(spec).state)
    if is_canonical(spec.origin):
        draw_on(spec.origin)
    _schedule(trainer, spec.origin_step)
    trainer.state.global_step = spec.origin_step
    trainer.state.epoch = spec.origin_step / spec.batches.steps_per_epoch
    trainer._globalstep_last_logged = spec.origin_step  # else the first loss would be divided by all steps so far


def _schedule(trainer: RunTrainer, step: int) -> None:
    """The learning rate as the recipe has it after `step` steps."""
    from accelerate.scheduler import AcceleratedScheduler

    outer = trainer.lr_scheduler
    inner = outer.scheduler if isinstance(outer, AcceleratedScheduler) else outer
    assert isinstance(inner, LambdaLR), "SCHEDULES are all made so"
    assert trainer.optimizer is not None
    rates = [base * factor(step) for base, factor in zip(inner.base_lrs, inner.lr_lambdas, strict=True)]
    state = {**inner.state_dict(), "last_epoch": step, "_step_count": step + 1, "_last_lr": rates}
    inner.load_state_dict(state)
    for group, rate in zip(trainer.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _checked(skeleton: TrainedModel, trained: Iterable[str], written: Written) -> list[str]:
    """Our names of what was trained there. Raises UserError unless all that is trained here is among it, as shaped."""
    shapes = {name: partial(torch.empty, shape, device="meta") for name, shape in written.shapes.items()}
    there = {name: read().shape for name, read in _renamed(skeleton, shapes, written).items()}
    for name, shape in there.items():
        _refuse_other_shape(skeleton, name, shape, written.tag)
    missing = [name for name in trained if name not in there]
    if missing:
        raise UserError(
            f"{written.tag} has no optimizer state of {first(missing)}, which the recipe trains; it trained "
            f"{first(written.shapes)}; {instead(written.tag)}"
        )
    return list(there)


def _refuse_other_shape(skeleton: TrainedModel, name: str, shape: torch.Size, tag: Path) -> None:
    wanted = skeleton.get_parameter(name).shape
    if shape != wanted:
        raise UserError(
            f"{tag}: {name} has shape {tuple(shape)} there, but {tuple(wanted)} in the recipe's model, and training "
            f"cannot go on in another shape; {instead(tag)}"
        )


def _renamed(skeleton: TrainedModel, stored: Mapping[str, Reader], written: Written) -> dict[str, Reader]:
    """`stored` by our names. Raises UserError for names that have no place, and for tensors that would be converted."""
    body = _named(skeleton, stored)
    if body.converted:
        raise UserError(
            f"{written.tag}: {skeleton.prefix}{next(iter(body.converted))} is made of other tensors there, which its "
            f"moments cannot follow; {instead(written.tag)}"
        )
    if body.unused:
        raise UserError(
            f"{written.tag} trained {first(body.unused)}, which the recipe's model does not have: they are of "
            f"different models; {instead(written.tag)}"
        )
    return body.plain


def _named(skeleton: TrainedModel, stored: Mapping[str, Reader]) -> Translated:
    """`stored` by the names of the whole model, as far as they have a place in it; converted ones by the backbone's."""
    places = skeleton.state_dict()
    ours = {name: read for name, read in stored.items() if name in places}
    if ours:
        return Translated(ours, {}, [name for name in stored if name not in places])
    left = dict(stored)
    heads = zip(HEAD, VIT_HEAD if skeleton.config.model_type == "vit" else (), strict=False)
    head = {name: left.pop(key) for name, key in heads if key in left}
    body = translate(skeleton.family, left)
    return Translated(
        {skeleton.prefix + name: read for name, read in body.plain.items()} | head, body.converted, body.unused
    )


def _refuse_frozen_missing(skeleton: TrainedModel, there: set[str], spec: RunSpec) -> None:
    """Raise UserError where the checkpoint lacks weights that were frozen there: some leave them out."""
    assert spec.origin is not None
    names = [name for name, _ in skeleton.named_parameters() if name not in there]
    if not names:
        return
    body = _named(skeleton, stored_weights(spec.origin, spec.trust))
    missing = [name for name in names if name not in body.plain]
    if missing and not body.converted:
        raise UserError(f"{spec.origin} lacks {first(missing)}, frozen there: have it saved with the others")
    for name in (one for one in HEAD if one in names):
        _refuse_other_shape(skeleton, name, body.plain[name]().shape, spec.origin)


def _moments(
    skeleton: TrainedModel, trained: Iterable[str], stored: ZeroStates, written: Written, optimizer: Optimizer
) -> dict[str, dict[str, Reader]]:
    """By our names and kinds. Raises UserError unless they are those that the recipe's optimizer keeps."""
    wanted = kinds_of(optimizer)
    for name, kept in stored.moments.items():
        if set(kept) != wanted:
            raise UserError(
                f"{written.tag}: the optimizer keeps {', '.join(sorted(kept)) or 'nothing'} of {name}, but "
                f"{optimizer.name} keeps {', '.join(sorted(wanted)) or 'nothing'}: they are of different kinds; "
                f"{instead(written.tag)}"
            )
    found: dict[str, dict[str, Reader]] = {name: {} for name in trained}
    for kind in sorted(wanted):
        named = _renamed(skeleton, {name: kept[kind] for name, kept in stored.moments.items()}, written)
        for name, kept in found.items():
            kept[kind] = named[name]
    return found


def kinds_of(optimizer: Optimizer) -> set[str]:
    """What an optimizer of ours keeps of a parameter, in its shape."""
    if optimizer.name == "adamw":
        return {"exp_avg", "exp_avg_sq"}
    return {"momentum_buffer"} if optimizer.momentum or optimizer.name == "lars" else set()
