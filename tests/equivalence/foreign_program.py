"""A training program that knows nothing of zerofit: plain torch, transformers, scikit-learn and DeepSpeed, on a CPU.

    python foreign_program.py JOB.json    # one rank of two, under `starts.run_script`

JOB says config (of a ViTForImageClassification), weights (its state dict), batch, steps, total, warmup, lr, decay,
clip, stages, and the directory to write into. For each ZeRO stage it leaves DIRECTORY/zeroN, as `save_checkpoint`
writes it, with client_state.pt beside, and DIRECTORY/zeroN.pt: losses, and what DeepSpeed itself says each parameter's
float32 value and moments are.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from transformers import ViTConfig, ViTForImageClassification, get_cosine_schedule_with_warmup


def main() -> None:
    import deepspeed

    importlib.import_module("deepspeed.comm.torch").build_shm_op = lambda: None  # it would be compiled for minutes
    job = json.loads(Path(sys.argv[1]).read_text())
    deepspeed.init_distributed("gloo")
    for stage in job["stages"]:
        train(deepspeed, job, stage)
    dist.barrier()


def train(deepspeed: Any, job: dict[str, Any], stage: int) -> None:
    model = ViTForImageClassification(ViTConfig(**job["config"]))
    model.load_state_dict(torch.load(job["weights"], weights_only=True))
    plain = [name for name, _ in model.named_parameters() if not decayed(name)]
    groups = [
        {"params": [p for name, p in model.named_parameters() if name not in plain], "weight_decay": job["decay"]},
        {"params": [p for name, p in model.named_parameters() if name in plain], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=job["lr"])
    engine, _, _, _ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        lr_scheduler=get_cosine_schedule_with_warmup(optimizer, job["warmup"], job["total"]),
        config={
            "train_micro_batch_size_per_gpu": job["batch"] // dist.get_world_size(),
            "zero_optimization": {"stage": stage},
            "zero_allow_untested_optimizer": True,
            "gradient_clipping": job["clip"],
        },
    )
    pixels, labels = images()
    losses = []
    for step in range(job["steps"]):
        mine = batch_of(step, len(labels), job["batch"])
        logits = engine(pixel_values=pixels[mine]).logits
        loss = F.cross_entropy(logits.float(), labels[mine])
        engine.backward(loss)
        engine.step()
        whole = loss.detach().clone()
        dist.all_reduce(whole)
        losses.append(whole.item() / dist.get_world_size())
    save(deepspeed, engine, Path(job["directory"]) / f"zero{stage}", losses)


def decayed(name: str) -> bool:
    """Matrices and convolutions alone, as usual."""
    return name.endswith("weight") and "norm" not in name


def images() -> tuple[torch.Tensor, torch.Tensor]:
    """The training part of scikit-learn's digits: float32 [N, 3, 8, 8] in -1..1, int64 [N]."""
    values, labels = load_digits(return_X_y=True)
    chosen, _ = train_test_split(np.arange(len(labels)), test_size=360, stratify=labels, random_state=0)
    levels = np.round(values[chosen] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    pixels = (torch.from_numpy(levels).float() / 255 - 0.5) / 0.5
    return pixels.repeat(1, 3, 1, 1), torch.from_numpy(labels[chosen])


def batch_of(step: int, samples: int, size: int) -> torch.Tensor:
    """This rank's samples of an optimizer step: a new order each epoch, of which it takes its part."""
    epoch, place = divmod(step, samples // size)
    order = np.random.default_rng(np.random.SeedSequence([0, epoch])).permutation(samples)
    whole = order[place * size : (place + 1) * size]
    return torch.from_numpy(np.split(whole, dist.get_world_size())[dist.get_rank()])


def save(deepspeed: Any, engine: Any, directory: Path, losses: list[float]) -> None:
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    engine.save_checkpoint(str(directory))
    if dist.get_rank() == 0:
        torch.save({"global_step": len(losses), "epoch": 0, "losses": losses}, directory / "client_state.pt")
    if engine.zero_optimization_stage() < 3:  # it has linked the moments of the first group alone
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()
    said = {}
    for name, parameter in engine.module.named_parameters():
        said[name] = {
            "weight": safe_get_full_fp32_param(parameter).clone(),
            **{kind: safe_get_full_optimizer_state(parameter, kind).clone() for kind in ("exp_avg", "exp_avg_sq")},
        }
    if dist.get_rank() == 0:
        torch.save({"losses": losses, "state": said}, directory.with_suffix(".pt"))


if __name__ == "__main__":
    main()
