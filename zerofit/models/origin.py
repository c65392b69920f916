"""`init_from`: all weights from a checkpoint, whatever wrote it, fitted to the recipe's model and accounted for.

Names are ours (`backbone.*`, `head.*`, `patch_embedding.*`, `cls_token`), or those that transformers' model of the
family has or had, with or without its head. Every rank reads by itself, one tensor at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from zerofit.config.errors import UserError
from zerofit.models.classifier import HEAD_NORM
from zerofit.models.pretrained import Reader, Translated, translate
from zerofit.models.stored import stored_weights
from zerofit.models.trained import TrainedModel
from zerofit.plan.spec import RunSpec

HEAD = ("head.weight", "head.bias")
VIT_HEAD = ("classifier.weight", "classifier.bias")
"""The same in ViTForImageClassification, which puts it on the normalised class token as well."""
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@dataclass
class Account:
    """What became of every name: for the table."""

    path: Path
    read: list[str] = field(default_factory=list)
    resampled: list[str] = field(default_factory=list)
    pretrained: list[str] = field(default_factory=list)
    """Of parts that the recipe names weights of their own for."""
    fresh: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    note: str = ""
    """Why the head is fresh."""

    def table(self) -> str:
        """Aligned lines: what, how many, the first names."""
        lines = [f"weights from {self.path}"]
        for what, names in (
            ("read", self.read),
            ("resampled", self.resampled),
            ("pretrained", self.pretrained),
            ("drawn fresh", self.fresh),
            ("not used", self.unused),
        ):
            if names or what == "read":
                note = f" ({self.note})" if what == "drawn fresh" and self.note else ""
                lines.append(f"  {what:<11} {len(names):>5}  {first(names)}{note}")
        return "\n".join(lines)


def origin_weights(skeleton: TrainedModel, spec: RunSpec) -> Iterator[tuple[str, Tensor]]:
    """(name, value on the CPU) of each parameter and stored buffer of `skeleton` that `spec.origin` gives, once.

    `skeleton` may be on the meta device. What is not given is left to be drawn fresh: the head where it is missing, of
    other classes, or a probe's; and patches where the origin is a language model. Rank 0 prints a table of all that.
    Raises UserError for files that cannot be read, a missing weight, and one of another shape.
    """
    assert spec.origin is not None
    account = Account(spec.origin)
    stored = stored_weights(spec.origin, spec.trust)
    prefix = skeleton.prefix
    ours = prefix != "" and any(name.startswith(prefix) for name in stored)
    head = _head(skeleton, spec, stored, ours, account) if prefix else {}
    body = _by_our_names(skeleton, stored) if ours else translate(skeleton.family, stored)
    account.unused += body.unused
    names = [name for name, _ in skeleton.named_parameters()]
    added = tuple(part for part in skeleton.additions if not any(name.startswith(part) for name in stored))
    needed = dict.fromkeys(
        name for name in names if name not in HEAD and (not name.startswith(added) if ours else name.startswith(prefix))
    )
    before = "" if ours else prefix
    if not body.converted:  # it is known before anything is read
        _refuse_missing(account, needed.keys() - {before + name for name in body.plain}, needed, stored)
    places = skeleton.state_dict()
    for key, value in body.weights(skeleton.family):
        name = before + key
        yield name, _fitted(skeleton, name, value, places[name], account)
        account.read.append(name)
    _refuse_missing(account, needed.keys() - set(account.read), needed, stored)
    for name, value in head.items():
        yield name, value
        account.read.append(name)
    given = set(account.read)
    beside = tuple(skeleton.pretrained_parts(spec))
    rest = [name for name in names if name not in given]
    account.pretrained = [name for name in rest if name.startswith(beside)]
    account.fresh = [name for name in rest if not name.startswith(beside)]
    if not dist.is_initialized() or dist.get_rank() == 0:
        print(account.table(), flush=True)


def first(names: Iterable[str], most: int = 3) -> str:
    """The first few of `names`, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _by_our_names(skeleton: TrainedModel, stored: dict[str, Reader]) -> Translated:
    places = skeleton.state_dict()
    return Translated(
        plain={name: stored[name] for name in places if name in stored},
        converted={},
        unused=[name for name in stored if name not in places],
    )


def _head(
    skeleton: TrainedModel, spec: RunSpec, stored: dict[str, Reader], ours: bool, account: Account
) -> dict[str, Tensor]:
    """The head's values, taken out of `stored`; none where it is to be drawn fresh."""
    there = HEAD if ours else VIT_HEAD if spec.recipe.model.kind == "vit" else ()
    given = {name: stored.pop(key) for name, key in zip(HEAD, there, strict=False) if key in stored}
    if spec.origin_step is not None:  # the same training goes on, a probe's as well; shapes have been compared
        return {name: read() for name, read in given.items()}
    statistics = [name for name in stored if name.startswith(HEAD_NORM)]  # of what the origin's head was trained on
    for name in statistics:
        del stored[name]
    if spec.recipe.task == "probe":
        account.note = "a probe's head always is"
        account.unused += [*given, *statistics]
        return {}
    account.unused += statistics
    if len(given) < len(HEAD):
        account.unused += given
        return {}
    values = {name: read() for name, read in given.items()}
    for name, value in values.items():
        wanted = skeleton.get_parameter(name).shape
        if value.shape != wanted:
            account.note = f"{name} has shape {tuple(value.shape)} there, {tuple(wanted)} here"
            account.unused += given
            return {}
    return values


def _fitted(skeleton: TrainedModel, name: str, value: Tensor, place: Tensor, account: Account) -> Tensor:
    """`value` in the shape of `place`. Raises UserError where it cannot be."""
    if place.is_floating_point() and value.dtype not in FLOATS:
        raise UserError(f"init_from: {account.path}: {name} is {value.dtype}: quantised weights cannot be trained")
    if value.shape == place.shape:
        return value
    if value.ndim == place.ndim:
        try:
            fitted = skeleton.fit_pretrained(name, value, place.shape)
        except (UserError, RuntimeError):  # not of another image size, or of one that is not square
            pass
        else:
            account.resampled.append(name)
            return fitted
    raise UserError(
        f"init_from: {account.path}: {name} has shape {tuple(value.shape)} there, but {tuple(place.shape)} in the "
        "recipe's model: they are of different models"
    )


def _refuse_missing(account: Account, missing: Iterable[str], needed: Iterable[str], stored: dict[str, Reader]) -> None:
    """Raise UserError where there are any; `needed` gives their order."""
    gone = set(missing)
    if gone:
        ordered = [name for name in needed if name in gone]
        raise UserError(
            f"init_from: {account.path} lacks {first(ordered)}, which the recipe's model has; it holds "
            f"{first(stored) or 'nothing'}"
        )
