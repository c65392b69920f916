"""One rank of a start: trains several runs, one after the other, in one process group.

    python worker.py WORKS.json    # under `starts.run_together`; see `Work` there

Each run takes the product's own way, from its run.json on. Between runs, what accelerate, transformers and DeepSpeed
keep for a process is dropped. Rank 0 leaves RUN/outcome.json.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ranks import be_rank

from zerofit.launch import worker as product
from zerofit.launch.environment import World
from zerofit.plan import fused
from zerofit.plan.files import read_spec
from zerofit.plan.spec import RunSpec
from zerofit.train.pulse import PULSE, Stopped

LIMIT = 300  # seconds for a run, imports included; then every thread's stack is printed and the rank ends


def main() -> None:
    works = json.loads(Path(sys.argv[1]).read_text())

    def body(world: World) -> None:
        for work in works:
            faulthandler.dump_traceback_later(LIMIT, exit=True)
            with counted_fused_calls() as counted:
                outcome = train(work) | {"fused_calls": counted[0]}
            if world.rank == 0:
                (Path(work["run"]) / "outcome.json").write_text(json.dumps(outcome))

    be_rank(Path(sys.argv[1]).parent / "logs", body, LIMIT)


def train(work: dict[str, Any]) -> dict[str, Any]:
    """Train one run. Only WrongEngine is an outcome; all other errors end the start."""
    spec = read_spec(Path(work["run"]))
    forget()
    product.prepare_engine(spec)
    fused.DEVICES = {"cuda", "cpu"} if work["fused"] else {"cuda"}
    from zerofit.tasks import TASKS
    from zerofit.train.engine import WrongEngine

    if work["rewrite"] is not None:
        from zerofit.tasks.rewriting import rewrite

        rewrite(spec, spec, Path(work["rewrite"]))
        return {}
    if work["whole"]:
        from cad_task import synthetic_cad
        from collectives import recorded_collectives
        from recorded import recorded_rollouts
        from uneven import uneven_models

        resume = None if work["resume"] is None else Path(work["resume"])
        PULSE.__init__()  # type: ignore[misc]  # as a new process has it
        if work["ask"] is not None:
            PULSE.attach(AskingAt(work["ask"]))
        try:
            with (
                saved_as_taken_over() if work["resave"] else nullcontext(),
                uneven_models() if work["uneven"] else nullcontext(),
                recorded_rollouts() if work["recorded"] else nullcontext(),
                synthetic_cad() if work["synthetic"] else nullcontext(),
                recorded_collectives(spec.run_dir) if work["collectives"] else nullcontext(),
            ):
                return TASKS[spec.recipe.task].train(spec, resume)
        except Stopped:
            return {"stopped": True}
    try:
        return train_without_checkpoints(spec, work["swap"], work["mutations"])
    except WrongEngine as error:
        return {"wrong_engine": str(error)}


class AskingAt:
    """Asks to stop at a phase of rank 1, as a signal would."""

    def __init__(self, phase: str) -> None:
        self.phase, self.seen = phase, False

    def at(self, phase: str) -> None:
        self.seen = self.seen or (os.environ["RANK"] == "1" and phase == self.phase)

    def asked(self) -> bool:
        return self.seen

    def deafen(self) -> None: ...


def train_without_checkpoints(spec: RunSpec, swap: bool, mutations: list[str]) -> dict[str, Any]:
    """`Classify.train`, less its checkpoints."""
    import torch
    from mutations import MUTATIONS
    from transformers.trainer_utils import SaveStrategy

    from zerofit.data.loader import close
    from zerofit.tasks.loop import prepare

    with plain_ddp() if swap else nullcontext():
        run = prepare(spec, torch.device("cpu"), NoStore())
    run.trainer.args.save_strategy = SaveStrategy.NO
    try:
        with ExitStack() as stack:
            for name in mutations:
                stack.enter_context(MUTATIONS[name](run.trainer))
            run.trainer.train()
    finally:
        close(run.job.train_loader())
    engine = engine_of(run.trainer.model_wrapped, run.trainer.optimizer)
    return {"test": run.test(), "engine": engine}


@contextmanager
def counted_fused_calls() -> Iterator[list[int]]:
    """How often torch's fused AdamW is called meanwhile."""
    import torch

    fused, calls = torch._fused_adamw_, [0]

    def counted(*tensors: Any, **options: Any) -> None:
        calls[0] += 1
        fused(*tensors, **options)

    with patch.object(torch, "_fused_adamw_", counted):
        yield calls


@contextmanager
def plain_ddp() -> Iterator[None]:
    """Make of fsdp2 what accelerate makes of it on a CPU: DDP, without a word, with the same losses."""
    from zerofit.train.fsdp2 import FullyShard
    from zerofit.train.strategy import Replicated

    with (
        patch.object(FullyShard, "placement", Replicated.placement),
        patch.object(FullyShard, "adopt", Replicated.adopt),
    ):
        yield


@contextmanager
def saved_as_taken_over() -> Iterator[None]:
    """Write a checkpoint right after the state of another engine's, or of another program's, was taken over."""
    from zerofit.checkpoint import foreign_resume, takeover
    from zerofit.tasks import loop

    def take_over(trainer: Any, checkpoint: Path) -> None:
        takeover.take_over(trainer, checkpoint)
        trainer._save_checkpoint(trainer.model_wrapped, None)

    def take_up(trainer: Any) -> None:
        foreign_resume.take_up(trainer)
        trainer._save_checkpoint(trainer.model_wrapped, None)

    with patch.object(loop, "take_over", take_over), patch.object(loop, "take_up", take_up):
        yield


class NoStore:
    """Where no checkpoint is written."""

    def commit(self, *arguments: Any, **options: Any) -> None:
        raise AssertionError("nothing is to be saved")


def engine_of(wrapped: Any, optimizer: Any) -> dict[str, Any]:
    """What ran, told by types and sizes alone: not by what `Engine.verify` looks at."""
    zero = type(wrapped).__name__ == "DeepSpeedEngine"
    outer = optimizer.optimizer  # accelerate's wrapper holds it
    inner = outer.optimizer if zero else outer
    first = "exp_avg" if type(inner).__name__ == "AdamW" else "momentum_buffer"
    moments = [state[first] for state in inner.state.values()]
    local = [moment.to_local() if type(moment).__name__ == "DTensor" else moment for moment in moments]
    if zero and wrapped.zero_optimization_stage() == 3:
        kinds = {"partitioned" if parameter.ds_tensor is not None else "whole" for parameter in wrapped.parameters()}
    else:
        kinds = {type(parameter.data).__name__ for parameter in wrapped.parameters()}
    return {
        "model": type(wrapped).__name__,
        "zero_stage": wrapped.zero_optimization_stage() if zero else None,
        "parameters": " ".join(sorted(kinds)),
        "optimizer": type(outer).__name__,
        "moments": sum(moment.numel() for moment in local),
    }


def forget() -> None:
    """Drop what a run before left behind in this process."""
    from accelerate.state import AcceleratorState, GradientState
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        del os.environ[name]
    unset_hf_deepspeed_config()
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    gc.collect()
    gc.freeze()  # what is left stays; each later collection, and Trainer asks for some, would look through it


if __name__ == "__main__":
    main()
