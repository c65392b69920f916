"""Runs commands of zerofit one after another as forks of one process that has imported everything.

    python bench/warm.py commands.txt --limit 200
    mkfifo queue; python bench/warm.py queue                     # as they come, until the last writer has closed it

A line of the file is what follows `zerofit`. Where imports take half a minute, as on a host with slow processors, they
are most of a short run; a fork has none. One JSON line for each command: `rc` (null: ended at the limit) and `s`; its
output is in OUT/NUMBER.stdout and .stderr. Fork and CUDA agree as long as nobody has asked for a device before, which
bitsandbytes does when it is imported: it is not there, and a recipe that quantises takes a process of its own.
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
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))


def import_all() -> None:
    """Of what commands and ranks import; once, before the first start."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # no driver in this process: a fork could not use its own
    os.environ["OMP_NUM_THREADS"] = "1"  # nor would a pool of threads be there in a fork: not for state on the host
    sys.modules["bitsandbytes"] = None  # type: ignore[assignment]
    import zygote

    for name in zygote.IMPORTED:
        importlib.import_module(name)
    import torch

    assert not torch.cuda.is_initialized()


def start(words: Sequence[str], out: Path, environment: Mapping[str, str]) -> int:
    """`zerofit WORDS` as a child, whose output goes to OUT.stdout and OUT.stderr; its process id."""
    import zygote

    request = {"out": str(out), "cwd": os.getcwd(), "env": dict(environment), "faults": {}, "start": list(words)}
    return zygote.start_launcher(request)


def ended(child: int) -> int | None:
    """The exit status of one that was started; null while it runs. Not to be asked again after that."""
    found, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def wait(child: int, until: float) -> int | None:
    """Its exit status; null where it had to be killed."""
    while time.monotonic() < until:
        code = ended(child)
        if code is not None:
            return code
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)  # its ranks end with it
    os.waitpid(child, 0)
    return None


def main() -> None:
    """Import, then one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", type=Path)
    parser.add_argument("--limit", type=float, default=600.0, metavar="S", help="seconds for each")
    parser.add_argument("--out", type=Path, default=Path("/tmp/warm"))
    options = parser.parse_args()
    began = time.monotonic()
    import_all()
    print(json.dumps({"imports_s": round(time.monotonic() - began, 1)}), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    with options.commands.open() as commands:
        for number, line in enumerate((line for line in commands if line.strip()), start=1):
            began = time.monotonic()
            child = start(shlex.split(line), options.out / str(number), os.environ)
            code = wait(child, began + options.limit)
            taken = round(time.monotonic() - began, 1)
            print(json.dumps({"command": line.strip(), "rc": code, "s": taken}), flush=True)


if __name__ == "__main__":
    main()
