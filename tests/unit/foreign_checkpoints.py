"""DeepSpeed's files of ZeRO stage 3, written by hand, of transformers' ViT for images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import ViTConfig, ViTForImageClassification

SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 33}
RECIPE = f"""\
name: vit
model: {{kind: vit, patch_size: 4, shape: {SHAPE}}}
data: {{source: digits}}
train: {{max_steps: 6, micro_batch: 8, global_batch: 16}}
optimizer: {{lr: 1e-3}}
strategy: ddp
""".replace("'", "")
Moments = Mapping[str, Callable[[Tensor], Tensor]]
"""What is kept of a parameter, by kind."""
ADAM: Moments = {"exp_avg": torch.neg, "exp_avg_sq": torch.square}


def vit_weights() -> dict[str, Tensor]:
    """Of the recipe's model, under transformers' names."""
    torch.manual_seed(0)
    model = ViTForImageClassification(ViTConfig(**SHAPE, patch_size=4, image_size=8, num_labels=10))
    return {name: value.detach() for name, value in model.named_parameters()}


def write_zero3(
    directory: Path,
    trained: Mapping[str, Tensor],
    *,
    frozen: Mapping[str, Tensor] | None = None,
    moments: Moments = ADAM,
    step: int = 3,
    ranks: int = 2,
    **model: Any,
) -> Path:
    """`latest` and a tag; `model` replaces what the model states say. Returns `directory`."""
    tag = directory / f"global_step{step}"
    tag.mkdir(parents=True)
    (directory / "latest").write_text(tag.name)
    frozen = frozen or {}
    for rank in range(ranks):
        flat = torch.cat([_shard(value, rank, ranks) for value in trained.values()])
        states = {
            "module": {},
            "buffer_names": [],
            "param_shapes": [{name: value.shape for name, value in trained.items()}],
            "frozen_param_shapes": {name: value.shape for name, value in frozen.items()},
            "frozen_param_fragments": {name: _shard(value, rank, ranks) for name, value in frozen.items()},
            "shared_params": {},
            "lr_scheduler": {"last_epoch": step},
            "global_steps": step,
            "global_samples": step * 16,
            "dp_world_size": ranks,
            "ds_config": {"zero_optimization": {"stage": 3}},
            **model,
        }
        kept = {"step": torch.tensor(float(step)), **{kind: made(flat) for kind, made in moments.items()}}
        optimizer = {
            "partition_count": ranks,
            "fp32_flat_groups": [flat],
            "optimizer_state_dict": {"state": {0: kept}},
        }
        name = f"zero_pp_rank_{rank}_mp_rank_00"
        torch.save(states, tag / f"{name}_model_states.pt")
        torch.save({"optimizer_state_dict": optimizer}, tag / f"{name}_optim_states.pt")
    return directory


def _shard(value: Tensor, rank: int, ranks: int) -> Tensor:
    length = math.ceil(value.numel() / ranks)
    padded = torch.cat([value.flatten(), torch.full((length * ranks - value.numel(),), torch.nan)])
    return padded[rank * length : (rank + 1) * length].clone()
