"""What a rank sends, in the order in which it does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Recorder(TorchDispatchMode):
    """Takes down each collective of torch.distributed: its name, and how large its tensors are.

    The rank to which others send has more of them, of the same sizes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[int]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            sizes = {leaf.numel() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
            self.seen.append((str(func), sorted(sizes)))
        return func(*args, **(kwargs or {}))


@contextmanager
def recorded_collectives(directory: Path) -> Iterator[None]:
    """Leave this rank's in DIRECTORY/collectives-RANK.json."""
    with Recorder() as recorder:
        yield
    (directory / f"collectives-{dist.get_rank()}.json").write_text(json.dumps(recorder.seen))
