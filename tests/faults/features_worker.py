"""One rank that extracts features and trains heads on them.

    python features_worker.py [--die N] [--ask N ...] RUN ...    # under `run_ranks`

--die: the last rank is killed at its fsync N. --ask, for each run: rank 0 is asked to stop at its Nth batch or epoch
(0: it is not).

Several runs in one start, one after the other. Rank 0 leaves RUN/outcome.json; records of failures go to the first.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
from itertools import zip_longest
from pathlib import Path
from typing import Any

from zerofit.launch import failure, group, lifeline
from zerofit.launch.environment import outer_world
from zerofit.plan.files import read_spec
from zerofit.train.pulse import PULSE, Stopped


def main() -> None:
    lifeline.watch()
    world = outer_world(os.environ)
    assert world is not None
    parser = argparse.ArgumentParser()
    parser.add_argument("--die", type=int)
    parser.add_argument("--ask", type=int, action="append", default=[])
    parser.add_argument("runs", type=Path, nargs="+")
    options = parser.parse_args()

    def body() -> None:
        group.join(world, "cpu")
        if options.die is not None and world.rank == world.size - 1:
            die_at(options.die)
        for run, number in zip_longest(options.runs, options.ask, fillvalue=0):
            PULSE.agreed = False
            PULSE.attach(Asking(number if world.rank == 0 else 0))
            outcome = work(run)
            if world.rank == 0:
                (run / "outcome.json").write_text(json.dumps(outcome))
        group.leave()

    failure.guard(world.rank, options.runs[0] / "logs", body)
    failure.finish()


class Asking:
    """Asks to stop at the `number`-th phase, as a signal would."""

    def __init__(self, number: int) -> None:
        self.number, self.phases = number, list[str]()

    def at(self, phase: str) -> None:
        self.phases.append(phase)

    def asked(self) -> bool:
        return 0 < self.number <= len(self.phases)

    def deafen(self) -> None: ...


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
    import torch.distributed as dist
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
    try:
        features = extract(model, spec, cpu, model.frozen_hash)
        probed = train_heads(features, spec, cpu)
    except Stopped:
        phases: list[list[str]] = [[]] * dist.get_world_size()
        assert isinstance(PULSE.listener, Asking)
        dist.all_gather_object(phases, PULSE.listener.phases)
        return {"phases": phases, "forwards": forwards}
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
