"""Writing the content of a checkpoint in another form: there whole, read back and compared, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError

from zerofit.checkpoint.canonical import seal, write_canonical, write_weights
from zerofit.checkpoint.content import Content
from zerofit.checkpoint.manifest import sync, write_json
from zerofit.checkpoint.stream import SHARD, Progress, Written, nothing
from zerofit.checkpoint.torch_export import write_torch
from zerofit.config.errors import UserError
from zerofit.plan.versions import versions

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
MADE = "export.json"


def to_file(content: Content, path: Path, dtype: torch.dtype, progress: Progress = nothing) -> Written:
    """`path`, a new file of torch.save. Raises UserError."""
    part = path.with_name(f".{path.name}.part")

    def write() -> Written:
        path.parent.mkdir(parents=True, exist_ok=True)
        written = write_torch(content, part, dtype, progress)
        part.replace(path)
        return written

    return _whole(write, part, path)


def to_weights(
    content: Content, directory: Path, dtype: torch.dtype, limit: int = SHARD, progress: Progress = nothing
) -> Written:
    """`directory`, new or empty, of safetensors, with config.json where there is one. Raises UserError."""
    return _to_directory(lambda part: write_weights(content, part, dtype, limit, progress), content, directory)


def to_canonical(content: Content, directory: Path, limit: int = SHARD, progress: Progress = nothing) -> Written:
    """`directory`, new or empty, in the canonical form. Raises UserError."""
    return _to_directory(
        lambda part: write_canonical(content, part, limit, progress),
        content,
        directory,
        lambda part: seal(content, part),
    )


def _to_directory(
    write: Callable[[Path], Written],
    content: Content,
    directory: Path,
    last: Callable[[Path], None] = sync,
) -> Written:
    part = directory.with_name(f".{directory.name}.part")

    def make() -> Written:
        shutil.rmtree(part, ignore_errors=True)  # of an export that was cut off
        part.mkdir(parents=True)
        written = write(part)
        if content.config is not None:
            content.config(part / "config.json")
        if content.beside is not None:
            content.beside(part)
        made = {"zerofit": versions()["zerofit"], **content.made, "step": content.step, "merged": content.merged}
        write_json(part / MADE, made)
        last(part)
        part.replace(directory)
        sync(directory.parent)
        return written

    return _whole(make, part, directory)


def _whole(write: Callable[[], Written], part: Path, output: Path) -> Written:
    """Do it; what is half done is removed. Raises UserError."""
    try:
        return write()
    except SafetensorError as error:
        raise UserError(f"{output} cannot be written: {error}") from None
    except OSError as error:
        if error.filename is not None and not str(error.filename).startswith(str(part.parent)):
            raise  # of what is read
        raise UserError(f"{output} cannot be written: {error.strerror}") from None
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)
