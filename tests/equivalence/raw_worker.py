"""One rank of a start: a program of its own that uses DeepSpeed, and engines that are given a state.

    python raw_worker.py JOBS.json    # under `starts.run_script`; see `JOBS` for what each job is

The model has a tied pair, a parameter of one element, odd sizes, frozen ones, a buffer, three groups of weight decay.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ranks import be_rank
from torch import Tensor, nn

from zerofit.launch.environment import World

BEFORE, AFTER = 4, 5
"""Steps until the program saves, and from there."""
LIMIT = 300


class Odd(nn.Module):
    """Predicts the next of 11 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 5)
        self.scale = nn.Parameter(torch.ones(1))
        self.frozen = nn.Linear(5, 5).requires_grad_(False)
        self.hidden = nn.Linear(5, 7)
        self.back = nn.Linear(7, 5)
        self.head = nn.Linear(5, 11, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("shift", torch.full((3,), 0.25))

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = torch.relu(self.hidden(self.frozen(self.embed(tokens)))) * self.scale
        return self.head(self.back(hidden) + self.shift.sum())


def odd(seed: int) -> Odd:
    torch.manual_seed(seed)
    return Odd()


def groups_of(model: nn.Module) -> list[list[str]]:
    """Matrices, vectors, and what has one element, which of two ranks one alone holds."""
    trained = [(name, one) for name, one in model.named_parameters() if one.requires_grad]
    kinds = [min(one.ndim, 2) if one.numel() > 1 else 0 for _, one in trained]
    return [[name for (name, _), kind in zip(trained, kinds, strict=True) if kind == wanted] for wanted in (2, 1, 0)]


def optimizer_of(model: nn.Module) -> torch.optim.AdamW:
    named = dict(model.named_parameters())
    groups = [
        {"params": [named[name] for name in names], "weight_decay": decay}
        for names, decay in zip(groups_of(odd(0)), (0.05, 0.0, 0.01), strict=True)
    ]
    return torch.optim.AdamW(groups, lr=0.02)


def deepspeed_of(strategy: str, seed: int, low: bool = False) -> tuple[Any, Any]:
    """The program's engine and schedule; `low`: in bf16, with gradients added up in float32."""
    import deepspeed

    model = odd(seed)
    optimizer = optimizer_of(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step / 5))
    config = {
        "train_batch_size": 8,
        "train_micro_batch_size_per_gpu": 8 // dist.get_world_size(),
        "zero_optimization": {"stage": int(strategy[-1])},
        "zero_allow_untested_optimizer": True,
        "gradient_clipping": 0.5,
        "steps_per_print": sys.maxsize,
    }
    if low:
        config |= {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}}
    engine = deepspeed.initialize(
        model=model, optimizer=optimizer, lr_scheduler=schedule, config=config, dist_init_required=False
    )[0]
    return engine, schedule


def steps(engine: Any, first: int, count: int) -> list[float]:
    """Losses over the global batch."""
    losses = []
    for step in range(first, first + count):
        tokens = torch.randint(11, (8, 6), generator=torch.Generator().manual_seed(step))
        own = tokens.chunk(dist.get_world_size())[dist.get_rank()]
        loss = nn.functional.cross_entropy(engine(own[:, :-1]).flatten(0, 1), own[:, 1:].flatten())
        engine.backward(loss)
        engine.step()
        whole = loss.detach().clone()
        dist.all_reduce(whole)
        losses.append(float(whole) / dist.get_world_size())
    return losses


def train(strategy: str, output: str, low: bool = False) -> dict[str, Any]:
    """Save amid training, and train on."""
    engine, _ = deepspeed_of(strategy, 1, low)
    before = steps(engine, 0, BEFORE)
    engine.save_checkpoint(output, tag="four", client_state={"epoch": 3, "seen": [1, 2], "best": None})
    return {"before": before, "losses": steps(engine, BEFORE, AFTER)}


def go_on(strategy: str, source: str, low: bool = False) -> dict[str, Any]:
    """Load what is the program's own, as it thinks, and train on."""
    engine, schedule = deepspeed_of(strategy, 2, low)
    _, client = engine.load_checkpoint(source)
    where = [engine.global_steps, engine.global_samples, schedule.last_epoch, engine.get_lr()]
    decays = [group["weight_decay"] for group in engine.optimizer.param_groups]
    kept = {name: client[name] for name in ("epoch", "seen", "best")}
    return {"losses": steps(engine, BEFORE, AFTER), "where": where, "decays": decays, "client": kept}


def rewrite(tag: str, stage: int, output: str) -> dict[str, Any]:
    """The product's."""
    from zerofit.checkpoint.rewrite_zero import rewrite_zero

    rewrite_zero(Path(tag), stage, Path(output))
    return {}


def restore(strategy: str, source: str, source_strategy: str | None, output: str) -> dict[str, Any]:
    """Give the engine a state, and save as it does."""
    from cases import VIT, plan, recipe
    from safetensors.torch import save_file

    from zerofit.checkpoint.stream import write_tensors
    from zerofit.train.strategy import engine_for

    spec = plan(recipe(VIT, strategy), dist.get_world_size(), Path(output))
    product = engine_for(spec, torch.device("cpu"))
    state = given(Path(source), source_strategy)
    checkpoint = Path(output)
    checkpoint.mkdir(parents=True, exist_ok=True)
    if strategy.startswith("zero"):
        engine, _ = deepspeed_of(strategy, seed=3)
        product.restore(engine.module, engine, engine.optimizer, state)
        engine.save_checkpoint(output)
        return {}
    model = odd(3)
    if strategy == "fsdp2":
        from torch.distributed.checkpoint import FileSystemWriter, save
        from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        wrapped: Any = fully_shard(model, mesh=mesh)
        optimizer = optimizer_of(model)
        product.restore(model, wrapped, optimizer, state)
        stored = {"optimizer": get_optimizer_state_dict(model, optimizer)}
        save(stored, storage_writer=FileSystemWriter(checkpoint / "optimizer_0"))
        weights = product.whole_weights(wrapped)
        if weights is not None:
            write_tensors(weights, checkpoint / "model.safetensors")
    else:
        wrapped = nn.parallel.DistributedDataParallel(model)
        optimizer = optimizer_of(model)
        product.restore(model, wrapped, optimizer, state)
        if dist.get_rank() == 0:
            torch.save(optimizer.state_dict(), checkpoint / "optimizer.pt")
            save_file(dict(model.named_parameters()), checkpoint / "model.safetensors")
    dist.barrier()
    return {}


def given(source: Path, strategy: str | None) -> Any:
    """The state in a directory that `restore` wrote, or in a file of numbers."""
    from functools import partial

    from zerofit.checkpoint.native import READERS
    from zerofit.models.pretrained import safetensors_in
    from zerofit.train.state import TrainingState

    if strategy is None:
        numbers = torch.load(source, weights_only=True)
        weights = {name: partial(Tensor.detach, value) for name, value in numbers["weights"].items()}
        moments = {
            name: {kind: partial(Tensor.detach, value) for kind, value in kept.items()}
            for name, kept in numbers["moments"].items()
        }
        return TrainingState(weights, moments, numbers["counts"])
    zero = strategy.startswith("zero")
    whole = {} if zero else safetensors_in(source, "test")
    return TrainingState(*READERS["zero" if zero else strategy](source, groups_of(odd(0)), whole))


JOBS = {"train": train, "go_on": go_on, "rewrite": rewrite, "restore": restore}


def main() -> None:
    path = Path(sys.argv[1])
    jobs = json.loads(path.read_text())

    def body(world: World) -> None:
        from zerofit.launch import workarounds

        workarounds.quiet()
        workarounds.apply()
        outcomes = [JOBS[name](**arguments) for name, arguments in jobs]
        if world.rank == 0:
            path.with_suffix(".outcomes.json").write_text(json.dumps(outcomes))
        dist.barrier()

    be_rank(path.parent / "logs", body, LIMIT)


if __name__ == "__main__":
    main()
