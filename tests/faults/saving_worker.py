"""One rank of a start: trains several runs, one after the other, whose saves are made to fail.

    python saving_worker.py CASES.json    # under `run_ranks`; see `Case` in test_saving.py

Rank 0 leaves RUN/outcome.json.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.append(str(Path(__file__).parents[1] / "equivalence"))

from ranks import be_rank
from worker import forget

from zerofit.checkpoint.manifest import newest
from zerofit.config.errors import UserError
from zerofit.launch import worker as product
from zerofit.launch.environment import World
from zerofit.plan.files import read_spec

LIMIT = 100  # seconds for a run, imports included; then every thread's stack is printed and the rank ends
BLOCK = 4096


def main() -> None:
    cases = json.loads(Path(sys.argv[1]).read_text())

    def body(world: World) -> None:
        for case in cases:
            faulthandler.dump_traceback_later(LIMIT, exit=True)
            faults, behind = (by_step(case[kind]) for kind in ("faults", "behind"))
            outcome = train(Path(case["run"]), faults, behind)
            if world.rank == 0:
                (Path(case["run"]) / "outcome.json").write_text(json.dumps(outcome))

    be_rank(Path(sys.argv[1]).parent / "logs", body, LIMIT)


def by_step(faults: dict[str, str] | None) -> dict[int, str]:
    return {int(step): name for step, name in (faults or {}).items()}


def train(run: Path, faults: dict[int, str], behind: dict[int, str]) -> dict[str, Any]:
    """Train one run, with a fault at the save of some steps, or behind training after it."""
    spec = read_spec(run)
    forget()
    product.prepare_engine(spec)
    import torch
    import torch.distributed as dist
    from transformers import TrainerCallback

    from zerofit.checkpoint import memory
    from zerofit.checkpoint.store import RunStore
    from zerofit.data.loader import close
    from zerofit.tasks.loop import prepare

    outcome: dict[str, Any] = {"said": [], "parts": [], "after": {}, "sizes": [], "stopped": None}
    outcome |= {"meanwhile": {}, "memory": None}

    class Faulty(RunStore):
        def commit(self, step: int, value: float | None, parts: Any, **options: Any) -> None:
            def noted(directory: Path, writes: Any, part: Callable[[Path, Any], None]) -> None:
                outcome["parts"].append(step)
                part(directory, writes)

            wrapped = [partial(noted, part=part) for part in parts]
            outcome["sizes"].append(options["size"])
            try:
                with injected(faults.get(step), dist.get_rank(), self.checkpoints, prepared.trainer):
                    super().commit(step, value, wrapped, **options)
            finally:
                if dist.get_rank() == 0:
                    whole = newest(self.checkpoints)
                    outcome["after"][step] = [whole and whole.name, sorted(os.listdir(self.checkpoints))]

        def _say(self, line: str) -> None:
            super()._say(line)
            outcome["said"].append(line)

    let_go = threading.Event()

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if behind.get(state.global_step - 1) == "held" and dist.get_rank() == 0:
                whole = newest(spec.run_dir / "checkpoints")
                outcome["meanwhile"][state.global_step] = whole and whole.name
                let_go.set()

    move = memory.move

    def held_up(source: Path, target: Path) -> None:
        fault = behind.get(int(source.name.removeprefix("checkpoint-")))
        if fault == "held":
            assert let_go.wait(LIMIT)
        with files_up_to(BLOCK) if fault == "fails" else nullcontext():
            move(source, target)

    store = Faulty(spec)
    prepared = prepare(spec, torch.device("cpu"), store)
    prepared.trainer.add_callback(Watch())
    try:
        with patch.object(memory, "move", held_up):
            prepared.trainer.train()
            store.finish()
    except UserError as error:
        outcome["stopped"] = str(error)
    finally:
        close(prepared.job.train_loader())
        store.close()
    outcome["memory"] = [path.name for path in memory.sweep()]
    return outcome


def injected(fault: str | None, rank: int, checkpoints: Path, trainer: Any) -> AbstractContextManager[Any]:
    """The fault of this name on this rank."""
    match fault:
        case "rank 0 writes" | "rank 1 writes" if rank == int(fault[5]):
            return files_up_to(2 * BLOCK)
        case "rank 1 writes nothing" if rank == 1:
            return files_up_to(0)
        case "fills" if rank == 0:
            return filled_before_commit(checkpoints)
        case "full":
            return filled(checkpoints, leave=4 * BLOCK) if rank == 0 else nullcontext()
        case "amid" if rank == 1:
            return patch.object(trainer.model_wrapped.optimizer, "state_dict", side_effect=MemoryError("no more"))
    return nullcontext()


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """The kernel lets this process write no file further."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@contextmanager
def filled(checkpoints: Path, leave: int = 0) -> Iterator[None]:
    """All of the drive is taken, but `leave` bytes."""
    ballast = checkpoints / "ballast"
    with ballast.open("wb", buffering=0) as file:
        with suppress(OSError):
            while True:
                file.write(bytes(BLOCK))
        file.truncate(file.tell() // BLOCK * BLOCK - leave)
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def filled_before_commit(checkpoints: Path) -> Iterator[None]:
    """All of the drive is taken when everything is written but the manifest."""
    from zerofit.checkpoint import store

    commit = store.commit

    def commit_when_full(*arguments: Any) -> Path:
        with filled(checkpoints):
            return commit(*arguments)

    with patch.object(store, "commit", commit_when_full):
        yield


if __name__ == "__main__":
    main()
