"""Where a process stands in the world, under every launcher."""

from __future__ import annotations

import pytest

from zerofit.config.errors import UserError
from zerofit.launch.environment import World, first_host, outer_world, prepare, tasks_per_node
from zerofit.plan.spec import Hardware

MASTER = {"MASTER_ADDR": "h1", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_JOB_ID": "10042",
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "5",
    "SLURM_PROCID": "4",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "2",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
    "SLURM_STEP_NODELIST": "gpu[007-009]",
}


def hardware(device: str) -> Hardware:
    return Hardware.model_validate(
        {"device": device, "count": 2, "name": "x", "memory_gib": 1.0, "capability": None, "cpus": 16}
    )


@pytest.mark.parametrize(
    ("environ", "world"),
    [
        ({}, None),
        ({"RANK": "1"}, None),  # a stray variable makes no world
        (
            {"SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "8"},
            None,
        ),  # the batch script itself, outside srun
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}, None),  # an interactive step inside an allocation of five tasks
        (
            {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", **MASTER},
            World(5, 8, 1, 4, "h1", 29500),
        ),
        (
            {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_SIZE": "2", **MASTER},
            World(1, 2, 1, 2, "h1", 29500),
        ),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", **MASTER}, World(1, 2, 1, 2, "h1", 29500)),
        ({"RANK": "1", "WORLD_SIZE": "2", **MASTER}, World(1, 2, 0, 1, "h1", 29500)),  # Kubernetes: one rank a host
        (SLURM, World(4, 5, 0, 1, "gpu007", 20042)),
        ({**SLURM, "SLURM_STEP_ID": "3", "MASTER_ADDR": "a"}, World(4, 5, 0, 1, "a", 20045)),
    ],
)
def test_outer_world(environ: dict[str, str], world: World | None) -> None:
    assert outer_world(environ) == world
    if world is not None:  # our own ranks read what our launcher writes
        assert outer_world(world.variables()) == world


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR is missing"),
        ({"RANK": "zero", "WORLD_SIZE": "2", **MASTER}, "'zero'"),
        ({"RANK": "2", "WORLD_SIZE": "2", **MASTER}, "rank=2"),
        ({k: v for k, v in SLURM.items() if k != "SLURM_LOCALID"}, "SLURM_LOCALID is missing"),
    ],
)
def test_a_broken_world_is_the_users_error(environ: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        outer_world(environ)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("n[1-2]", "n1"),
        ("gpu[003-005,9]-ib,b1", "gpu003-ib"),
        ("rack[2,4]n[08-11]", "rack2n08"),
    ],
)
def test_first_host(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_tasks_per_node() -> None:
    assert tasks_per_node("4(x2),3") == [4, 4, 3]
    assert tasks_per_node("8") == [8]


def test_prepare_on_cpu_hides_gpus_and_drops_accelerates_own_configuration() -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "0", "ACCELERATE_MIXED_PRECISION": "bf16", "FSDP_VERSION": "1", "PATH": "/bin"}
    prepare(environ, hardware("cpu"), local_size=4)
    cache = environ.pop("TORCH_EXTENSIONS_DIR")
    others = {"OMP_NUM_THREADS": "4", "THP_MEM_ALLOC_ENABLE": "1", "KINETO_LOG_LEVEL": "99"}
    assert environ == {"CUDA_VISIBLE_DEVICES": "", "PATH": "/bin", "DS_ACCELERATOR": "cpu", **others}
    again = {"TORCH_EXTENSIONS_DIR": cache}
    prepare(again, hardware("cpu"), local_size=4)
    assert again["TORCH_EXTENSIONS_DIR"] == cache


@pytest.mark.parametrize(("said", "kept"), [("9.0a", None), ("8.0;9.0a", None), ("8.0 9.0+PTX", "8.0 9.0+PTX")])
def test_prepare_takes_out_architectures_that_deepspeed_cannot_read(said: str, kept: str | None) -> None:
    environ = {"TORCH_CUDA_ARCH_LIST": said}
    prepare(environ, hardware("cuda"), local_size=2)
    assert environ.get("TORCH_CUDA_ARCH_LIST") == kept


@pytest.mark.parametrize("devices", ["2,3", "GPU-8932f937,GPU-1f22a253", "MIG-3eb87630-93d5-b2b6-b8ff-9b359caf4ee2"])
def test_prepare_leaves_the_choice_of_gpus_alone(devices: str) -> None:
    environ = {"CUDA_VISIBLE_DEVICES": devices, "OMP_NUM_THREADS": "3"}
    prepare(environ, hardware("cuda"), local_size=2)
    assert (environ["CUDA_VISIBLE_DEVICES"], environ["OMP_NUM_THREADS"]) == (devices, "3")
    assert environ["DS_ACCELERATOR"] == "cuda"
