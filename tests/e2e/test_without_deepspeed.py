"""Where DeepSpeed cannot be imported: ddp and fsdp2 work, ZeRO says how to get it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runs import environment, refused, result, tiny, zerofit_process

# A sitecustomize in front of all finders: no module and no distribution of that name is there.
HIDE = """\
import sys


class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] == "deepspeed" else self.finder.find_spec(name, path, target)

    def find_distributions(self, context):
        find = getattr(self.finder, "find_distributions", None)
        return () if find is None or context.name == "deepspeed" else find(context)

    def invalidate_caches(self):
        pass


sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
"""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(HIDE)
    return environment(PYTHONPATH=str(site))


@pytest.mark.parametrize(
    "strategy", [*(pytest.param(name, marks=pytest.mark.thorough) for name in ("single", "ddp")), "fsdp2"]
)
def test_torchs_own_strategies_work(tmp_path: Path, env: dict[str, str], strategy: str) -> None:
    ranks = "1" if strategy == "single" else "2"
    wanted = (f"strategy={strategy}", "--nproc", ranks)
    done = zerofit_process("train", str(tiny(tmp_path)), *wanted, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    assert result(tmp_path / "runs" / "tiny")["exit"] == "finished"


def test_zero_says_what_to_install(tmp_path: Path, env: dict[str, str]) -> None:
    done = zerofit_process("train", str(tiny(tmp_path)), "strategy=zero2", cwd=tmp_path, env=env)
    refused(done, "zero2", "pip install", "deepspeed")
