"""Bad input: one line, exit code 2, no traceback, nothing half-written."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runs import TINY, environment, refused, result, steps, tiny, zerofit
from PIL import Image
from shrink import cifar100, levels, tarball

from zerofit.checkpoint.manifest import verify


def folder(root: Path, classes: int = 2, images: int = 8) -> Path:
    """An image folder with train and test splits."""
    for split in ("train", "test"):
        for label in range(classes):
            directory = root / split / f"class{label}"
            directory.mkdir(parents=True)
            for index in range(images):
                colour = (40 * label, 10 * index, 90)
                Image.new("RGB", (8, 8), colour).save(directory / f"{index}.png")
    return root


def on_folder(root: Path, *more: str) -> tuple[str, ...]:
    return ("data.source=folder", f"data.path={root}", *more)


@pytest.mark.parametrize(
    ("text", "overrides", "words"),
    [
        (TINY.replace("max_steps", "max_stepz"), (), ("tiny.yaml:17", "train.max_stepz", "max_steps")),
        (TINY, ("train.micro_batch=four",), ("train.micro_batch", "four")),
        (TINY, ("train.global_batch=15",), ("global_batch", "15", "16")),
        (TINY, ("strategy=zero4",), ("zero4", "zero3")),
        (TINY, ("strategy=fsdp2+offload_optimizer",), ("fsdp2", "offload_all")),
        (
            TINY,
            ("strategy={name: zero3, compile: true, offload: {optimizer: nvme, params: nvme, nvme_path: /tmp}}",),
            ("zero3 reads weights from a drive", "offload to cpu"),
        ),
        (TINY, ("strategy=zeropp",), ("zeropp", "CUDA")),
        (TINY, ("strategy.precision=fp16",), ("fp16", "GPU", "fp32")),
        (TINY, ("data.classes=11",), ("11", "10")),
        (TINY, ("data.source=folder", "data.path=nowhere"), ("nowhere",)),
        (TINY, ("strategy=zero2", "strategy.deepspeed={train_batch_size: 99}"), ("train_batch_size", "99", "16")),
        (TINY.replace("  lr: 1e-3", "  lr: 1e-3\n  blr: 1e-3"), (), ("lr", "blr")),
        (TINY, ("model.trainable=[{pattern: backbone}]",), ("head", "trainable")),
    ],
)
def test_one_line_names_what_is_wrong(
    tmp_path: Path, text: str, overrides: tuple[str, ...], words: tuple[str, ...]
) -> None:
    recipe = tiny(tmp_path, text)
    refused(zerofit("train", recipe.name, *overrides, "--nproc", "2", cwd=tmp_path), *words)
    assert not list(tmp_path.glob("runs/*"))


def test_a_missing_recipe_is_named_with_the_nearest(tmp_path: Path) -> None:
    refused(zerofit("train", "digitz", cwd=tmp_path), "digitz", "digits")


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    root = folder(tmp_path / "images")
    (root / "train" / "empty").mkdir()
    refused(zerofit("train", str(tiny(tmp_path)), *on_folder(root), cwd=tmp_path), "empty")


def test_a_corrupt_image_is_named_or_skipped(tmp_path: Path) -> None:
    root = folder(tmp_path / "images", images=16)
    torn = root / "train" / "class1" / "3.png"
    torn.write_bytes(torn.read_bytes()[:40])
    recipe = str(tiny(tmp_path))
    done = zerofit("train", recipe, *on_folder(root, "data.workers=1", "run_dir=runs/fail"), cwd=tmp_path)
    refused(done, str(torn), "data.on_bad_item")
    done = zerofit("train", recipe, *on_folder(root, "data.on_bad_item=skip", "run_dir=runs/skip"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(steps(tmp_path / "runs" / "skip")) == 6


def on_cifar(path: Path) -> tuple[str, ...]:
    return ("data.source=cifar", f"data.path={path}", "model.image_size=32")


def test_a_truncated_archive_is_named(tmp_path: Path) -> None:
    archive = cifar100(tmp_path / "cifar-100-python.tar.gz")
    archive.write_bytes(archive.read_bytes()[:-1000])
    done = zerofit("train", str(tiny(tmp_path)), *on_cifar(archive), cwd=tmp_path)
    refused(done, str(archive), "cannot be read as a tar archive", "download it again")
    assert not list(tmp_path.glob("runs/*"))


def test_a_label_outside_the_classes_is_named(tmp_path: Path) -> None:
    labels = list(range(100))
    batch = {"data": levels(labels), "fine_labels": [*labels[:-1], 100], "coarse_labels": labels}
    names = {"fine_label_names": [str(label) for label in labels]}
    files = {"train": batch, "test": batch, "meta": names}
    archive = tarball(tmp_path / "cifar-100-python.tar.gz", "cifar-100-python", files)
    done = zerofit("train", str(tiny(tmp_path)), *on_cifar(archive), cwd=tmp_path)
    refused(done, f"{archive}/train", "label", "100 classes")
    assert not list(tmp_path.glob("runs/*"))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    explosive = ("optimizer.lr=1e37", "checkpoint.every_steps=1", "optimizer.schedule=constant", "train.max_steps=20")
    refused(zerofit("train", str(tiny(tmp_path)), *explosive, cwd=tmp_path), "step 2", "the last checkpoint is kept")
    run = tmp_path / "runs" / "tiny"
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-000001"]
    assert not verify(run / "checkpoints" / "step-000001")
    assert result(run)["exit"] == "failed"


@pytest.mark.parametrize("strategy", ["ddp", "zero3"])
def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, strategy: str) -> None:
    far = ("optimizer.name=sgd", "optimizer.lr=1e38", "optimizer.weight_decay=1e4")
    words = (f"strategy={strategy}", *far, "checkpoint.every_steps=1")
    done = zerofit("train", str(tiny(tmp_path)), *words, "--nproc", "2", cwd=tmp_path)
    refused(done, "step 1: weights are not finite", "optimizer.lr")
    assert not list((tmp_path / "runs" / "tiny" / "checkpoints").glob("step-*"))


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = zerofit("train", str(tiny(tmp_path)), "strategy=zero4", "--debug", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_more_ranks_than_gpus_are_refused(tmp_path: Path) -> None:
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text('#!/bin/sh\necho "0, GPU-1111, NVIDIA A100-SXM4-80GB, 81920, 8.0, Disabled"\n')
    smi.chmod(0o755)
    env = environment(PATH=f"{smi.parent}:/usr/bin:/bin")
    del env["ZEROFIT_DEVICE"]
    env.pop("CUDA_VISIBLE_DEVICES", None)
    refused(zerofit("train", str(tiny(tmp_path)), "--nproc", "2", cwd=tmp_path, env=env), "2", "1 GPU")
