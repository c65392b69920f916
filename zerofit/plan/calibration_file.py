"""Where measured rates are kept: a file for each GPU type, in the user's cache."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from zerofit.config.errors import UserError
from zerofit.config.limited import read_limited
from zerofit.plan.calibration import Calibration
from zerofit.plan.cards import card_of


def default_root(environ: Mapping[str, str]) -> Path:
    """$ZEROFIT_CACHE/rates, or ~/.cache/zerofit/rates."""
    given = environ.get("ZEROFIT_CACHE")
    return (Path(given).expanduser() if given else Path.home() / ".cache" / "zerofit") / "rates"


def path_of(name: str, root: Path) -> Path:
    """The file of a device that the driver calls `name`: names of one card share it."""
    return root / f"{_key(name)}.json"


def stored(
    name: str, root: Path, tell: Callable[[str], None] = lambda line: print(line, file=sys.stderr)
) -> Calibration | None:
    """What was measured of the device `name`; null: nothing.

    A file that is damaged, of another version or of another device is left out, and `tell` gets a line about it.
    """
    path = path_of(name, root)
    try:
        found = Calibration.model_validate(json.loads(read_limited(path)))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        why = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    except (OSError, ValueError, RecursionError, UserError) as error:
        why = str(error).splitlines()[0]
    else:
        if _key(found.name) == _key(name):
            return found
        why = f"it is of {found.name}"
    tell(f"{path}: measured rates are left out ({why}); measure anew: zerofit doctor --calibrate")
    return None


def store(measured: Calibration, root: Path) -> Path:
    """Keep it, whole or not at all, with the links of other numbers of ranks that were known before. Its path.

    Raises UserError where the drive does not take it.
    """
    path = path_of(measured.name, root)
    before = stored(measured.name, root, tell=lambda line: None)
    links = {} if before is None else before.links
    merged = measured.model_copy(update={"links": links | measured.links})
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        root.mkdir(parents=True, exist_ok=True)
        partial.write_text(merged.model_dump_json(indent=1) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise UserError(
            f"--calibrate: cannot keep rates in {root} ({error.strerror or error}); make room there, or name another "
            "directory in ZEROFIT_CACHE"
        ) from None
    return path


def _key(name: str) -> str:
    card = card_of(name)
    return card.short if card is not None else re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "device"
