"""The environment of every test, set before anything imports torch; and which tests this machine can run."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import settings

HAS_GPU = shutil.which("nvidia-smi") is not None

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
if "PYTEST_XDIST_WORKER" not in os.environ:  # a worker inherits its parent's
    # What a developer has measured or kept must decide on no test.
    os.environ["ZEROFIT_CACHE"] = tempfile.mkdtemp(prefix="zerofit-tests-")
    atexit.register(shutil.rmtree, os.environ["ZEROFIT_CACHE"], ignore_errors=True)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # several test processes share few cores
if not HAS_GPU:
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

settings.register_profile("zerofit", deadline=None)  # the machine may be busy
settings.load_profile("zerofit")

pytest.register_assert_rewrite("commands")  # before anything imports it

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"
CAN_RUN = {
    "gpu": (HAS_GPU, "no CUDA device"),
    "slurm": (shutil.which("slurmctld") is not None, "no Slurm"),
    "browser": (
        shutil.which("chromium") is not None and importlib.util.find_spec("playwright") is not None,
        "no Chromium, or no playwright",
    ),
    "real": (REAL_DATA.is_dir(), "no real data"),
}


UNTIL = "ZEROFIT_TESTS_UNTIL"
"""Seconds since the epoch from which no thorough test begins: whoever sets it has so long, however slow the machine."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("thorough") is not None and time.time() > float(os.environ.get(UNTIL, "inf")):
        pytest.skip(f"{UNTIL} is over")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker, (possible, reason) in CAN_RUN.items():
            if not possible and item.get_closest_marker(marker) is not None:
                item.add_marker(pytest.mark.skip(reason=reason))
