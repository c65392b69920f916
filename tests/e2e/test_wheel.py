"""The wheel holds what an installed zerofit needs, and its command trains."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from cli_runs import environment, steps

ROOT = Path(__file__).parents[2]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


@pytest.mark.thorough
def test_the_wheel_works_where_it_is_installed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "zerofit", source / "zerofit", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    # The build tools of this environment, offline: an isolated build would fetch them.
    build = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path), str(source)]
    subprocess.run(build, check=True, timeout=300, capture_output=True)
    (wheel,) = tmp_path.glob("zerofit-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    recipes = {str(path.relative_to(ROOT)) for path in (ROOT / "zerofit" / "recipes").rglob("*.yaml")}
    assert {name for name in names if name.endswith(".yaml")} == recipes  # the presets are among them
    templates = {f"zerofit/recipes/templates/{name}.jinja" for name in ("chatml", "r1")}
    assert {"zerofit/py.typed", "zerofit/recipes/recipe.schema.json", *templates} <= set(names)
    assert not [name for name in names if name.startswith("tests")]
    site = tmp_path / "site"
    subprocess.run([*PIP, "install", "--no-deps", "-q", "--target", str(site), str(wheel)], check=True, timeout=300)
    code = "import zerofit.cli as cli; print(cli.__file__, flush=True); cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "digits", "train.max_steps=2", "optimizer.warmup={steps: 1}"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(site)),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert str(site) in done.stdout
    assert len(steps(tmp_path / "runs" / "digits")) == 2
    assert (tmp_path / "runs" / "digits" / "report.html").exists()
