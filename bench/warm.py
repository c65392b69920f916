"""Runs commands of zerofit one after another as forks of one process that has imported everything.

    python bench/warm.py commands.txt --limit 200

A line of the file is what follows `zerofit`. Where imports take half a minute, as on a host with slow processors, they
are most of a short run; a fork has none. One JSON line for each command: `rc` (null: ended at the limit) and `s`; its
output is in OUT/NUMBER.stdout and .stderr. Fork and CUDA agree as long as nobody has asked for a device before.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # no driver in this process: a fork could not use its own any more
os.environ["OMP_NUM_THREADS"] = "1"  # nor would a pool of threads be there in a fork: not for state on the host

import zygote


def main() -> None:
    """Import, then one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", type=Path)
    parser.add_argument("--limit", type=float, default=600.0, metavar="S", help="seconds for each")
    parser.add_argument("--out", type=Path, default=Path("/tmp/warm"))
    options = parser.parse_args()
    began = time.monotonic()
    for name in zygote.IMPORTED:
        importlib.import_module(name)
    import torch

    assert not torch.cuda.is_initialized()
    print(json.dumps({"imports_s": round(time.monotonic() - began, 1)}), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    lines = [line for line in options.commands.read_text().splitlines() if line.strip()]
    for number, line in enumerate(lines, start=1):
        began = time.monotonic()
        request = {"out": str(options.out / str(number)), "cwd": os.getcwd(), "env": dict(os.environ), "faults": {}}
        code = ended(zygote.start_launcher({**request, "start": shlex.split(line)}), began + options.limit)
        print(json.dumps({"command": line, "rc": code, "s": round(time.monotonic() - began, 1)}), flush=True)


def ended(child: int, until: float) -> int | None:
    """Its exit status; null where it had to be killed."""
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)  # its ranks end with it
    os.waitpid(child, 0)
    return None


if __name__ == "__main__":
    main()
