"""One rank on a GPU: trains runs with a fused AdamW and with torch's default, and says what its steps made.

    python fused_worker.py WORKS.json    # under `starts.run_script`

Of each run: its directory (`run`), whether AdamW is fused, and the step whose gradients are to overflow, or null. It
leaves RUN/made.json: bytes at the fullest moment of each call of the optimizer, beyond what was there before.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ranks import be_rank
from worker import LIMIT, NoStore, forget

from zerofit.launch import worker as product
from zerofit.launch.environment import World
from zerofit.plan import fused
from zerofit.plan.files import read_spec


def main() -> None:
    works = json.loads(Path(sys.argv[1]).read_text())

    def body(_: World) -> None:
        for work in works:
            (Path(work["run"]) / "made.json").write_text(json.dumps(trained(work)))

    be_rank(Path(sys.argv[1]).parent / "logs", body, LIMIT, "cuda")


def trained(work: dict[str, Any]) -> list[int]:
    """Train one run."""
    spec = read_spec(Path(work["run"]))
    forget()
    product.prepare_engine(spec)
    fused.DEVICES = {"cuda"} if work["fused"] else set()
    import torch
    from torch.optim import optimizer as every
    from transformers.trainer_utils import SaveStrategy

    from zerofit.data.loader import close
    from zerofit.tasks.loop import prepare

    before: list[int] = []
    made: list[int] = []

    def begin(*_: Any) -> None:
        torch.cuda.reset_peak_memory_stats()
        before.append(torch.cuda.memory_allocated())

    def end(*_: Any) -> None:
        made.append(torch.cuda.max_memory_allocated() - before[-1])

    run = prepare(spec, torch.device("cuda", 0), NoStore())
    run.trainer.args.save_strategy = SaveStrategy.NO

    def overflow(gradient: torch.Tensor) -> torch.Tensor:
        return gradient * float("inf") if run.trainer.state.global_step + 1 == work["overflow"] else gradient

    if work["overflow"] is not None:
        next(one for one in run.trainer.classifier.parameters() if one.requires_grad).register_hook(overflow)
    # Of torch's optimizers alone: what accelerate and DeepSpeed put around them has no such hooks.
    hooks = every.register_optimizer_step_pre_hook(begin), every.register_optimizer_step_post_hook(end)
    try:
        run.trainer.train()
    finally:
        for hook in hooks:
            hook.remove()
        close(run.job.train_loader())
    return made


if __name__ == "__main__":
    main()
