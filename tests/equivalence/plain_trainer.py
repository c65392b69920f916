"""A training script that knows nothing of zerofit: plain transformers, told by arguments and by `accelerate launch`.

    accelerate launch --config_file FILE plain_trainer.py --model DIR --out FILE --output_dir DIR ...

It trains a ViTForImageClassification on scikit-learn's digits, in one order of its own. Rank 0 leaves OUT: the loss of
each step, and what ran.
"""

from __future__ import annotations

import importlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from foreign_program import images
from torch.utils.data import Dataset
from transformers import HfArgumentParser, Trainer, TrainingArguments, ViTForImageClassification


@dataclass
class Job:
    model: str = field(metadata={"help": "Directory of the model."})
    out: str = field(metadata={"help": "File for the losses."})
    order: str = field(metadata={"help": "JSON: samples in order."})


class Digits(Dataset):
    def __init__(self, order: list[int]) -> None:
        self.order = order
        self.pixels, self.labels = images()

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, at: int) -> dict[str, torch.Tensor]:
        return {"pixel_values": self.pixels[self.order[at]], "labels": self.labels[self.order[at]]}


def on_cpu() -> None:
    """What DeepSpeed needs where there is no GPU: accelerate starts it on GPUs alone."""
    import deepspeed

    importlib.import_module("deepspeed.comm.torch").build_shm_op = lambda: None  # it would be compiled for minutes
    deepspeed.init_distributed("gloo")


def main() -> None:
    if "ACCELERATE_USE_DEEPSPEED" in os.environ:
        on_cpu()
    job, arguments = HfArgumentParser([Job, TrainingArguments]).parse_args_into_dataclasses()
    model = ViTForImageClassification.from_pretrained(job.model)
    trainer = Trainer(model, arguments, train_dataset=Digits(json.loads(Path(job.order).read_text())))
    trainer.train()
    engine = trainer.model_wrapped
    if trainer.is_world_process_zero():
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        stage = engine.zero_optimization_stage() if trainer.is_deepspeed_enabled else None
        said = {"losses": losses, "engine": type(engine).__name__, "stage": stage, "ranks": arguments.world_size}
        Path(job.out).write_text(json.dumps(said))


if __name__ == "__main__":
    main()
