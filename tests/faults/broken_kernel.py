"""A process of the CAD kernel that really crashes, hangs and hoards: what it does, the number of extrusions says.

python broken_kernel.py SECONDS MEBIBYTES
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from zerofit.cad.kernel.answers import answer
from zerofit.cad.kernel.wire import Reply, Request
from zerofit.cad.kernel.worker import limit, serve


def broken(request: Request) -> Reply:
    match len(request.shapes[0].extrusions):
        case 10:
            ctypes.string_at(0)
        case 11:
            os.abort()
        case 12:
            os.kill(os.getpid(), signal.SIGKILL)
        case 13:
            while True:
                pass
        case 14:
            signal.pause()
        case 15:
            bytearray(2**33)
        case 16:
            raise LookupError("a mistake in the program")
    return answer(request)


if __name__ == "__main__":
    replies = limit(int(sys.argv[2]))
    serve(broken, float(sys.argv[1]), replies)
