"""Food-101 (Bossard et al. 2014) as unpacked from the download.

food-101/meta/{classes,train,test}.txt      a class, or an image (`apple_pie/1005649`), a line
food-101/images/<class>/<id>.jpg
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from zerofit.config.data import Data
from zerofit.config.errors import UserError
from zerofit.data.contents import Contents, SplitName
from zerofit.data.folder import FolderSplit
from zerofit.data.trees import Directory, Tree

SPLITS: tuple[SplitName, ...] = ("train", "test")
ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")


def open_food101(data: Data) -> Contents:
    """Train and test, with the classes in the order of classes.txt.

    Raises UserError where a file is missing, a line names an unknown class, or a class has no training images.
    """
    assert data.path is not None
    root = _root(Path(data.path))
    classes = _lines(root, "classes")
    if not classes:
        raise UserError(f"data.path: {root / 'meta/classes.txt'} names no classes; unpack the download again")
    listed = {split: _listed(root, split, classes) for split in SPLITS}
    trained = {image.partition("/")[0] for image in listed["train"]}
    empty = [name for name in classes if name not in trained]
    if empty:
        raise UserError(
            f"data.path: {root / 'meta/train.txt'} names no image of {_some(empty)}, which classes.txt has; "
            "unpack the download again"
        )
    tree = Directory(root)
    present = set(tree.images("images/")) if (root / "images").is_dir() else set()
    openers = {split: partial(_open_split, tree, present, split, images, classes) for split, images in listed.items()}
    return Contents(data.path, tuple(classes), openers)


def _root(path: Path) -> Path:
    """The directory that holds meta/: the one that is named, or `food-101` in it."""
    if path.name.endswith(ARCHIVES) and path.is_file():
        raise UserError(f"data.path: {path} is an archive of 101,000 files; unpack it, and name the directory food-101")
    if not path.is_dir():
        raise UserError(f"data.path: {path} {'is no directory' if path.exists() else 'does not exist'}")
    for root in (path, path / "food-101"):
        if (root / "meta").is_dir():
            return root
    archives = sorted(one for one in path.iterdir() if one.name.endswith(ARCHIVES))
    remedy = f"unpack {archives[0].name} there" if archives else "name the directory food-101 of the unpacked download"
    raise UserError(f"data.path: {path} holds neither meta nor food-101/meta; {remedy}")


def _lines(root: Path, name: str) -> list[str]:
    file = root / "meta" / f"{name}.txt"
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise UserError(f"data.path: {root} lacks meta/{name}.txt; unpack the download again") from None
    except UnicodeDecodeError:
        raise UserError(f"data.path: {file} is not text; unpack the download again") from None


def _listed(root: Path, split: SplitName, classes: list[str]) -> list[str]:
    """`<class>/<id>` of each image of a split."""
    images, known = _lines(root, split), set(classes)
    for image in images:
        name, slash, identity = image.partition("/")
        if not slash or not identity:
            raise UserError(f"data.path: {root / 'meta' / split}.txt: {image!r} is not <class>/<id>")
        if name not in known:
            raise UserError(
                f"data.path: {root / 'meta' / split}.txt: {image} is of class {name}, which classes.txt does not have"
            )
    return images


def _open_split(tree: Tree, present: set[str], split: SplitName, images: list[str], classes: list[str]) -> FolderSplit:
    labels = {name: label for label, name in enumerate(classes)}
    files = [(tree, f"images/{image}.jpg", labels[image.partition("/")[0]]) for image in images]
    missing = [member for _, member, _ in files if member not in present]
    if missing:
        raise UserError(
            f"data.path: {tree.where} lacks {_some(missing)}, which meta/{split}.txt names; unpack the download again"
        )
    return FolderSplit(files)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
