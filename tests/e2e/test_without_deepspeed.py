"""Where DeepSpeed cannot be imported: ddp and fsdp2 work, ZeRO says how to get it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runs import environment, refused, result, tiny, zerofit

# A directory first on the path, whose deepspeed cannot be imported nor found.
HIDE = """\
import sys


class Hidden:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] == "deepspeed":
            raise ModuleNotFoundError("No module named 'deepspeed'", name="deepspeed")
        return None


sys.meta_path.insert(0, Hidden)
"""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(HIDE)
    return environment(PYTHONPATH=str(site))


@pytest.mark.parametrize("strategy", ["single", "ddp", "fsdp2"])
def test_torchs_own_strategies_work(tmp_path: Path, env: dict[str, str], strategy: str) -> None:
    ranks = "1" if strategy == "single" else "2"
    wanted = (f"strategy={strategy}", "--nproc", ranks)
    done = zerofit("train", str(tiny(tmp_path)), *wanted, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    assert result(tmp_path / "runs" / "tiny")["exit"] == "finished"


def test_zero_says_what_to_install(tmp_path: Path, env: dict[str, str]) -> None:
    done = zerofit("train", str(tiny(tmp_path)), "strategy=zero2", cwd=tmp_path, env=env)
    refused(done, "zero2", "pip install", "deepspeed")
