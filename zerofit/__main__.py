"""`python -m zerofit` is `zerofit`."""

from __future__ import annotations

from zerofit.cli import main

if __name__ == "__main__":
    main()
