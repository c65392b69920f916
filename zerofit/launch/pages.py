"""The page of a run that has ended, or of a job: one that cannot be made is a line, and never a failed run."""

from __future__ import annotations

import sys
from pathlib import Path


def make(directory: Path) -> Path | None:
    """Write its page (`zerofit.report.page`); its path, or null where that failed, which is said."""
    try:
        from zerofit.report.page import write_page

        return write_page(directory)
    except Exception as error:  # training has succeeded: nothing that is wrong with its page may hide that
        print(f"no page of {directory}: {type(error).__name__}: {error}", file=sys.stderr)
        return None
