"""RUN/completions.parquet: a directory with a file for each step that is logged, which pandas and pyarrow read as one.

Columns: step, prompt, completion, answer, reward (weighed), reward/<name>, advantage, tokens, stopped.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState

if TYPE_CHECKING:
    from zerofit.train.grpo_trainer import GrpoTrainer

DIRECTORY = "completions.parquet"
NUMBER = re.compile(r"step-(\d+)\.parquet")


class KeptCompletions(TrainerCallback):
    """Keeps `most` completions of the newest generation of all ranks, whenever figures are logged. On every rank."""

    def __init__(self, run_dir: Path, trainer: GrpoTrainer, weights: Mapping[str, float], most: int) -> None:
        self.directory, self.trainer, self.weights, self.most = run_dir / DIRECTORY, trainer, weights, most

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if dist.get_rank() == 0:
            self.directory.mkdir(exist_ok=True)
            for path in self.directory.iterdir():  # of steps that are taken again
                number = NUMBER.fullmatch(path.name)
                if number is None or int(number[1]) > state.global_step:
                    path.unlink()

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if "loss" not in kwargs["logs"]:
            return
        ranks = dist.get_world_size()
        mine = self.trainer.generation()[: -(-self.most // ranks)]
        everyone: list[list[dict[str, Any]]] = [[]] * ranks
        dist.all_gather_object(everyone, mine)
        if dist.get_rank() == 0:
            self._write(state.global_step, [row for rows in everyone for row in rows][: self.most])

    def _write(self, step: int, rows: list[dict[str, Any]]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        for row in rows:
            row["reward"] = sum(weight * row[f"reward/{name}"] for name, weight in self.weights.items())
        path = self.directory / f"step-{step:06d}.parquet"
        part = path.with_suffix(".part")
        schema = pa.schema(
            [
                ("step", pa.int64()),
                ("prompt", pa.string()),
                ("completion", pa.string()),
                ("answer", pa.string()),
                ("reward", pa.float64()),
                *((f"reward/{name}", pa.float64()) for name in self.weights),
                ("advantage", pa.float64()),
                ("tokens", pa.int64()),
                ("stopped", pa.bool_()),
            ]
        )
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), part)
        os.replace(part, path)
