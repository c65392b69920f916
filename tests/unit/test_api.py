"""The Python API up to where processes start: the light import, the loaders, the model, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import zerofit
from zerofit.config.data import Augment
from zerofit.data.augment import Augmenter
from zerofit.data.images import open_split
from zerofit.data.order import permutation

LINES = """
import os, sys
before = dict(os.environ)
import zerofit
assert set(zerofit.__all__) <= set(dir(zerofit)) and issubclass(zerofit.UserError, Exception) and zerofit.__version__
print(sorted({"torch", "numpy", "transformers"} & set(sys.modules)))
zerofit.load_vit_model("vit-tiny", 3, image_size=8, patch_size=8, seed=1)
print("torch" in sys.modules, dict(os.environ) == before)
"""


@pytest.fixture(autouse=True)
def _cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ZEROFIT_DEVICE", "cpu")
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_importing_the_package_is_light_and_its_use_leaves_the_environment_alone() -> None:
    done = subprocess.run([sys.executable, "-c", LINES], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["[]", "True True"]


def test_loaders_yield_the_runs_images() -> None:
    train, test = zerofit.create_data_loaders(batch_size=50, limit=220, seed=3, image_size=12)
    assert isinstance(train, DataLoader)
    assert (len(train), len(test), train.classes) == (4, 8, tuple("0123456789"))
    shown = train.description
    images = open_split(shown.data, shown.facts, "train", 3)
    normalise = Augmenter.plain(mean=shown.data.mean, std=shown.data.std)
    for epoch in range(2):
        batches = list(train)
        assert [labels.dtype for _, labels in batches] == [torch.int64] * 4
        wanted = [images[item] for item in permutation(220, 3, epoch)[:200].tolist()]
        assert torch.cat([labels for _, labels in batches]).tolist() == [label for _, label in wanted]
        pixels = torch.cat([pixels for pixels, _ in batches])
        assert pixels.dtype == torch.float32
        assert pixels.shape == (200, 3, 12, 12)
        torch.testing.assert_close(pixels, normalise(torch.stack([image for image, _ in wanted])))
    labels = torch.cat([labels for _, labels in test])
    own = open_split(shown.data, shown.facts, "test", 3)
    assert labels.tolist() == [own[item][1] for item in range(360)]  # each once, none to fill a batch


def test_training_images_are_augmented_and_labels_stay_whole() -> None:
    plain, _ = zerofit.create_data_loaders(batch_size=8, limit=8)
    flipped, _ = zerofit.create_data_loaders(batch_size=8, limit=8, augment={"flip": 1.0, "mixup": 0.5})
    same, _ = zerofit.create_data_loaders(batch_size=8, limit=8, augment=Augment(flip=1.0, mixup=0.5))
    (pixels, labels), (mirrored, still) = next(iter(plain)), next(iter(flipped))
    assert torch.equal(mirrored, pixels.flip(-1))
    assert torch.equal(still, labels)
    assert same.description == flipped.description


def test_the_model_takes_the_recipes_fields() -> None:
    model = zerofit.load_vit_model("qwen3-tiny", 7, image_size=8, patch_size=4, pool="last")
    assert {(value.dtype, value.device.type) for value in model.parameters()} == {(torch.float32, "cpu")}
    logits = model(torch.zeros(2, 3, 8, 8))
    assert logits.shape == (2, 7)
    frugal = zerofit.load_vit_model("qwen3-tiny", 7, True, 8, patch_size=4, pool="last")
    assert torch.equal(frugal(torch.zeros(2, 3, 8, 8)), logits)
    other = zerofit.load_vit_model("qwen3-tiny", 7, image_size=8, patch_size=4, pool="last", seed=1)
    assert not torch.equal(other.head.weight, model.head.weight)


def test_a_pretrained_model_brings_its_image_size(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTModel

    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    saved = ViTModel(ViTConfig(image_size=16, patch_size=8, **shape), add_pooling_layer=False)
    saved.save_pretrained(tmp_path / "vit")
    model = zerofit.load_vit_model(str(tmp_path / "vit"), 2)
    assert (model.patches, model.config.image_size) == (4, 16)
    assert torch.equal(model.backbone.embeddings.cls_token, saved.embeddings.cls_token)


def refused(words: str, call: Any, *arguments: Any, **options: Any) -> None:
    with pytest.raises(zerofit.UserError) as caught:
        call(*arguments, **options)
    assert len(str(caught.value).splitlines()) == 1
    assert words in str(caught.value)


def test_wrong_arguments_are_quoted_in_one_line() -> None:
    loaders, model = zerofit.create_data_loaders, zerofit.load_vit_model
    refused("create_data_loaders(source='digts'): 'digts' is not one of digits", loaders, "digts")
    refused("create_data_loaders(source='folder'): data: folder needs a path", loaders, "folder")
    refused("create_data_loaders(batch_size=0): must be at least 1", loaders, batch_size=0)
    refused("create_data_loaders(limit=0): must be at least 1", loaders, limit=0)
    refused("create_data_loaders(batch_size=9): there are 5 training samples", loaders, batch_size=9, limit=5)
    refused("data.augment.flp: unknown field; did you mean flip?", loaders, augment={"flp": 1})
    refused("load_vit_model(patchsize=4): unknown field; did you mean patch_size?", model, "vit-tiny", 2, patchsize=4)
    refused("load_vit_model(num_labels=0): must be at least 1", model, "vit-tiny", 0)
    refused("load_vit_model(num_labels=None)", model, "vit-tiny", None)
    refused("did you mean vit-base?", model, "vit-bse", 10)
    refused("model_name is a Linear", model, torch.nn.Linear(1, 1), 10)


def test_what_cannot_be_trained_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    run, (train, test) = zerofit.run_training_experiment, zerofit.create_data_loaders(batch_size=16)
    other = zerofit.create_data_loaders(batch_size=16, limit=100)[1]
    plain = DataLoader(TensorDataset(torch.zeros(4)), batch_size=2)
    refused("create_data_loaders('folder', path='...', batch_size=2)", run, "ddp", "vit-tiny", plain, test)
    refused("test_loader is a builtins.list", run, "ddp", "vit-tiny", train, [1, 2])
    refused("train_loader is missing: write train_loader, test_loader =", run, "ddp", "vit-tiny")
    refused("train_loader is the loader of the test images", run, "ddp", "vit-tiny", test, train)
    refused("test_loader is the loader of the train images", run, "ddp", "vit-tiny", train, train)
    refused("different data (limit None and 100)", run, "ddp", "vit-tiny", train, other)
    method = "run_training_experiment(method='deepspeed'): strategy.name: 'deepspeed' is not one of auto, single, ddp"
    refused(method, run, "deepspeed", "vit-tiny", train, test)
    refused("(num_epochs=-1): must be above 0", run, "ddp", "vit-tiny", train, test, num_epochs=-1)
    refused("(world_size=0): must be", run, "ddp", "vit-tiny", train, test, 0)
    refused("strategy single runs on 1 rank, not 2", run, "single", "vit-tiny", train, test)
    refused("give it as create_data_loaders(..., seed=...)", run, "ddp", "vit-tiny", train, test, **{"train.seed": 1})
    rates = {"learning_rate": 1.0, "optimizer.blr": 1.0}
    refused("optimizer: needs exactly one of lr and blr", run, "ddp", "vit-tiny", train, test, **rates)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    refused("start it without a launcher", run, "ddp", "vit-tiny", train, test)
    assert not os.listdir()
