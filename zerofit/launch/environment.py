"""Where a process stands in the world, and the environment variables from which libraries read it."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from zerofit.config.errors import UserError
from zerofit.launch import ops_cache
from zerofit.plan.spec import Hardware

PORTS = range(20000, 30000)  # below every usual ephemeral range, so that no outgoing connection holds one


@dataclass(frozen=True)
class World:
    """One rank's place, and where rank 0 listens."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str
    port: int

    def variables(self) -> dict[str, str]:
        """What torch (`env://`), accelerate and DeepSpeed (LOCAL_SIZE) read."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.size),
            "LOCAL_RANK": str(self.local_rank),
            "LOCAL_WORLD_SIZE": str(self.local_size),
            "LOCAL_SIZE": str(self.local_size),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }


def outer_world(environ: Mapping[str, str]) -> World | None:
    """The world that torchrun, deepspeed, accelerate or srun has made for this process; None without one of them.

    Raises UserError where their variables contradict one another.
    """
    try:
        if "RANK" in environ and "WORLD_SIZE" in environ:
            world = _torch_world(environ)
        elif "SLURM_STEP_ID" in environ and int(_slurm(environ, "STEP_NUM_TASKS", "NTASKS") or "1") > 1:
            world = _slurm_world(environ)
        else:
            return None
    except (KeyError, ValueError) as error:
        what = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise UserError(f"the outer launcher's environment variables make no world: {what}") from None
    if not (0 <= world.rank < world.size and 0 <= world.local_rank < world.local_size <= world.size):
        raise UserError(f"the outer launcher's environment variables contradict one another: {world}")
    return world


def _torch_world(environ: Mapping[str, str]) -> World:
    """The deepspeed launcher says LOCAL_SIZE; Kubernetes operators leave LOCAL_* out, with one rank a host."""
    beside = environ["WORLD_SIZE"] if "LOCAL_RANK" in environ else "1"
    return World(
        rank=int(environ["RANK"]),
        size=int(environ["WORLD_SIZE"]),
        local_rank=int(environ.get("LOCAL_RANK", "0")),
        local_size=int(environ.get("LOCAL_WORLD_SIZE") or environ.get("LOCAL_SIZE") or beside),
        address=environ["MASTER_ADDR"],
        port=int(environ["MASTER_PORT"]),
    )


def _slurm(environ: Mapping[str, str], *names: str) -> str | None:
    """The first of these SLURM_ variables that is set."""
    return next((environ[f"SLURM_{name}"] for name in names if f"SLURM_{name}" in environ), None)


def _slurm_world(environ: Mapping[str, str]) -> World:
    """srun's. MASTER_ADDR and MASTER_PORT, where set, win over the step's first host and a port from the job's id."""
    size = int(_slurm(environ, "STEP_NUM_TASKS", "NTASKS") or "1")
    tasks = tasks_per_node(_slurm(environ, "STEP_TASKS_PER_NODE", "TASKS_PER_NODE", "NTASKS_PER_NODE") or str(size))
    node = int(environ.get("SLURM_NODEID", "0"))
    identity = int(environ["SLURM_JOB_ID"]) + int(environ["SLURM_STEP_ID"])
    return World(
        rank=int(environ["SLURM_PROCID"]),
        size=size,
        local_rank=int(environ["SLURM_LOCALID"]),
        local_size=tasks[min(node, len(tasks) - 1)],  # NTASKS_PER_NODE is one number for all
        address=environ.get("MASTER_ADDR")
        or first_host(_slurm(environ, "STEP_NODELIST", "JOB_NODELIST") or "localhost"),
        port=int(environ.get("MASTER_PORT") or PORTS[identity % len(PORTS)]),
    )


def tasks_per_node(text: str) -> list[int]:
    """`4(x2),3` -> [4, 4, 3]."""
    counts: list[int] = []
    for tasks, repeats in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        counts += [int(tasks)] * int(repeats or 1)
    return counts


def first_host(nodes: str) -> str:
    """`gpu[003-005,9]-ib,b1` -> `gpu003-ib`."""
    first = re.match(r"(?:\[[^\]]*\]|[^,\[])+", nodes)
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first.group()) if first else nodes


def prepare(environ: MutableMapping[str, str], hardware: Hardware, local_size: int) -> None:
    """Set in `environ` what libraries read before, or when, they are imported.

    CUDA_VISIBLE_DEVICES stays as it is for GPUs (indices, UUIDs and MIG ids alike): a rank takes device LOCAL_RANK.
    """
    for name in [name for name in environ if name.startswith(("ACCELERATE_", "FSDP_"))]:
        del environ[name]  # `accelerate launch` speaks of its own configuration here; the recipe decides
    environ.setdefault("OMP_NUM_THREADS", str(max(1, hardware.cpus // local_size)))
    environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # large CPU tensors on huge pages: copies to new ones are faster
    if re.search(r"\d[a-z]", environ.get("TORCH_CUDA_ARCH_LIST", "")):
        del environ["TORCH_CUDA_ARCH_LIST"]  # DeepSpeed 0.19 cannot read 9.0a; without it, it asks the devices
    environ["TORCH_EXTENSIONS_DIR"] = str(ops_cache.directory(environ))
    environ["DS_ACCELERATOR"] = hardware.device
    if hardware.device == "cpu":
        environ["CUDA_VISIBLE_DEVICES"] = ""  # a GPU that the plan leaves out must not be found after all
        environ.setdefault("KINETO_LOG_LEVEL", "99")  # its only words there are that it starts and stops
