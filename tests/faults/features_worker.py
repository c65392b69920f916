"""One rank that extracts features and trains heads on them.

    python features_worker.py [--die N] RUN ...    # under `run_ranks`; --die: the last rank is killed at its fsync N

Several runs in one start, one after the other. Rank 0 leaves RUN/outcome.json; records of failures go to the first.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
from pathlib import Path
from typing import Any

from zerofit.launch import failure, group, lifeline
from zerofit.launch.environment import outer_world
from zerofit.plan.files import read_spec


def main() -> None:
    lifeline.watch()
    world = outer_world(os.environ)
    assert world is not None
    parser = argparse.ArgumentParser()
    parser.add_argument("--die", type=int)
    parser.add_argument("runs", type=Path, nargs="+")
    options = parser.parse_args()

    def body() -> None:
        group.join(world, "cpu")
        if options.die is not None and world.rank == world.size - 1:
            die_at(options.die)
        for run in options.runs:
            outcome = work(run)
            if world.rank == 0:
                (run / "outcome.json").write_text(json.dumps(outcome))
        group.leave()

    failure.guard(world.rank, options.runs[0] / "logs", body)
    failure.finish()


def die_at(number: int) -> None:
    """Kill this process as the `number`-th fsync begins."""
    left, sync = number, os.fsync

    def deadly(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(descriptor)

    os.fsync = deadly


def work(run: Path) -> dict[str, Any]:
    import torch
    from torch import nn

    from zerofit.models.build import build_model
    from zerofit.models.placement import WholePlacement
    from zerofit.tasks.features import extract
    from zerofit.train.heads import train_heads

    spec, cpu = read_spec(run), torch.device("cpu")
    model = build_model(spec, WholePlacement(cpu, torch.float32), torch.float32)
    forwards: list[int] = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        forwards.append(len(inputs[0]))

    model.register_forward_hook(note)
    assert model.frozen_hash is not None
    features = extract(model, spec, cpu, model.frozen_hash)
    probed = train_heads(features, spec, cpu)
    return {
        "directory": str(features.directory),
        "reused": features.reused,
        "forwards": forwards,
        "train": list(features.train.shape),
        "trials": [(trial.lr_scale, trial.batch_norm, trial.top1) for trial in probed.trials],
        "best": probed.best,
        "losses": probed.losses.tolist(),
        "test": probed.test,
    }


if __name__ == "__main__":
    main()
