"""The embedded parts as rows."""

from __future__ import annotations

from collections.abc import Iterator

from zerofit.cad import text
from zerofit.cad.parts import split
from zerofit.config.cad import Cad
from zerofit.config.errors import UserError
from zerofit.data.cad_rows import Bad, CadRow


def read_parts(data: Cad, seed: int) -> Iterator[CadRow | Bad]:
    """Those of training, then those of the test. Raises UserError where there are too few."""
    try:
        train, test = split(seed, data.parts, data.test_parts)
    except UserError as error:
        raise UserError(f"data: {error}") from None
    for number, part in enumerate(train, start=1):
        yield CadRow(f"train:{number}", "train", part.caption, text.write(part.sequence))
    for number, part in enumerate(test, start=1):
        yield CadRow(f"test:{number}", "test", part.caption, text.write(part.sequence))
