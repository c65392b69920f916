"""Every layout of files that a source reads, and what it says about broken ones."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from zerofit.config.data import Data
from zerofit.config.errors import UserError
from zerofit.data.images import SOURCES, describe, open_for_evaluation, open_split


def picture(level: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 6), (level, level, level)).save(buffer, "PNG")
    return buffer.getvalue()


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


TREE = {
    "train/cat/a.PNG": picture(1),
    "train/cat/images/deep/b.jpeg": picture(2),
    "train/dog/c.png": picture(3),
    "test/dog/d.png": picture(4),
}
LITTER = {
    "train/.DS_Store": b"",
    "train/cat/._a.png": b"",
    "train/cat/readme.txt": b"",
    "train/.ipynb_checkpoints/a.png": b"",
    "__MACOSX/train/emu/a.png": b"",
    "train/beside.png": b"",
}


def in_a_directory(root: Path) -> Path:
    return write(root, TREE | LITTER)


def in_a_zip(root: Path) -> Path:
    return zipped(root / "all.zip", TREE | LITTER)


def in_a_folder_of_a_zip(root: Path) -> Path:
    return zipped(root / "all.zip", {f"my-set/{name}": content for name, content in (TREE | LITTER).items()})


def in_two_zips(root: Path) -> Path:
    zipped(root / "a.zip", {name: content for name, content in TREE.items() if name.startswith("train")})
    zipped(root / "b.zip", {name: content for name, content in TREE.items() if name.startswith("test")})
    return root


@pytest.mark.parametrize("lay_out", [in_a_directory, in_a_zip, in_a_folder_of_a_zip, in_two_zips])
def test_layouts_of_folders(tmp_path: Path, lay_out: Callable[[Path], Path]):
    data = Data(source="folder", path=str(lay_out(tmp_path)))
    facts = describe(data, None, seed=0)
    assert (facts.classes, facts.train, facts.test, facts.validation_from) == (("cat", "dog"), 3, 1, "test")
    train = open_split(data, facts, "train", seed=0)
    assert [(int(image[0, 0, 0]), label) for image, label in (train[i] for i in range(3))] == [(1, 0), (2, 0), (3, 1)]
    image, label = open_split(data, facts, "test", seed=0)[0]
    assert (int(image[0, 0, 0]), label) == (4, 1)


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_names_of_the_validation_split(tmp_path, name):
    path = write(tmp_path, TREE | {f"{name}/cat/e.png": picture(5)})
    facts = describe(Data(source="folder", path=str(path)), None, seed=0)
    assert (facts.validation, facts.validation_from) == (1, "split")


def test_tiny_imagenet_as_downloaded(tmp_path):
    files = {
        "tiny/train/n1/images/n1_0.JPEG": picture(1),
        "tiny/train/n1/n1_boxes.txt": b"n1_0.JPEG\t0\t0\t5\t5\n",
        "tiny/train/n2/images/n2_0.JPEG": picture(2),
        "tiny/train/n2/n2_boxes.txt": b"n2_0.JPEG\t0\t0\t5\t5\n",
        "tiny/val/images/val_0.JPEG": picture(3),
        "tiny/val/val_annotations.txt": b"val_0.JPEG\tn2\t0\t0\t5\t5\n",
        "tiny/test/images/test_0.JPEG": picture(4),
        "tiny/wnids.txt": b"n2\nn1\n",
        "tiny/words.txt": b"n1\tgoldfish, Carassius auratus\nn2\tsalamander\nn9\tentity\n",
    }
    unpacked = write(tmp_path / "unpacked", files)
    for path in (unpacked, unpacked / "tiny", zipped(tmp_path / "tiny.zip", files)):
        data = Data(source="folder", path=str(path))
        facts = describe(data, None, seed=0)
        assert (facts.classes, facts.train, facts.validation, facts.test) == (("n1", "n2"), 2, 1, 0)
        assert open_split(data, facts, "validation", seed=0)[0][1] == 1


def test_tiny_imagenet_without_train(tmp_path):
    files = {
        "val/images/val_0.JPEG": picture(3),
        "val/val_annotations.txt": b"val_0.JPEG\tn2\t0\t0\t5\t5\n",
        "test/images/test_0.JPEG": picture(4),
    }
    data = Data(source="folder", path=str(write(tmp_path, files)))
    split, images = open_for_evaluation(data, ("n1", "n2"), 6)
    assert (split, images.labels.tolist()) == ("validation", [1])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (TREE | {"train/emu/notes.txt": b""}, r"class folder .*train/emu holds no images"),
        (TREE | {"test/emu/a.png": b""}, r"test/emu/a\.png is of class emu, which train does not have"),
        ({"test/cat/a.png": b"", "val/cat/a.png": b""}, r"has no split train"),
        ({"test/images/a.png": b""}, r"test holds no folders"),
        ({"train/a.png": b""}, r"train holds no folders"),
        ({"notes.txt": b""}, r"holds neither folders of images nor zip archives"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path, files, message):
    with pytest.raises(UserError, match=message):
        describe(Data(source="folder", path=str(write(tmp_path, files))), None, seed=0)


def test_paths_that_cannot_be_used(tmp_path):
    for source in set(SOURCES) - {"digits", "hub"}:
        with pytest.raises(UserError, match=r"^data\.path: .*/nowhere"):
            describe(Data(source=source, path=str(tmp_path / "nowhere")), None, seed=0)
    (tmp_path / "broken.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"broken\.zip cannot be read as a zip archive"):
        describe(Data(source="folder", path=str(tmp_path / "broken.zip")), None, seed=0)


# --- CIFAR


def cifar(python: bool, hundred: bool, size: int = 2) -> dict[str, bytes]:
    """Files of `size` images each; every image has the level of its (fine) label, and the green of 200."""
    if hundred:
        names = {"train": ["train"], "test": ["test"]}
    else:
        names = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
    files = {}
    for number, name in enumerate(names["train"] + names["test"]):
        labels = [(number + i) % 10 for i in range(size)]
        pixels = np.repeat(np.array(labels, dtype=np.uint8)[:, None], 3072, axis=1)
        pixels[:, 1024:2048] = 200
        if python and hundred:
            files[name] = old_pickle({"data": pixels, "fine_labels": labels, "coarse_labels": [9 - i for i in labels]})
        elif python:
            files[name] = old_pickle({"data": pixels, "labels": labels})
        else:
            kinds = [[9 - label, label] if hundred else [label] for label in labels]
            files[f"{name}.bin"] = np.concatenate([np.array(kinds, dtype=np.uint8), pixels], axis=1).tobytes()
    fine, coarse = [f"fine{i}" for i in range(10)], [f"coarse{i}" for i in range(10)]
    if python:
        meta = {"fine_label_names": fine, "coarse_label_names": coarse} if hundred else {"label_names": fine}
        return files | {"meta" if hundred else "batches.meta": old_pickle(meta)}
    if hundred:
        return files | {"fine_label_names.txt": lines(fine), "coarse_label_names.txt": lines(coarse)}
    return files | {"batches.meta.txt": lines(fine)}


def lines(names: list[str]) -> bytes:
    return ("\n".join(names) + "\n\n").encode()


def old_pickle(value: object) -> bytes:
    """As numpy was laid out when CIFAR was pickled."""
    return pickle.dumps(value, protocol=2).replace(b"numpy._core", b"numpy.core")


@pytest.mark.parametrize("hundred", [False, True])
@pytest.mark.parametrize("python", [False, True])
def test_cifar_versions(tmp_path, python, hundred):
    files = cifar(python, hundred)
    folder = f"cifar-{100 if hundred else 10}-x"
    write(tmp_path / "unpacked" / folder, files)
    archive = tmp_path / "cifar.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "unpacked" / folder, folder)
    for path in (tmp_path / "unpacked", tmp_path / "unpacked" / folder, archive, tmp_path):
        data = Data(source="cifar", path=str(path))
        facts = describe(data, None, seed=0)
        assert (facts.classes[3], facts.train, facts.test, facts.image_size) == ("fine3", 2 if hundred else 10, 2, 32)
        images = open_split(data, facts, "test", seed=0)
        image, label = images[1]
        assert label == image[0, 5, 5] == (2 if hundred else 6)
        assert (image[1] == 200).all()


@pytest.mark.parametrize("python", [False, True])
def test_coarse_labels(tmp_path, python):
    data = Data(source="cifar", path=str(write(tmp_path, cifar(python, hundred=True))), label_column="coarse")
    facts = describe(data, None, seed=0)
    image, label = open_split(data, facts, "train", seed=0)[1]
    assert (facts.classes[0], label, int(image[0, 0, 0])) == ("coarse0", 8, 1)
    with pytest.raises(UserError, match="medium is not possible"):
        describe(data.model_copy(update={"label_column": "medium"}), None, seed=0)


def test_broken_cifar(tmp_path):
    def complaint(files: dict[str, bytes], name: str) -> str:
        with pytest.raises(UserError) as error:
            describe(Data(source="cifar", path=str(write(tmp_path / name, files))), None, seed=0)
        return str(error.value)

    good = cifar(python=False, hundred=False)
    assert "lacks data_batch_3.bin" in complaint({k: v for k, v in good.items() if "_3" not in k}, "missing")
    assert "whole records of 3073 bytes" in complaint(good | {"data_batch_1.bin": b"123"}, "cut")
    assert "labels beyond its 10 classes" in complaint(good | {"data_batch_1.bin": b"\xff" * 3073}, "label")
    assert "more than one version" in complaint(good | cifar(python=True, hundred=True), "both")
    assert "neither" in complaint({"readme": b""}, "none")
    assert "not a CIFAR batch" in complaint(cifar(python=True, hundred=True) | {"train": b"\x80\x02}"}, "torn")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("file", ["train", "meta"])
def test_a_pickle_that_acts_is_refused(tmp_path, monkeypatch, file):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, cifar(python=True, hundred=True) | {file: pickle.dumps({"data": Evil()}, protocol=2)})
    with pytest.raises(UserError, match=r"not a CIFAR batch \(it names \w+\.system, which no CIFAR batch needs\)"):
        describe(Data(source="cifar", path=str(path)), None, seed=0)
    assert not (tmp_path / "pwned").exists()


# --- MNIST


def idx(values: np.ndarray) -> bytes:
    return bytes((0, 0, 8, values.ndim)) + np.array(values.shape, dtype=">u4").tobytes() + values.tobytes()


def mnist(train: int = 6, test: int = 3) -> dict[str, bytes]:
    files = {}
    for name, count in (("train", train), ("t10k", test)):
        labels = (np.arange(count) % 3).astype(np.uint8)
        images = np.zeros((count, 28, 28), np.uint8) + labels[:, None, None] * 50
        files[f"{name}-images-idx3-ubyte"] = idx(images)
        files[f"{name}-labels-idx1-ubyte"] = idx(labels)
    return files


def test_mnist_gzipped_or_not(tmp_path):
    packed = {f"{name}.gz": gzip.compress(content) for name, content in mnist().items()}
    dotted = {name.replace("-idx", ".idx"): content for name, content in mnist().items()}
    for number, files in enumerate((mnist(), packed, dotted)):
        data = Data(source="mnist", path=str(write(tmp_path / str(number), files)))
        facts = describe(data, None, seed=0)
        assert (facts.classes, facts.train, facts.test, facts.image_size) == (("0", "1", "2"), 6, 3, 28)
        image, label = open_split(data, facts, "train", seed=0)[2]
        assert (image.shape, label, set(image.flatten().tolist())) == ((3, 28, 28), 2, {100})
        small = facts.model_copy(update={"image_size": 14})
        assert open_split(data, small, "test", seed=0)[1][0].shape == (3, 14, 14)


def test_broken_mnist(tmp_path):
    def complaint(changes: dict[str, bytes], name: str) -> str:
        data = Data(source="mnist", path=str(write(tmp_path / name, mnist() | changes)))
        with pytest.raises(UserError) as error:
            describe(data, None, seed=0)
        return str(error.value)

    images, labels = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
    assert "has 4704 bytes of values, not 784000" in complaint(
        {images: idx(np.zeros((1000, 28, 28), np.uint8))[: 4704 + 16]}, "a"
    )
    assert "has 6 images for 2 labels" in complaint({labels: idx(np.zeros(2, np.uint8))}, "b")
    assert "not an idx file" in complaint({labels: idx(np.zeros((2, 2), np.uint8))}, "c")
    (tmp_path / "d").mkdir()
    with pytest.raises(UserError, match="holds no train-images"):
        describe(Data(source="mnist", path=str(tmp_path / "d")), None, seed=0)
    test_only = {name: content for name, content in mnist().items() if name.startswith("t10k")}
    data = Data(source="mnist", path=str(write(tmp_path / "f", test_only)))
    with pytest.raises(UserError, match="has no split train"):
        describe(data, None, seed=0)
    split, found = open_for_evaluation(data, ("2", "1", "0"), 28)
    assert (split, found.labels.tolist()) == ("test", [2, 1, 0])
    cut = {
        "train-images-idx3-ubyte.gz": gzip.compress(mnist()[images])[:-20],
        "train-labels-idx1-ubyte": mnist()[labels],
    }
    data = Data(source="mnist", path=str(write(tmp_path / "e", cut)), validation=0.5)
    with pytest.raises(UserError, match="cannot be read"):
        describe(data, None, seed=0)


# --- hub


def rows(labels: list[int]):
    import datasets

    features = datasets.Features({"photo": datasets.Image(), "kind": datasets.ClassLabel(names=["ant", "bee"])})
    images = [{"bytes": picture(10 * i), "path": None} for i in range(len(labels))]
    return datasets.Dataset.from_dict({"photo": images, "kind": labels}, features=features)


def test_hub_directory(tmp_path):
    import datasets

    splits = datasets.DatasetDict(train=rows([0, 1, 1]), valid=rows([1]), test=rows([-1, -1]))
    splits.save_to_disk(str(tmp_path / "saved"))
    data = Data(source="hub", path=str(tmp_path / "saved"))
    facts = describe(data, None, seed=0)
    assert (facts.classes, facts.train, facts.validation, facts.test) == (("ant", "bee"), 3, 1, 0)  # test: no labels
    image, label = open_split(data, facts, "train", seed=0)[1]
    assert (int(image[0, 0, 0]), label) == (10, 1)
    with pytest.raises(UserError, match=r"data\.label_column: photo is no ClassLabel column .* those are kind"):
        describe(data.model_copy(update={"label_column": "photo"}), None, seed=0)


def test_hub_directory_without_train(tmp_path):
    import datasets

    datasets.DatasetDict(test=rows([0, 1, 1])).save_to_disk(str(tmp_path / "saved"))
    data = Data(source="hub", path=str(tmp_path / "saved"))
    split, images = open_for_evaluation(data, ("wasp", "bee", "ant"), 6)
    assert (split, [images[i][1] for i in range(3)]) == ("test", [2, 1, 1])
    with pytest.raises(UserError, match="has no split train"):
        describe(data, None, seed=0)


def test_hub_id(monkeypatch):
    import datasets

    asked = []

    def load(*arguments: object) -> object:
        asked.append(arguments)
        if arguments[0] == "nobody/nothing":
            raise datasets.exceptions.DatasetNotFoundError("Dataset 'nobody/nothing' doesn't exist\non the hub")
        return datasets.DatasetDict(train=rows([0, 1]), test=rows([1]))

    monkeypatch.setattr(datasets, "load_dataset", load)
    facts = describe(Data(source="hub", path="somebody/insects", name="small", image_column="photo"), 4, seed=0)
    assert asked == [("somebody/insects", "small")]
    assert (facts.train, facts.test, facts.image_size) == (2, 1, 4)
    with pytest.raises(UserError, match=r"nobody/nothing cannot be loaded as a data set \(Dataset .* on the hub\)"):
        describe(Data(source="hub", path="nobody/nothing"), None, seed=0)
