"""What a directory or file is, from names, headers and metadata, and which files it lacks; tensors stay unread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from zerofit.checkpoint.canonical import CANONICAL, is_canonical, read_state_file
from zerofit.checkpoint.headers import read_header
from zerofit.checkpoint.manifest import NAME, read_manifest, step_of, verify
from zerofit.checkpoint.outside import leading_out, shown
from zerofit.checkpoint.zero_names import ZeroDirectory, dtypes, look_at
from zerofit.config.errors import UserError
from zerofit.config.strategy import ZERO_STAGE
from zerofit.models.frozen import FROZEN
from zerofit.models.pretrained import INDEX, WHOLE, weight_files
from zerofit.models.stored import kind_of
from zerofit.models.torch_files import load, tensors_of
from zerofit.models.zero_files import LATEST

Row = tuple[str, str]


@dataclass
class Found:
    """What was found."""

    what: str
    rows: list[Row] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Files that should be there, by their paths below the directory."""
    faults: list[str] = field(default_factory=list)
    """What else is wrong."""


def inspect(path: Path, *, trust: bool) -> Found:
    """What lies at `path`. Raises UserError where that is nothing that is known."""
    if path.is_file():
        return _file(path, trust)
    if (path / NAME).is_file() or step_of(path) is not None:
        return _ours(path, trust)
    if (path / LATEST).is_file() or any(path.glob("*_states.pt")):
        zero = look_at(path, trust)
        return Found(zero.what, _zero_rows(zero), zero.missing, zero.faults)
    if (path / WHOLE).is_file() or (path / INDEX).is_file() or any(path.glob("model-*-of-*.safetensors")):
        return _safetensors(path)
    kind_of(path)  # says what was looked for
    raise AssertionError("kind_of refuses what is not one of the above")


def _ours(path: Path, trust: bool) -> Found:
    try:
        manifest = read_manifest(path)
    except UserError as error:
        incomplete = not (path / NAME).exists()
        found = Found(
            "a checkpoint of zerofit" + (", never written to its end" if incomplete else ""),
            [("step", str(step_of(path)))],
            [NAME] if incomplete else [],
            [] if incomplete else [str(error)],
        )
        if (path / LATEST).is_file() or any(path.glob("*/*_states.pt")):
            try:
                zero = look_at(path, trust)
            except UserError as fault:
                found.faults.append(str(fault))
            else:
                found.rows, found.missing = _zero_rows(zero), [*found.missing, *zero.missing]
        return found
    facts = manifest.facts
    strategy = str(facts.get("strategy", "?"))
    canonical = strategy == CANONICAL
    rows = [
        ("strategy", "none: canonical form" if canonical else shown(strategy)),
        ("ZeRO stage", str(ZERO_STAGE.get(strategy, "none"))),
        ("world size", shown(str(facts.get("world_size", "?")))),
        ("step", shown(str(facts.get("step", "?")))),
    ]
    if canonical and "written_by" in facts:
        rows[0] = ("strategy", f"none: canonical form of what {shown(str(facts['written_by']))} wrote")
    out = leading_out(path)
    missing = sorted(name for name in manifest.files if not (path / name).exists())
    faults = [line for line in verify(path, contents=False) if not line.endswith(" is missing")]
    present = [path / name for name in manifest.files if name not in {*missing, *out} and "/" not in name]
    rows += _tensors([one for one in present if one.name.startswith("model") and one.suffix == ".safetensors"], faults)
    if (path / FROZEN).is_file():
        rows.append(("holds", f"what was trained alone; {FROZEN} says where the frozen rest is from"))
    if canonical and is_canonical(path):
        kept = bool(read_state_file(path).groups)
        rows.append(("optimizer", "yes" if kept else "no"))
    return Found("a checkpoint of zerofit", rows, [shown(name) for name in missing], faults)


def _zero_rows(zero: ZeroDirectory) -> list[Row]:
    rows = [
        ("strategy", "DeepSpeed"),
        ("ZeRO stage", zero.stage),
        ("world size", str(zero.world)),
        ("step", "?" if zero.step is None else str(zero.step)),
    ]
    if zero.slices > 1:
        rows.append(("tensor-parallel", f"{zero.slices} slices of each weight"))
    if zero.parameters is not None:
        rows.append(("parameters", f"{zero.parameters:,}"))
    rows += [("dtype", zero.dtype), ("optimizer", "yes" if zero.optimizer else "no")]
    return rows


def _safetensors(path: Path) -> Found:
    missing, faults = [], list[str]()
    if (path / WHOLE).is_file():
        files = [path / WHOLE]
    else:
        files = sorted(path.glob("model-*-of-*.safetensors"))
        if (path / INDEX).is_file():
            try:
                weight_files(path, str(path))
            except UserError as error:
                faults = [str(error)]
            missing = _lacking(path)
            faults = [] if missing else faults
        else:
            missing = [INDEX]
        files = [one for one in files if one.is_file()]
    named = (path / "config.json").is_file()
    what = "a directory of Hugging Face" if named else "a directory of safetensors"
    return Found(what, [("strategy", "none: weights alone"), *_tensors(files, faults)], missing, faults)


def _lacking(path: Path) -> list[str]:
    import json

    from zerofit.config.limited import read_limited

    try:
        names = set(json.loads(read_limited(path / INDEX))["weight_map"].values())
        return sorted(shown(Path(name).name) for name in names if not (path / Path(name).name).is_file())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def _file(path: Path, trust: bool) -> Found:
    if kind_of(path) == "safetensors":
        faults: list[str] = []
        return Found("a file of safetensors", [("strategy", "none"), *_tensors([path], faults)], [], faults)
    loaded = load(path, trust=trust)
    held = {name: read() for name, read in tensors_of(path, loaded).items()}
    optimizer = isinstance(loaded, dict) and isinstance(loaded.get("optimizer"), dict)
    rows = [("strategy", "none"), *_counted(held.values()), ("optimizer", "yes" if optimizer else "no")]
    return Found("a file of torch.save", rows)


def _tensors(files: Iterable[Path], faults: list[str]) -> list[Row]:
    """Rows of what the headers of safetensors files say; what is wrong with them is added to `faults`."""
    elements: Counter[str] = Counter()
    for file in files:
        try:
            for tensor in read_header(file).values():
                elements[tensor.dtype] += tensor.elements
        except (UserError, OSError) as error:
            faults.append(str(error))
    return [("parameters", f"{elements.total():,}"), ("dtype", dtypes(elements))]


def _counted(tensors: Iterable[Tensor]) -> list[Row]:
    tensors = list(tensors)
    kinds = dtypes(str(one.dtype).removeprefix("torch.") for one in tensors)
    return [("parameters", f"{sum(one.numel() for one in tensors):,}"), ("dtype", kinds)]
