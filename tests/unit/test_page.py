"""Pages without a browser: what they say, of whole runs and of broken ones, and that nothing gets out of its place."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import page_examples
import plan_examples
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from zerofit import cli
from zerofit.config.errors import UserError
from zerofit.config.load import load_recipe
from zerofit.launch import pages
from zerofit.plan.build import make_plan
from zerofit.plan.files import write_spec
from zerofit.plan.spec import RunSpec
from zerofit.report.page import write_page
from zerofit.report.pages.charts import POINTS, thin
from zerofit.report.pages.configuration import as_yaml
from zerofit.report.pages.configuration import given as given_recipe
from zerofit.report.pages.curves import running_mean

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


def planned(directory: Path, **sections: Any) -> RunSpec:
    """A run directory with its run.json."""
    spec = make_plan(
        plan_examples.recipe(**{"name": "try", **sections}),
        facts=plan_examples.FACTS,
        hardware=plan_examples.CPU,
        ranks=2,
        run_dir=directory,
    )
    write_spec(spec)
    return spec


def metrics(directory: Path, lines: list[dict[str, Any]]) -> None:
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def page(directory: Path) -> str:
    return write_page(directory).read_text()


def words(text: str) -> str:
    """What is read of it, without scripts and styles."""
    text = re.sub(r"<(script|style).*?</\1>", "", text, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


def test_a_finished_run_says_what_came_of_it(tmp_path: Path) -> None:
    planned(tmp_path)
    metrics(tmp_path, [{"step": s, "epoch": s / 22, "loss": 2.0 / s, "lr": 1e-3} for s in range(1, 9)])
    test = {"split": "test", "top1": 0.9, "top5": 1.0, "loss": 0.31, "samples": 360}
    result = {"exit": "finished", "test": test, "steps": 44, "samples_s": 612.0, "peak_alloc_gib": 0.7, "wall_s": 65}
    (tmp_path / "result.json").write_text(json.dumps(result))
    said = words(page(tmp_path))
    for expected in (
        "try",
        "finished",
        "90.00 %",
        "324 of 360",
        "0.3100 nats",
        "612 samples/s",
        "0:01:05",
        "Reproduce",
    ):
        assert expected in said
    assert "zerofit train try.yaml --nproc 2" in said


def test_a_run_that_crashed_says_which_rank_and_why(tmp_path: Path) -> None:
    planned(tmp_path)
    metrics(tmp_path, [{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')  # torn
    (tmp_path / "logs").mkdir()
    for rank, time in ((0, 20.0), (1, 10.0)):
        error = {
            "rank": rank,
            "time": time,
            "user": False,
            "message": f"RuntimeError: boom {rank}",
            "traceback": "Trace",
        }
        (tmp_path / f"logs/rank-{rank}.error.json").write_text(json.dumps(error))
    said = words(page(tmp_path))
    assert "The run failed after step 2 of 44, on rank 1: RuntimeError: boom 1" in said
    assert "zerofit train --resume" in said


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"exit": "interrupted", "signal": 15}, "The run was interrupted by signal 15 after step 1 of 44."),
        (None, "There is no result: the run is still going on, or was ended from outside, after step 1 of 44."),
        ({"exit": "failed", "error": "E: x", "rank": 3}, "The run failed after step 1 of 44, on rank 3: E: x"),
    ],
)
def test_a_run_without_an_end_says_so(tmp_path: Path, result: dict[str, Any] | None, said: str) -> None:
    planned(tmp_path)
    metrics(tmp_path, [{"step": 1, "loss": 2.0}])
    if result is not None:
        (tmp_path / "result.json").write_text(json.dumps(result))
    assert said in words(page(tmp_path))


def test_a_run_that_has_only_its_plan_has_a_page(tmp_path: Path) -> None:
    planned(tmp_path)
    text = page(tmp_path)
    assert "before its first step" in words(text)
    assert 'id="plotly"' not in text, "no chart, no bundle"
    assert len(text) < 200_000


def test_nothing_that_a_run_says_becomes_markup(tmp_path: Path) -> None:
    planned(tmp_path, description=EVIL)
    metrics(tmp_path, [{"step": 1, "loss": 1.0, EVIL: 3.0}])
    (tmp_path / "result.json").write_text(json.dumps({"exit": "failed", "error": EVIL, "rank": EVIL}))
    body = {"classes": [EVIL, "b"], "confusion": [[1, 2], [0, 3]], "samples": []}
    (tmp_path / "test.json").write_text(json.dumps(body))
    text = page(tmp_path)
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert text.count("</script>") == text.count("<script") == 3
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "'unsafe-inline'" not in policy[1].partition("style-src")[0]


def test_pictures_come_from_the_run_directory_alone(tmp_path: Path) -> None:
    run = tmp_path / "run"
    planned(run)
    png = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
    )
    (tmp_path / "outside.png").write_bytes(png)
    (run / "inside.png").write_bytes(png)
    (run / "other.png").write_text("no picture")
    (run / "link.png").symlink_to(tmp_path / "outside.png")
    names = ["inside.png", "../outside.png", str(tmp_path / "outside.png"), "link.png", "other.png", "missing.png"]
    samples = [{"image": name, "label": 0, "predicted": 0, "top": [[0, 1.0]]} for name in names]
    (run / "test.json").write_text(json.dumps({"classes": ["a"], "samples": samples}))
    assert page(run).count("data:image/png;base64,") == 1


def test_the_recipe_of_the_page_is_the_one_that_ran(tmp_path: Path) -> None:
    spec = planned(tmp_path, strategy="zero2", data={"source": "digits", "augment": {"crop_scale": [0.7, 1.0]}})
    file = tmp_path / "again.yaml"
    file.write_text(as_yaml(given_recipe(spec)))
    assert yaml.safe_load(file.read_text())["data"]["augment"] == {"crop_scale": [0.7, 1.0]}
    assert load_recipe(str(file)) == spec.recipe


def test_a_thousand_classes_and_a_hundred_thousand_steps_stay_small(tmp_path: Path) -> None:
    planned(tmp_path)
    page_examples.long_run(tmp_path, steps=20_000)  # a curve has as many points as of 100,000
    text = page(tmp_path)
    assert len(text) < 4_000_000
    assert "The 30 of 1,000 classes that are confused most." in words(text)
    charts = json.loads(re.search(r'id="charts">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    raw = charts["loss"]["data"][0]
    assert len(raw["x"]) <= POINTS
    assert max(raw["y"]) > 40, "the one peak is kept"
    assert len(charts["confusion"]["data"][0]["z"]) == 30


def test_the_bundle_is_there_once_and_is_what_its_hash_says(tmp_path: Path) -> None:
    (tmp_path / "compare.json").write_text(json.dumps(page_examples.comparison()))
    text = page(tmp_path)
    packed = re.findall(r'id="plotly">([^<]+)<', text)
    assert len(packed) == 1
    digest = base64.b64encode(hashlib.sha256(gzip.decompress(base64.b64decode(packed[0]))).digest()).decode()
    assert f"'sha256-{digest}'" in text


def test_a_comparison_says_what_ran_and_what_did_not(tmp_path: Path) -> None:
    (tmp_path / "compare.json").write_text(json.dumps(page_examples.comparison()))
    said = words(page(tmp_path))
    for expected in ("7 of 9 ran", "zero2 x1: CUDA out of memory at step 1", "Verdict", "2.0e-7", "79.2 GiB"):
        assert expected in said


@pytest.mark.parametrize("make", [page_examples.trace, page_examples.two_traces])
def test_a_trace_has_a_page_of_its_own_and_in_its_run(tmp_path: Path, make: Callable[[], dict[str, Any]]) -> None:
    (tmp_path / "trace.json").write_text(json.dumps(make()))
    assert "What each rank did" in words(page(tmp_path))
    named = tmp_path / "other.json"
    named.write_text(json.dumps(make()))
    assert write_page(named) == tmp_path / "other.html"


def test_a_traced_run_has_a_timeline(tmp_path: Path) -> None:
    planned(tmp_path)
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile/trace.json").write_text(json.dumps(page_examples.trace()))
    assert "ranks 0 and 6 compute 35 % longer" in words(page(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (None, "", "has nothing to show: none of run.json, job.json"),
        ("run.json", "{", "is damaged: not JSON"),
        ("compare.json", '{"format": 1}', "is not what this version of zerofit writes: recipe: Field required"),
        ("trace.json", "[]", "is not what this version of zerofit writes"),
        ("trace.json", json.dumps(page_examples.trace() | {"strip": [{"rank": 0}]}), "strip.0.spans: Field required"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_line(tmp_path: Path, name: str | None, content: str, said: str) -> None:
    if name is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=re.escape(said)):
        write_page(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == ({name} if name else set())


def test_a_missing_path_and_another_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        write_page(tmp_path / "runs")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match="is not shown"):
        write_page(tmp_path / "notes.txt")


def test_a_test_of_other_classes_is_damaged(tmp_path: Path) -> None:
    planned(tmp_path)
    sample = {"image": "a.png", "label": 0, "predicted": 7, "top": [[7, 1.0]]}
    (tmp_path / "test.json").write_text(json.dumps({"classes": ["a"], "samples": [sample]}))
    with pytest.raises(UserError, match="a.png has a class that is none of the 1"):
        write_page(tmp_path)


def test_a_job_shows_its_stages_as_far_as_they_are(tmp_path: Path) -> None:
    stages = [
        {"directory": name, "recipe": plan_examples.recipe().model_dump(mode="json")} for name in ("01-a", "02-b")
    ]
    (tmp_path / "job.json").write_text(json.dumps({"name": "two", "stages": stages}))
    planned(tmp_path / "01-a")
    metrics(tmp_path / "01-a", [{"step": 1, "loss": 2.0}])
    (tmp_path / "01-a/result.json").write_text(json.dumps({"exit": "finished", "test": {"top1": 0.5}, "steps": 1}))
    write_page(tmp_path / "01-a")
    text = page(tmp_path)
    assert "1 of 2 finished" in words(text)
    assert "02-b not begun" in words(text)
    assert 'href="01-a/report.html"' in text


def test_the_command_writes_it_where_it_is_told(tmp_path: Path) -> None:
    planned(tmp_path / "run")
    done = CliRunner().invoke(cli.app, ["report", str(tmp_path / "run"), "--output", str(tmp_path / "here.html")])
    assert (done.exit_code, done.stdout.strip()) == (0, str(tmp_path / "here.html"))
    assert (tmp_path / "here.html").stat().st_size > 10_000
    assert not (tmp_path / "run/report.html").exists()
    assert CliRunner().invoke(cli.app, ["report", str(tmp_path / "none")]).exit_code == 2


def test_a_page_that_cannot_be_made_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pages.make(tmp_path) is None
    assert capsys.readouterr().err.startswith(f"no page of {tmp_path}: UserError: {tmp_path} has nothing to show")
    planned(tmp_path)
    assert pages.make(tmp_path) == tmp_path / "report.html"


def test_making_a_page_imports_no_tensor_library() -> None:
    code = (
        "import sys, zerofit.report.page; print([name for name in ('torch', 'plotly', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@given(st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=1, max_size=400), st.integers(4, 50))
def test_a_thinned_curve_keeps_its_ends_of_height_and_its_order(values: list[float], most: int) -> None:
    x, y = np.arange(len(values), dtype=float), np.array(values)
    kept_x, kept_y = thin(x, y, most)
    assert len(kept_x) <= max(most, len(values) if len(values) <= most else 0)
    assert (np.diff(kept_x) > 0).all()
    assert np.array_equal(kept_y, y[kept_x.astype(int)], equal_nan=True)
    if np.isfinite(y).any():
        assert np.nanmin(kept_y) == np.nanmin(y)
        assert np.nanmax(kept_y) == np.nanmax(y)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60), st.integers(1, 70))
def test_a_running_mean_is_the_mean_of_its_neighbours(values: list[float], width: int) -> None:
    found = running_mean(np.array(values), width)
    for i, one in enumerate(found):
        near = values[max(0, i - width // 2) : i + width - width // 2]
        assert one == pytest.approx(sum(near) / len(near), abs=1e-6)
