"""Rows of an evaluation in parquet files: a dataclass whose fields are the columns."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from zerofit.config.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

Row = TypeVar("Row")


@dataclass(frozen=True)
class Form(Generic[Row]):
    """What rows of one kind look like in a file."""

    kind: Callable[..., Row]
    """Makes a row of its columns."""
    schema: Callable[[], pa.Schema]

    def write(self, path: Path, rows: Iterable[Row], about: Mapping[str, str] | None = None) -> None:
        """Write a parquet file, which is there whole or not at all; `about` is said in its schema's metadata."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        partial = path.with_name(f"{path.name}.partial")
        schema = self.schema().with_metadata(dict(about or {}))
        columns: list[dict[str, Any]] = [asdict(row) for row in rows]  # type: ignore[call-overload]  # of a dataclass
        pq.write_table(pa.Table.from_pylist(columns, schema=schema), partial)
        os.replace(partial, path)

    def read(self, path: Path) -> list[Row]:
        """Read such a file. Raises UserError where it is none."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise unreadable(path, error) from None
        wanted = self.schema()
        lacking = [name for name in wanted.names if name not in table.column_names]
        if lacking:
            raise UserError(
                f"{path}: has no {', '.join(lacking)}; rows of an evaluation have {', '.join(wanted.names)}"
            )
        try:
            rows = table.select(wanted.names).cast(wanted).to_pylist()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
            raise UserError(f"{path}: is not of an evaluation: {str(error).splitlines()[0]}") from None
        return [self.kind(**row) for row in rows]


def read_about(path: Path) -> dict[str, str]:
    """What such a file says about itself. Raises UserError where it is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowInvalid) as error:
        raise unreadable(path, error) from None
    return {name.decode(): value.decode() for name, value in metadata.items() if not name.startswith(b"ARROW:")}


def unreadable(path: Path, error: Exception) -> UserError:
    """What to raise for a file that is no parquet."""
    return UserError(f"{path}: cannot be read as parquet: {str(error).splitlines()[0]}")
