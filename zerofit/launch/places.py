"""Where an evaluation is written: a new directory, or the one of the same that was cut off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Protocol

from zerofit.config.errors import UserError
from zerofit.evaluate.request import DONE, NAME, Settled, differences


class Begun(Protocol):
    """A request, as far as it matters here."""

    @property
    def settings(self) -> Settled:
        """What decides about rows."""

    @property
    def per_part(self) -> int:
        """Problems of a part."""


Read = Callable[[Path], Begun]


def find_place(
    output: Path | None, candidates: Iterator[Path], settings: Settled, read: Read
) -> tuple[Path, int | None]:
    """The directory, and the size of the parts that are in it; null where it is new. Raises UserError.

    It is `output`, or the first of the candidates that is free or holds the same, cut off.
    """
    if output is not None:
        output = output.expanduser().absolute()
        return output, _unfinished(output, settings, read)
    for path in candidates:
        if not path.exists():
            try:
                path.mkdir(parents=True)
            except FileExistsError:  # another evaluation begins
                continue
            return path, None
        if (path / NAME).is_file() and not (path / DONE).exists():
            try:
                found = read(path)
            except UserError:
                continue
            if not differences(found.settings, settings):
                return path, found.per_part
    raise AssertionError("candidates never end without a choice")


def of_run(run_dir: Path) -> Iterator[Path]:
    """RUN/evaluations/1, 2, ..."""
    return (run_dir / "evaluations" / str(number) for number in count(1))


def of_model(name: str) -> Iterator[Path]:
    """./evaluations/NAME-1, NAME-2, ..."""
    return (Path("evaluations", f"{Path(name).name or 'model'}-{number}").absolute() for number in count(1))


def _unfinished(output: Path, settings: Settled, read: Read) -> int | None:
    """The size of its parts where `output` is an evaluation of the same that was cut off; null where it is new."""
    if not (output / NAME).is_file():
        if output.exists() and not (output.is_dir() and not any(output.iterdir())):
            raise UserError(f"--output {output} exists: name a new directory")
        output.mkdir(parents=True, exist_ok=True)
        return None
    if (output / DONE).exists():
        raise UserError(f"--output {output} holds a finished evaluation: name a new directory")
    found = read(output)
    changed = differences(found.settings, settings)
    if changed:
        raise UserError(
            f"--output {output} holds an evaluation under other settings ({', '.join(changed)}), which was cut off: "
            "name a new directory, or ask for the same to go on"
        )
    return found.per_part
