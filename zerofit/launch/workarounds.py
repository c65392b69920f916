"""What DeepSpeed does that would break a run, undone in one place. Each goes once DeepSpeed itself has mended it."""

from __future__ import annotations

import importlib
import logging
import os
import warnings
from typing import Any

from zerofit.config.errors import UserError
from zerofit.plan.build import INSTALL_DEEPSPEED


def without_shm_op() -> None:
    """On a CPU DeepSpeed compiles a shared-memory all-reduce at its first start; make it use gloo, without a compiler.

    The op serves tensor-parallel inference alone, yet every start builds or loads it, and on a GPU machine probes
    compilers to find that it has none. No setting turns it off (read in 0.19.8, `deepspeed/comm/torch.py`).
    """
    # Not `deepspeed.comm.torch`: that attribute is PyTorch itself, which deepspeed.comm imports under the same name.
    backend: Any = importlib.import_module("deepspeed.comm.torch")
    backend.build_shm_op = lambda: None


def without_nvml_index() -> None:
    """Where CUDA_VISIBLE_DEVICES names GPUs by UUID, make DeepSpeed ask PyTorch, not NVML, for free memory.

    To find NVML's index it reads each entry as an integer, and ZeRO-1/2 stop with a ValueError (read in 0.19.8,
    `deepspeed/accelerator/cuda_accelerator.py`). Without pynvml it takes PyTorch's figures.
    """
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if not all(name.strip().isdigit() for name in names):
        accelerator: Any = importlib.import_module("deepspeed.accelerator.cuda_accelerator")
        accelerator.pynvml = None


def quiet() -> None:
    """Leave out what libraries say to each other: deprecated calls that a user of ours can do nothing about.

    And what they say of us to others: TRL counts its users unless told not to.
    """
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"  # `rollout_func` may change: TRL is pinned below its next minor
    for module in ("torch.distributed", "accelerate", "deepspeed", "transformers"):
        for category in (FutureWarning, DeprecationWarning):
            warnings.filterwarnings("ignore", category=category, module=rf"{module}\b")
    # Of a [1, 1, C] parameter, as DINOv2's first token is: strides of dimensions of one element say nothing.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides", category=UserWarning)
    # Trainer accumulates itself and tells accelerate 1, whatever DeepSpeed's configuration says.
    accelerate = logging.getLogger("accelerate.accelerator")
    accelerate.addFilter(lambda record: "Gradient accumulation steps mismatch" not in record.getMessage())
    # On CPUs with bf16 instructions bitsandbytes looks for a kernel on the hub, for inference in a format of its own.
    bitsandbytes = logging.getLogger("bitsandbytes.backends.cpu.ops")
    bitsandbytes.addFilter(lambda record: "kernels-community" not in record.getMessage())
    # LARS and SGD under ZeRO are held to a plain loop by the tests.
    logging.getLogger("DeepSpeed").addFilter(lambda record: "untested optimizer" not in record.getMessage())


def apply() -> None:
    """All of them. Imports DeepSpeed; raises UserError where what is installed cannot be imported."""
    try:
        importlib.import_module("deepspeed")  # makes its accelerator, which must exist before it is changed
    except Exception as error:  # its imports probe compilers and drivers, and fail in many ways
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"DeepSpeed is installed, but importing it fails ({reason}): {INSTALL_DEEPSPEED}") from error
    without_shm_op()
    without_nvml_index()
