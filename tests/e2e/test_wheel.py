"""The wheel holds what an installed zerofit needs, and its command works."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from cli_runs import environment

ROOT = Path(__file__).parents[2]


def test_the_wheel_works_where_it_is_installed(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    # The build tools of this environment, offline: an isolated build would fetch them.
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, timeout=300, capture_output=True)
    (wheel,) = tmp_path.glob("zerofit-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    recipes = {path.name for path in (ROOT / "zerofit" / "recipes").glob("*.yaml")}
    assert {Path(name).name for name in names if name.endswith(".yaml")} == recipes
    assert "zerofit/py.typed" in names
    assert not [name for name in names if name.startswith("tests")]
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "-q", "--target", str(site), str(wheel)], check=True, timeout=300)
    done = subprocess.run(
        [sys.executable, "-c", "import zerofit.cli as c; print(c.__file__); c.main()", "recipes"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(site)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(site) in done.stdout
    assert "digits" in done.stdout
