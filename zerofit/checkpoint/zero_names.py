"""What a directory of DeepSpeed is, and which of its files are missing, by their exact names.

How many there should be, any of its files says (`dp_world_size`, `partition_count`); where none can be read, the
highest rank that a name has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from zerofit.checkpoint.outside import shown
from zerofit.config.errors import UserError
from zerofit.config.limited import read_limited
from zerofit.models.torch_files import load
from zerofit.models.zero_files import LATEST, LAYER, OPTIMIZER, PART, WHOLE, tag_directory

MOST_RANKS = 100_000
"""More are not believed."""
STEP_TAG = re.compile(r"global_step(\d{1,18})")


@dataclass
class ZeroDirectory:
    """A directory of DeepSpeed."""

    what: str = "a checkpoint of DeepSpeed"
    stage: str = "?"
    world: int = 1
    """Data-parallel ranks that wrote it."""
    slices: int = 1
    """Tensor-parallel ranks."""
    step: int | None = None
    parameters: int | None = None
    dtype: str = "?"
    optimizer: bool = False
    missing: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def look_at(directory: Path, trust: bool) -> ZeroDirectory:
    """What the names and metadata in a directory of DeepSpeed, or in a tag's, say. Raises UserError."""
    found = ZeroDirectory()
    try:
        tag = tag_directory(directory)
    except UserError as error:
        name = read_limited(directory / LATEST, 4096).decode("utf-8", errors="replace").strip()
        if "which is not there" not in str(error):
            raise
        found.missing.append(f"{name}/")
        return found
    if tag is None:
        inner = sorted(path.parent for path in directory.glob("*/*_states.pt"))
        tag = inner[-1]
        found.missing.append(LATEST)
    prefix = "" if tag == directory else f"{tag.name}/"
    named = STEP_TAG.fullmatch(tag.name)
    found.step = int(named[1]) if named else None
    names = sorted(path.name for path in tag.iterdir())
    if any(LAYER.match(name) for name in names):
        found.what += " of a pipeline or of experts: layers lie in files of their own, and are not looked at"
    matches = {name: OPTIMIZER.fullmatch(name) or PART.fullmatch(name) or WHOLE.fullmatch(name) for name in names}
    places = [match.groupdict() for match in matches.values() if match is not None]
    found.world = 1 + max((int(place.get("rank") or 0) for place in places), default=0)
    found.slices = 1 + max((int(place["mp"]) for place in places), default=0)
    optimizers = [name for name in names if OPTIMIZER.fullmatch(name)]
    parts = [name for name in names if PART.fullmatch(name)]
    whole = [name for name in names if WHOLE.fullmatch(name)]
    model = _loaded(tag, (parts or whole)[:1], found, trust)
    states = _loaded(tag, optimizers[:1], found, trust).get("optimizer_state_dict")
    _counts(found, model, states if isinstance(states, dict) else {})
    stage = _stage(model, parts=bool(parts), optimizers=bool(optimizers), states=states)
    found.stage = {None: "1 or 2", 0: "none"}.get(stage, str(stage))
    try:
        _describe(found, model, three=stage == 3)
    except (TypeError, AttributeError, ValueError) as error:  # whatever a stranger wrote
        found.faults.append(f"it holds other things than DeepSpeed writes: {shown(repr(error))}")
    found.optimizer = bool(optimizers) or model.get("optimizer") is not None
    bf16 = _section(model, "bf16").get("enabled") is True
    front = re.split("zero_pp", optimizers[0])[0] if optimizers else "bf16_" if bf16 else ""
    expected = _expected(found, stage, front)
    found.missing += [prefix + name for name in expected if name not in matches]
    return found


def _expected(found: ZeroDirectory, stage: int | None, front: str) -> list[str]:
    """The files that DeepSpeed writes."""
    pairs = [(rank, slice_) for slice_ in range(found.slices) for rank in range(found.world)]
    if stage == 3:
        models = [f"zero_pp_rank_{rank}_mp_rank_{slice_:02d}_model_states.pt" for rank, slice_ in pairs]
    else:
        models = [f"mp_rank_{slice_:02d}_model_states.pt" for slice_ in range(found.slices)]
    if stage == 0:
        return models
    return models + [f"{front}zero_pp_rank_{rank}_mp_rank_{slice_:02d}_optim_states.pt" for rank, slice_ in pairs]


def _loaded(tag: Path, names: list[str], found: ZeroDirectory, trust: bool) -> Mapping[str, Any]:
    """What the first file holds; nothing, and a fault, where it cannot be read."""
    for name in names:
        try:
            loaded = load(tag / name, trust=trust)
        except UserError as error:
            found.faults.append(str(error).removeprefix("init_from: "))
            return {}
        return loaded if isinstance(loaded, dict) else {}
    return {}


def _counts(found: ZeroDirectory, model: Mapping[str, Any], states: Mapping[str, Any]) -> None:
    """World size and step, as the files say."""
    parts = states.get("partition_count")
    for said in (parts[0] if isinstance(parts, list) and parts else parts, model.get("dp_world_size")):
        if type(said) is int and said > MOST_RANKS:
            found.faults.append(f"it says that {said} ranks wrote it, which is not believed")
        elif type(said) is int and said > 0:
            found.world = max(found.world, said)
    slices = model.get("mp_world_size")
    if type(slices) is int and 0 < slices <= MOST_RANKS // found.world:
        found.slices = max(found.slices, slices)
    step = model.get("global_steps")
    found.step = step if type(step) is int else found.step


def _stage(model: Mapping[str, Any], *, parts: bool, optimizers: bool, states: Any) -> int | None:
    """ZeRO stage; null: 1 or 2, of which nothing tells."""
    if parts:
        return 3
    said = _section(model, "zero_optimization").get("stage")
    if type(said) is int and 0 <= said <= 3:
        return said
    if isinstance(states, dict) and "fp32_flat_groups" in states:
        return 3
    return None if optimizers or model.get("param_shapes") else 0


def _describe(found: ZeroDirectory, model: Mapping[str, Any], *, three: bool) -> None:
    """Parameters and dtype."""
    module = model.get("module")
    buffers = set(model.get("buffer_names") or ())
    if three:
        groups = [*(model.get("param_shapes") or ()), model.get("frozen_param_shapes") or {}]
        sizes = [math.prod(shape) for group in groups if isinstance(group, dict) for shape in group.values()]
        found.parameters = sum(sizes) if model else None
        low = [name for name in ("bf16", "fp16") if _section(model, name).get("enabled") is True]
        found.dtype = (low or ["fp32"])[0] if model else "?"
        return
    if isinstance(module, dict):
        shared = model.get("shared_params") or {}
        tensors = {name: one for name, one in module.items() if isinstance(one, Tensor)}
        own = [one for name, one in tensors.items() if name not in buffers and name not in shared]
        places = {(one.data_ptr(), one.shape): one for one in own}  # tied ones share their memory
        found.parameters = sum(one.numel() for one in places.values())
        found.dtype = dtypes(str(one.dtype).removeprefix("torch.") for one in own)


def dtypes(names: Iterable[str]) -> str:
    """Dtypes, by torch's names or those of safetensors, in our words."""
    words = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "f32": "fp32", "f16": "fp16"}
    return ", ".join(sorted({shown(words.get(name.lower(), name.lower())) for name in names})) or "?"


def _section(model: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    config = model.get("ds_config")
    section = config.get(name) if isinstance(config, dict) else None
    return section if isinstance(section, dict) else {}
