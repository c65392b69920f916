"""Directories of models and tokenizers: local ones, and those of the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from zerofit.config.errors import UserError

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def located(name: str, field: str, wanted: Sequence[str], *, offline: bool = False) -> Path | None:
    """The directory that `field` of a recipe names: a local one, or the hub's, of which `wanted` files are downloaded.

    `offline` asks for what was downloaded before, and gives null where nothing was. What looks like a path is never
    asked of the hub. Raises UserError.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if not HUB_ID.fullmatch(name) or Path(path.parts[0]).exists():
        what = "is a file; give the directory that holds it" if path.exists() else "does not exist"
        raise UserError(f"{field}: the directory {name} {what}")
    from huggingface_hub import snapshot_download  # half a second of import that local directories do not pay
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(wanted), local_files_only=offline))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        if offline:
            return None
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{field}: {name} is no directory here, and could not be had from the hub: {reason}") from None
