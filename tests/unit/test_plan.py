from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from plan_examples import CPU, FACTS, gpus, recipe

from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.plan.build import make_plan
from zerofit.plan.files import read_spec, write_spec
from zerofit.plan.precision import resolve_precision
from zerofit.plan.spec import Hardware, RunSpec
from zerofit.plan.versions import git_revision, versions

OLD_GPU = gpus(1, capability=(7, 5))


def plan(said: Recipe, hardware: Hardware = CPU, ranks: int = 1, run_dir: Path = Path("runs/one")) -> RunSpec:
    return make_plan(said, facts=FACTS, hardware=hardware, ranks=ranks, run_dir=run_dir)


def test_planning_imports_no_tensor_library() -> None:
    code = (
        "import sys, zerofit.plan.build, zerofit.plan.files, zerofit.plan.hardware\n"
        "print([name for name in ('torch', 'transformers', 'numpy', 'deepspeed') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_whole_plan_of_a_run() -> None:
    said = recipe(
        strategy="zero2", optimizer={"lr": None, "blr": 1e-3, "warmup": {"epochs": 1}}, checkpoint={"keep": 3}
    )
    spec = plan(said, gpus(2), ranks=2)
    assert spec.recipe is said
    assert spec.run_dir == Path.cwd() / "runs/one"
    assert spec.lr == 1e-3 * 64 / 256
    assert spec.precision == "bf16"
    assert spec.shape is not None
    assert spec.shape["hidden_size"] == 192
    assert spec.batches.accumulation == 2
    assert spec.deepspeed is not None
    assert spec.deepspeed["train_batch_size"] == 64
    assert spec.deepspeed["bf16"]["enabled"]
    assert spec.versions["torch"]
    alone = plan(recipe(strategy="single"))
    assert (alone.precision, alone.deepspeed, alone.lr) == ("fp32", None, 1e-3)


@pytest.mark.parametrize(
    ("strategy", "hardware", "ranks", "said"),
    [
        ("single", CPU, 2, "strategy single runs on 1 rank, not 2: use ddp"),
        ("ddp", gpus(2), 4, "4 ranks need as many GPUs, and this process sees 2 GPUs: use 2 or fewer"),
        ("zeropp", CPU, 2, "strategy zeropp needs NVIDIA GPUs: .*CUDA kernels alone; use zero3"),
        ({"name": "ddp", "precision": "fp16"}, CPU, 1, "fp16 needs a GPU"),
        ({"name": "ddp", "precision": "bf16"}, OLD_GPU, 1, r"needs compute capability 8\.0, and Some GPU has 7\.5"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(strategy: Any, hardware: Hardware, ranks: int, said: str) -> None:
    with pytest.raises(UserError, match=f"^(?!.*\n).*{said}"):
        plan(recipe(strategy=strategy), hardware, ranks)


def test_zero_needs_a_deepspeed_that_it_was_made_for(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    for version, fits in (("0.19.2", False), ("0.19.3", True), ("0.19.10+cu130", True), ("0.20.0", False)):
        monkeypatch.setattr(
            importlib.metadata, "version", lambda name, v=version: v if name == "deepspeed" else real(name)
        )
        if fits:
            assert plan(recipe(strategy="zero1")).versions["deepspeed"] == version
        else:
            with pytest.raises(UserError, match=rf"DeepSpeed {version}, .*pip install 'deepspeed>=0.19.3,<0.20'"):
                plan(recipe(strategy="zero1"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="not installed: pip install 'deepspeed>=0.19.3,<0.20'"):
        plan(recipe(strategy="zero1"))
    plan(recipe(strategy="ddp"))


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else found(name))
    with pytest.raises(UserError, match=r"^track\.to: wandb is not installed: pip install 'zerofit\[wandb\]', or"):
        plan(recipe(track={"to": ["wandb"]}))


def test_a_directory_of_a_trackers_name_is_not_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    with pytest.raises(UserError, match=r"^track\.to: mlflow is not installed: pip install 'zerofit\[mlflow\]', or"):
        plan(recipe(track={"to": ["mlflow"]}))


@pytest.mark.parametrize(
    ("asked", "hardware", "got"),
    [
        ("auto", CPU, "fp32"),
        ("auto", OLD_GPU, "fp16"),
        ("auto", gpus(1, capability=(8, 0)), "bf16"),
        ("bf16", CPU, "bf16"),
        ("fp16", gpus(1), "fp16"),
        ("fp32", OLD_GPU, "fp32"),
    ],
)
def test_precision(asked: Any, hardware: Hardware, got: str) -> None:
    assert resolve_precision(asked, hardware) == got


@pytest.mark.parametrize(
    "said",
    [
        recipe(),
        recipe(
            strategy={"name": "zero3", "offload": {"optimizer": "nvme", "params": "nvme", "nvme_path": "/nvme"}},
            model={"kind": "patch_lm", "shape": "qwen3-tiny", "trainable": [{"pattern": ".", "lr_scale": 0.1}]},
            data={"augment": {"crop_scale": [0.5, 1.0], "randaugment": [2, 9]}},
        ),
        recipe(model={"shape": None, "pretrained": "models/vit"}, strategy={"name": "zero2", "deepspeed": {"aio": {}}}),
    ],
)
def test_run_json_gives_back_the_very_same_spec(tmp_path: Path, said: Recipe) -> None:
    spec = plan(said, gpus(1), run_dir=tmp_path / "run")
    path = write_spec(spec)
    assert path == tmp_path / "run" / "run.json"
    assert read_spec(tmp_path / "run") == spec
    settings = tmp_path / "run" / "deepspeed.json"
    assert settings.exists() == (spec.deepspeed is not None)
    if spec.deepspeed is not None:
        assert json.loads(settings.read_text()) == spec.deepspeed
    assert sorted(entry.name for entry in (tmp_path / "run").iterdir()) == sorted(
        ["run.json", *(["deepspeed.json"] if spec.deepspeed else [])]
    )


def test_a_moved_run_directory_is_read_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_spec(plan(recipe(), run_dir=tmp_path / "old"))
    (tmp_path / "old").rename(tmp_path / "new")
    monkeypatch.chdir(tmp_path)
    assert read_spec(Path("new")).run_dir == tmp_path / "new"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "is no run directory: cannot read its run.json: No such file"),
        ("{", "run.json is damaged: not JSON"),
        ("[]", "run.json is not a run of this version of zerofit"),
        ('{"version": 2}', "run.json is not a run of this version of zerofit: version: "),
    ],
)
def test_a_run_json_that_is_none_is_one_clear_error(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=f"^(?!.*\n).*{said}"):
        read_spec(tmp_path)


def test_versions_name_what_is_installed() -> None:
    found = versions()
    assert found["python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert {"torch", "transformers", "deepspeed"} <= set(found)
    assert found["torch"] == importlib.metadata.version("torch")


def test_the_revision_tells_changed_files_and_is_none_outside_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_revision(tmp_path) is None

    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    assert git_revision(tmp_path) is None
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "first")
    revision = git_revision(tmp_path)
    assert revision is not None
    assert len(revision) == 40
    (tmp_path / "untracked").write_text("a run directory, say")
    assert git_revision(tmp_path) == revision
    (tmp_path / "file").write_text("two")
    assert git_revision(tmp_path) == f"{revision}+changes"
    monkeypatch.setenv("PATH", "")
    assert git_revision(tmp_path) is None
