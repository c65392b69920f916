"""DeepSpeed's checkpoints of any ZeRO stage, read without DeepSpeed, one parameter at a time.

Up to ZeRO stage 2 `mp_rank_00_model_states.pt` holds the whole model. Under stage 3 every rank has its part in two
files (the layout is that of DeepSpeed's own `zero_to_fp32.py`): the trained parameters in `*_optim_states.pt`, flat and
float32 (`fp32_flat_groups`), in the order of `param_shapes`; the frozen ones in `zero_pp_rank_N_*_model_states.pt`. Of
a parameter of n elements each of W ranks holds ceil(n / W), the last ones padded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zerofit.config.errors import UserError
from zerofit.config.limited import read_limited
from zerofit.models.pretrained import Reader
from zerofit.models.torch_files import load, readers

LATEST = "latest"
WHOLE = re.compile(r"mp_rank_(?P<mp>\d+)_model_states\.pt")
PART = re.compile(r"zero_pp_rank_(?P<rank>\d+)_mp_rank_(?P<mp>\d+)_model_states\.pt")
OPTIMIZER = re.compile(r"(bf16_|fp16_)?zero_pp_rank_(?P<rank>\d+)_mp_rank_(?P<mp>\d+)_optim_states\.pt")
LAYER = re.compile(r"(layer_\d+|expert_\d+).*_states\.pt")


def tag_directory(directory: Path) -> Path | None:
    """Where the files of a DeepSpeed checkpoint lie: where `latest` says, or here; null where this is none."""
    latest = directory / LATEST
    if latest.is_file():
        name = read_limited(latest, 4096).decode("utf-8", errors="replace").strip()
        if name in ("", ".", "..") or "/" in name or not name.isprintable():
            raise UserError(f"init_from: {latest} names {name[:200]!a}, which is no directory beside it")
        tag = directory / name
        if not tag.is_dir():
            raise UserError(f"init_from: {latest} names {tag.name}, which is not there")
        return tag
    return directory if any(directory.glob("*_states.pt")) else None


def zero_weights(directory: Path, trust: bool) -> dict[str, Reader]:
    """Readers of the parameters and buffers in a tag's directory (`global_step500`). Raises UserError."""
    whole, parts, optimizers = (by_rank(directory, pattern) for pattern in (WHOLE, PART, OPTIMIZER))
    names = sorted(path.name for path in directory.iterdir())
    if any(LAYER.match(name) for name in names):
        raise UserError(
            f"init_from: {directory} is of a pipeline or of experts, whose layers lie in files of their own"
        )
    if whole and parts:
        raise UserError(f"init_from: {directory} holds files of ZeRO stage 3 and of another: give a directory of one")
    if whole:
        path = whole[0]
        return readers(_tensors(path, entry(path, load(path, trust=trust), "module")))
    if parts:
        return _stage_3(parts, optimizers, trust)
    there = ", ".join(names[:5]) or "nothing"
    raise UserError(
        f"init_from: {directory} has no model states: neither mp_rank_00_model_states.pt nor "
        f"zero_pp_rank_0_mp_rank_00_model_states.pt; there is {there}"
    )


def by_rank(directory: Path, pattern: re.Pattern[str]) -> list[Path]:
    """The files of the pattern, in order of ranks, all of them. Raises UserError for tensor-parallel ones."""
    found: dict[int, Path] = {}
    for path in directory.iterdir():
        match = pattern.fullmatch(path.name)
        if match is None:
            continue
        if int(match["mp"]) > 0:
            raise UserError(
                f"init_from: {directory} is of a tensor-parallel model: {path.name} holds a slice of each weight; "
                "save it whole first"
            )
        found[int(match.groupdict().get("rank", 0))] = path
    for rank in range(max(found, default=-1) + 1):
        if rank not in found:
            raise UserError(f"init_from: {directory} lacks the file of rank {rank} beside {max(found.values()).name}")
    return [found[rank] for rank in sorted(found)]


def _stage_3(parts: Sequence[Path], optimizers: Sequence[Path], trust: bool) -> dict[str, Reader]:
    first = parts[0]
    model = load(first, trust=trust)
    states = [entry(path, load(path, trust=trust), "optimizer_state_dict") for path in optimizers]
    ranks = entry(optimizers[0], states[0], "partition_count") if states else len(parts)
    for files, what in ((parts, "model"), (optimizers, "optim")):
        if len(files) != ranks:
            raise UserError(
                f"init_from: {first.parent} has the files *_{what}_states.pt of {len(files)} ranks, but was written by "
                f"{ranks}"
            )
    flats = [Flat(entry(path, state, "fp32_flat_groups")) for path, state in zip(optimizers, states, strict=True)]
    shapes = {name: shape for group in entry(first, model, "param_shapes") for name, shape in group.items()}
    stored: dict[str, Reader] = {}
    start = 0
    for name, shape in shapes.items():
        length = math.ceil(math.prod(shape) / ranks)
        stored[name] = Spread(partial(slices, flats, start, length), shape)
        start += length
    for path, flat in zip(optimizers, flats, strict=True):
        if flat.size != start:
            raise UserError(
                f"init_from: {path} holds {flat.size} elements, but the parameters listed in {first.name} need {start}"
            )
    frozen = model.get("frozen_param_shapes") or {}
    if frozen:
        everyone = [model, *(load(path, trust=trust) for path in parts[1:])]
        fragments = [entry(path, one, "frozen_param_fragments") for path, one in zip(parts, everyone, strict=True)]
        for name, shape in frozen.items():
            held = [entry(path, one, name) for path, one in zip(parts, fragments, strict=True)]
            stored[name] = Spread(partial(iter, held), shape)
    module = entry(first, model, "module")
    stored |= readers({name: module[name] for name in model.get("buffer_names") or () if name in module})
    shared = model.get("shared_params") or {}
    return stored | {name: stored[source] for name, source in shared.items() if source in stored}


class Flat:
    """One rank's flat tensors, as if they were one."""

    def __init__(self, groups: Sequence[Tensor]) -> None:
        self.groups = groups
        self.ends = list(accumulate(group.numel() for group in groups))
        self.size = self.ends[-1] if self.ends else 0

    def slice(self, start: int, length: int) -> Iterable[Tensor]:
        """Elements start .. start + length: a piece of each group that has some."""
        for group, end in zip(self.groups, self.ends, strict=True):
            begin = end - group.numel()
            lower, upper = max(start, begin), min(start + length, end)
            if lower < upper:
                yield group[lower - begin : upper - begin]


@dataclass(frozen=True)
class Spread:
    """Reader of a tensor of `shape` whose elements lie in several places, in order; what is left over pads.

    Whoever does not need it whole takes its pieces, which stay on the drive.
    """

    parts: Callable[[], Iterable[Tensor]]
    shape: torch.Size

    def __call__(self) -> Tensor:
        """The tensor, in memory of its own."""
        return torch.cat([*self.pieces()]).view(self.shape)

    def pieces(self) -> Iterator[Tensor]:
        """Its elements, flat; at least one piece, which may be empty. Raises UserError where there are too few."""
        left = math.prod(self.shape)
        for number, piece in enumerate(self.parts()):
            if left or not number:
                yield piece.detach().flatten()[:left]
                left = max(0, left - piece.numel())
        if left:
            raise UserError(
                f"init_from: DeepSpeed's files lack {left} elements of a tensor of shape {tuple(self.shape)}"
            )

    @property
    def dtype(self) -> torch.dtype:
        """That of its pieces."""
        return next(self.pieces()).dtype


def slices(flats: Sequence[Flat], start: int, length: int) -> Iterable[Tensor]:
    """Of every rank's flat the `length` elements from `start`: of a stage 3 parameter, its pieces."""
    return (piece for flat in flats for piece in flat.slice(start, length))


def entry(path: Path, loaded: Any, key: str) -> Any:
    """What `path` held under `key`. Raises UserError where it held nothing."""
    if not isinstance(loaded, dict) or loaded.get(key) is None:
        raise UserError(f"init_from: {path} is no such file of DeepSpeed: it has no {key}")
    return loaded[key]


def _tensors(path: Path, module: Any) -> dict[str, Tensor]:
    if not isinstance(module, dict):
        raise UserError(f"init_from: {path} is no such file of DeepSpeed: its module is no state dict")
    return {name: value for name, value in module.items() if isinstance(value, Tensor)}
