"""A run that imports what it will need and waits for a line on stdin: `python bench/warm.py train RECIPE ...`.

Most of what a short run takes is imports, of which its figures are not. One process is one rank, on the first GPU.
"""

from __future__ import annotations

import importlib
import os
import sys

from one_gpu import environments

NEEDED = ("torch", "deepspeed", "transformers", "peft", "trl", "datasets", "zerofit.launch.worker", "zerofit.cli")


def main() -> None:
    """See the module."""
    os.environ.update(environments(1)[0])
    for name in NEEDED:
        importlib.import_module(name)
    sys.stdin.readline()
    from zerofit.__main__ import main as run

    run()


if __name__ == "__main__":
    main()
