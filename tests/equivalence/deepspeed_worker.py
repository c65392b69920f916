"""One rank of raw DeepSpeed, without zerofit: checkpoints of every ZeRO stage that other scripts would leave.

    python deepspeed_worker.py WORKS.json    # under `starts.run_script`

WORKS.json is {"directory": ..., "cases": [[name, config], ...]}. The model has tied, frozen, one-element and odd
parameters, and buffers. Rank 0 leaves DIRECTORY/NAME.live.pth: each tensor under every name that it has, and what the
optimizer keeps, as the engine holds it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from ranks import be_rank
from torch import Tensor, nn

from zerofit.launch.environment import World

LIMIT = 300


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 7)
        self.norm = nn.LayerNorm(7)
        self.frozen = nn.Linear(7, 7)
        self.frozen.requires_grad_(False)
        self.scale = nn.Parameter(torch.tensor([1.5]))
        self.lora_A, self.lora_B = nn.Linear(7, 3, bias=False), nn.Linear(3, 7, bias=False)
        self.head = nn.Linear(7, 11)
        self.head.weight = self.embedding.weight  # tied
        self.register_buffer("running", torch.arange(5, dtype=torch.float32) / 3)
        self.register_buffer("seen", torch.tensor(0))
        self.register_buffer("mask", torch.tensor([True, False, True]))
        self.register_buffer("forgotten", torch.ones(3), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        self.running.mul_(0.9)
        self.seen.add_(1)
        hidden = self.norm(self.embedding(tokens))
        hidden = self.frozen(hidden) + self.lora_B(self.lora_A(hidden))
        return self.head(hidden * self.scale).float()


def main() -> None:
    works = json.loads(Path(sys.argv[1]).read_text())

    def body(world: World) -> None:
        for name, config in works["cases"]:
            live = trained(Path(works["directory"]) / name, config)
            if world.rank == 0:
                torch.save(live, Path(works["directory"]) / f"{name}.live.pth")

    be_rank(Path(sys.argv[1]).parent / "logs", body, LIMIT)


def trained(directory: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Three steps, saved; returns what the engine then holds."""
    import deepspeed

    from zerofit.launch.workarounds import without_shm_op

    without_shm_op()
    torch.manual_seed(0)
    model = Odd()
    trains = [one for one in model.parameters() if one.requires_grad]
    groups = [
        {"params": [one for one in trains if one.ndim < 2], "weight_decay": 0.0},
        {"params": [one for one in trains if one.ndim >= 2], "weight_decay": 0.1},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, lr_scheduler=schedule, config=config)
    generator = torch.Generator().manual_seed(engine.global_rank)
    for _ in range(3):
        tokens = torch.randint(11, (4,), generator=generator)
        loss = nn.functional.cross_entropy(engine(tokens), tokens)
        engine.backward(loss)
        engine.step()
    live = held(engine)
    engine.save_checkpoint(str(directory))
    return live


def held(engine: Any) -> dict[str, Any]:
    """Every tensor whole, trained ones as float32 masters. Collective."""
    import deepspeed
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    model, zero = engine.module, engine.optimizer
    if engine.zero_optimization_stage() in (1, 2):
        zero._hp_optimizer_states_linked = False  # DeepSpeed links those of the first group alone
        zero._lazy_init_hp_params_optimizer_state()
    weights: dict[str, Tensor] = {}
    moments: dict[str, dict[str, Tensor]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.requires_grad and engine.zero_optimization_stage() > 0:
            weights[name] = safe_get_full_fp32_param(parameter).clone().view(shape_of(parameter))
            moments[name] = {
                kind: safe_get_full_optimizer_state(parameter, kind).clone().view(shape_of(parameter))
                for kind in ("exp_avg", "exp_avg_sq")
            }
        else:
            with deepspeed.zero.GatheredParameters([parameter], enabled=engine.zero_optimization_stage() == 3):
                weights[name] = parameter.detach().clone().float()
    stored = {name: value.clone() for name, value in model.named_buffers() if name != "forgotten"}
    return {"weights": weights, "moments": moments, "buffers": stored}


def shape_of(parameter: Any) -> torch.Size:
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape


if __name__ == "__main__":
    main()
