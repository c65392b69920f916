"""Several ranks on one GPU: each is told that it is a host of its own, with this one GPU.

    python bench/one_gpu.py 4 train qwen3-8b-sft strategy.name=zero2 ...      # RANKS, and zerofit's words

NCCL refuses two ranks on one GPU of a host, not on one GPU of two (NCCL_HOSTID); they then speak over the loopback.
What ranks compute, exchange and allocate is what it is on as many GPUs. How long it takes is not: they take turns.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time


def environments(ranks: int) -> list[dict[str, str]]:
    """What torchrun would set on each host, and what NCCL needs besides."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": str(ranks), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    world |= {"NCCL_SOCKET_IFNAME": "lo", "NCCL_IB_DISABLE": "1", "NCCL_MNNVL_ENABLE": "0"}
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    each = [{"RANK": str(rank), "NCCL_HOSTID": f"host-{rank}"} for rank in range(ranks)]
    return [{**os.environ, **world, **one, "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": gpu} for one in each]


def main() -> int:
    """Run them; the first that fails ends the others."""
    ranks, words = int(sys.argv[1]), sys.argv[2:]
    command = [sys.executable, "-m", "zerofit", *words]
    running = [subprocess.Popen(command, env=environ) for environ in environments(ranks)]
    signal.signal(signal.SIGTERM, lambda *_: [one.terminate() for one in running])
    codes: list[int] = []
    while len(codes) < ranks and not any(codes):
        time.sleep(0.2)
        codes = [code for one in running if (code := one.poll()) is not None]
    if any(codes):
        time.sleep(5)  # the others have heard of it, and write what they know
        for one in running:
            one.kill()
            one.wait()
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    raise SystemExit(main())
