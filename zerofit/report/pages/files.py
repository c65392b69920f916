"""Files of a directory, for its page: as far as they are there and whole."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from zerofit.config.errors import UserError
from zerofit.config.limited import read_limited

PAGE = "report.html"
"""What a directory's page is called."""
PICTURE = 512 * 2**10
"""Bytes of an image that is put into a page, at most."""
PNG = b"\x89PNG\r\n\x1a\n"


class Read(BaseModel):
    """What a page reads of a file; there may be more in it."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


T = TypeVar("T", bound=Read)


def parsed(path: Path, kind: type[T]) -> T:
    """A JSON file of a known form. Raises UserError where it is not of that form; OSError."""
    try:
        return kind.model_validate_json(read_limited(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path} is not what this version of zerofit writes: {where}: {first['msg']}") from None


def found(path: Path, kind: type[T]) -> T | None:
    """The same; null where there is no such file."""
    return parsed(path, kind) if path.is_file() else None


def mapping(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none that can be read."""
    try:
        value = json.loads(read_limited(path))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; without those that are torn, as a crash may leave the last."""
    if not path.is_file():
        return []
    written = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    try:
        every = json.loads(f"[{','.join(written)}]")  # in one call: that is three times as fast
    except ValueError:
        every = [value for line in written if (value := _value(line)) is not None]
    return [value for value in every if isinstance(value, dict)]


def _value(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


@dataclass(frozen=True)
class Column:
    """A field of JSON lines that have a step; finite numbers alone."""

    steps: NDArray[np.float64]
    values: NDArray[np.float64]


def columns(lines: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
    """Every field that has numbers."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for line in lines:
        step = line.get("step")
        if type(step) is not int:
            continue
        for field, value in line.items():
            if type(value) in (int, float):
                steps, values = found.setdefault(field, ([], []))
                steps.append(step)
                values.append(value)
    made = {}
    for field, pair in found.items():
        steps_, values_ = (np.asarray(one, dtype=np.float64) for one in pair)
        known = np.isfinite(values_)
        if known.any():
            made[field] = Column(steps_[known], values_[known])
    return made


def finite(value: Any) -> float | None:
    """A number that can be drawn; null for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def picture(directory: Path, name: str) -> str | None:
    """A PNG file in the directory as a data: address; null where it is none, leads out of it, or is large."""
    path = (directory / name).resolve()
    if not path.is_relative_to(directory.resolve()) or not path.is_file():
        return None
    try:
        content = read_limited(path, PICTURE)
    except (OSError, UserError):
        return None
    return png(content)


def png(content: bytes | None) -> str | None:
    """The bytes of a PNG file as a data: address; null where they are none, or many."""
    if content is None or not content.startswith(PNG) or len(content) > PICTURE:
        return None
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
