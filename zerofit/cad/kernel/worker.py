"""A process of the kernel: requests on standard input, replies on standard output (zerofit/cad/kernel/wire.py).

python -m zerofit.cad.kernel.worker SECONDS MEBIBYTES
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import BinaryIO

from zerofit.cad.errors import CadError
from zerofit.cad.kernel.process import OUT_OF_MEMORY
from zerofit.cad.kernel.wire import Reply, Request, pack_reply, unpack_request


def serve(answer: Callable[[Request], Reply], seconds: float, replies: BinaryIO) -> None:
    """Answer requests until there are no more; SIGPROF ends the process where one takes too long."""
    _say(replies, Reply())
    for line in sys.stdin.buffer:
        request = unpack_request(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            reply = answer(request)
        except CadError as error:
            reply = Reply(invalid=str(error))
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        except Exception as error:
            if not type(error).__module__.startswith("OCP"):
                raise
            reply = Reply(invalid=f"OpenCASCADE: {type(error).__name__}: {' '.join(str(error).split())}")
        signal.setitimer(signal.ITIMER_PROF, 0)
        _say(replies, reply)


def _say(replies: BinaryIO, reply: Reply) -> None:
    replies.write(pack_reply(reply))
    replies.flush()


def limit(mebibytes: int) -> BinaryIO:
    """Set what holds for the process, and give where replies go; what OpenCASCADE prints goes nowhere."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # they are for whoever asks; this ends with it
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # which ends the process
    resource.setrlimit(resource.RLIMIT_AS, (mebibytes * 2**20, mebibytes * 2**20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    replies = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return replies


def main(seconds: float, mebibytes: int) -> None:
    """Serve what `zerofit.cad.kernel.answers` knows."""
    replies = limit(mebibytes)
    try:
        from zerofit.cad.kernel.answers import answer
    except ImportError as error:  # of a library of the system
        _say(replies, Reply(invalid=str(error)))
        return
    serve(answer, seconds, replies)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
