"""What a safetensors file holds, from its header alone: no tensor is read, and torch is not imported."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from zerofit.checkpoint.outside import shown
from zerofit.config.errors import UserError
from zerofit.config.limited import MOST
from zerofit.config.section import Section

BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8}
BITS |= {"I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32}
BITS |= {"I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
"""Of an element, by the format's names of dtypes."""
METADATA = "__metadata__"

Count = Annotated[int, Field(ge=0, lt=2**63)]


class Stored(Section):
    """One tensor of a safetensors file."""

    dtype: str
    """By the format's name: F32, BF16."""
    shape: Annotated[tuple[Count, ...], Field(max_length=64)]
    """Elements along each dimension."""
    data_offsets: tuple[Count, Count]
    """Where its bytes begin and end, counted from the end of the header."""

    @property
    def elements(self) -> int:
        """How many it has."""
        return math.prod(self.shape)


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors of a safetensors file, by name. Raises UserError where its header does not fit the file; OSError."""
    with path.open("rb") as file:
        size = path.stat().st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise UserError(f"{path} is broken: its header would have {length} bytes, and the file has {size}")
        if length > MOST:
            raise UserError(f"{path} is not read: its header has {length} bytes, more than {MOST // 2**20} MiB")
        text = file.read(length)
    try:
        entries = TypeAdapter(dict[str, dict[str, Any]]).validate_json(text)
        tensors = {name: Stored.model_validate(one) for name, one in entries.items() if name != METADATA}
    except ValidationError as error:
        raise UserError(f"{path} is broken: its header is none of safetensors ({_reason(error)})") from None
    _check_places(path, tensors, size - 8 - length)
    return tensors


def _check_places(path: Path, tensors: dict[str, Stored], size: int) -> None:
    """Raise UserError unless the tensors lie one after another in `size` bytes, each of as many as it needs."""
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        first, last = tensor.data_offsets
        if tensor.dtype not in BITS:
            raise UserError(f"{path} is broken: {shown(name)} is of an unknown dtype, {shown(tensor.dtype)}")
        if first != end or (last - first) * 8 != tensor.elements * BITS[tensor.dtype]:
            raise UserError(f"{path} is broken: {shown(name)} has other bytes than its shape and dtype need")
        end = last
    if end != size:
        raise UserError(f"{path} is broken: its tensors have {end} bytes, but {size} follow its header")


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return shown(": ".join([*map(str, first["loc"][:1]), first["msg"]]))
