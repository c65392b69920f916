"""One rank of a start: adapters over weights in 4 bits, in fp16, as on a card without bf16; engines as they are.

    python fp16_worker.py WORKS.json    # under `starts.run_script`

Each work is a strategy. Plans and accelerate refuse fp16 on a CPU, so the parts are put together here. Every tensor
that any operation gives is looked at, of building, training and generating.
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from cases import CPU, plan
from ranks import be_rank
from test_sft import PACKED, small
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zerofit.config.grpo import Sampling
from zerofit.generate.generator import make_generator
from zerofit.launch.environment import World

LIMIT, STEPS = 300, 3
DEVICE = torch.device("cpu")


class Types(TorchDispatchMode):
    """Remembers the types of all floating-point results."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        found = (one.dtype for one in tree_leaves(result) if isinstance(one, torch.Tensor))
        self.seen |= {str(dtype).removeprefix("torch.") for dtype in found if dtype.is_floating_point}
        return result


def prepared(strategy: str) -> tuple[Any, Any, Any, Any]:
    """The product's engine and model, what is trained, and its optimizer."""
    from zerofit.models.build import build_model
    from zerofit.plan.deepspeed import make_deepspeed
    from zerofit.plan.strategy import Chosen
    from zerofit.train.optimizers import make_optimizer
    from zerofit.train.strategy import engine_for

    spec = plan(small(PACKED, strategy, 4), dist.get_world_size(), Path("unused"))
    settings = make_deepspeed(spec.recipe, Chosen(spec.strategy), spec.batches, "fp16", CPU)
    spec = spec.model_copy(update={"precision": "fp16", "deepspeed": settings})
    engine: Any = engine_for(spec, DEVICE)
    model = build_model(spec, engine.placement(), engine.compute_dtype)
    model.train()
    optimizer = make_optimizer(model, spec, engine)
    if strategy.startswith("zero"):
        import deepspeed

        wrapped = deepspeed.initialize(model=model, optimizer=optimizer, config=settings, dist_init_required=False)[0]
        return engine, model, wrapped, wrapped.optimizer
    if strategy == "ddp":
        engine.autocast_dtype = lambda: torch.float16  # accelerate is not asked for a context: see `train`
        return engine, model, nn.parallel.DistributedDataParallel(model), optimizer
    return engine, model, model, optimizer


def train(strategy: str) -> dict[str, Any]:
    from zerofit.train.dtypes import check_dtypes, tensors_of

    with Types() as types:
        engine, model, wrapped, optimizer = prepared(strategy)
        check_dtypes(engine, model, wrapped, optimizer)
        low = torch.autocast("cpu", torch.float16) if strategy == "ddp" else nullcontext()
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        losses = []
        for _ in range(STEPS):
            tokens = torch.randint(250, (4, 33), generator=torch.Generator().manual_seed(7))
            own = tokens.chunk(dist.get_world_size())[dist.get_rank()]
            with low:
                logits = wrapped(input_ids=own[:, :-1], use_cache=False).logits
            loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), own[:, 1:].flatten())
            losses.append(loss.item())
            if strategy.startswith("zero"):
                wrapped.backward(loss)
                wrapped.step()
            else:
                scaler.scale(loss).backward()
                for group in optimizer.param_groups:
                    group["lr"] = engine.spec.lr
                if strategy == "ddp":
                    scaler.step(optimizer)
                    scaler.update()
                else:
                    for parameter in model.parameters():
                        if parameter.grad is not None:
                            parameter.grad /= scaler.get_scale()
                    optimizer.step()
                optimizer.zero_grad()
        with engine.rollout(wrapped) as plain:
            generator = make_generator("graph", DEVICE, pad=0, stops=[3], batch=2)
            held = {str(tensor.dtype) for _, tensor in tensors_of(plain)}
            made = generator(plain, [[5, 6, 7], [8]], range(2), Sampling(max_tokens=8))
        check_dtypes(engine, model, wrapped, optimizer)
    completions = [one.tokens for one in made]
    return {"losses": losses, "types": sorted(types.seen), "held": sorted(held), "completions": completions}


def main() -> None:
    path = Path(sys.argv[1])
    works = json.loads(path.read_text())

    def body(world: World) -> None:
        from zerofit.launch import workarounds

        workarounds.quiet()
        workarounds.apply()
        from deepspeed.accelerator import get_accelerator

        get_accelerator().is_fp16_supported = lambda: True  # whatever this CPU's instructions
        outcomes = {work: train(work) for work in works}
        path.with_suffix(f".{world.rank}.json").write_text(json.dumps(outcomes))
        dist.barrier()

    be_rank(path.parent / "logs", body, LIMIT)


if __name__ == "__main__":
    main()
