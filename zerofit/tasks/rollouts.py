"""Training on completions of the policy's own: what the task grpo puts into the loop."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from transformers import PreTrainedTokenizerBase, TrainerCallback

from zerofit.config.grpo import Grpo
from zerofit.data.contents import SplitName
from zerofit.data.loader import Loader
from zerofit.data.prompt_loader import PromptOrder, prompt_loader
from zerofit.data.samples import open_prompts
from zerofit.data.tokenizer import load_tokenizer
from zerofit.generate.completion import Completion, as_text
from zerofit.generate.generator import Generator, make_generator
from zerofit.models.build import build_model
from zerofit.models.trained import TrainedModel
from zerofit.plan.seeds import seed_of
from zerofit.plan.spec import GrpoSizes, RunSpec
from zerofit.tasks.kept_completions import KeptCompletions
from zerofit.tasks.loop import Prepared, Work
from zerofit.tasks.rewards import Rewards
from zerofit.tasks.vllm_model import loadable
from zerofit.train.engine import Engine
from zerofit.train.grpo_trainer import GrpoTrainer, Rows
from zerofit.train.job import Store
from zerofit.train.parting import BEFORE
from zerofit.train.pulse import PULSE
from zerofit.train.trainer import RunTrainer

SOLVED = "math_correct"
"""The reward that says whether a problem is solved."""


class RolloutJob:
    """The prompts of one rank, and what completes and judges them."""

    def __init__(self, spec: RunSpec, engine: Engine) -> None:
        self.spec, self.engine, self.settings, self.sizes = spec, engine, *grpo_of(spec)
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(spec.recipe)
        self.rewards = Rewards(self.settings.rewards)
        prompts = open_prompts(spec.text, "train")
        rank, ranks = dist.get_rank(), dist.get_world_size()
        for index in range(rank, len(prompts), ranks):
            self.rewards.check(prompts[index].row, prompts[index].where)
        self.order = PromptOrder(len(prompts), spec.batches, self.sizes, spec.recipe.train.seed, rank)
        self.loader = prompt_loader(prompts, self.order, spec.recipe.train.seed)
        at_once = self.settings.rollout.batch
        self.generator = self._generator(at_once)
        self.evaluating = self._generator(at_once or max(spec.batches.evaluate_micro, self.sizes.completions // ranks))

    def _generator(self, batch: int | None) -> Generator:
        chosen = "hf" if self.spec.rollout_engine == "hf" else "graph"  # vllm is for training alone
        return make_generator(chosen, self.engine.device, self.spec.text.pad, self.spec.text.stops, batch)  # type: ignore[arg-type]

    def train_loader(self) -> Loader:
        """This rank's rows of an epoch's generations."""
        return self.loader

    def seek(self, step: int) -> None:
        """Make the next pass over the loader begin after `step` optimizer steps of the run."""
        self.order.seek(*divmod(step, self.spec.batches.steps_per_epoch))

    def roll_out(self, model: Any, rows: Rows) -> list[Completion]:
        """A completion of each row, in the order of the rows."""
        return self.generator(
            model,
            [row["tokens"] for row in rows],
            [row["seed"] for row in rows],
            self.settings.sampling,
            lambda done: PULSE.at(f"generating: {done} of {len(rows)} completions"),
        )

    def validate(self, model: nn.Module) -> dict[str, float]:
        """reward, its parts, pass@1 and lengths over the validation split. Collective."""
        return self.judge(model, "validation")

    def say(self, figures: Mapping[str, float]) -> str:
        """reward, and how many problems are solved."""
        solved = f", pass@1 {figures['pass@1']:.2%}" if "pass@1" in figures else ""
        return f"reward {figures['reward']:.4f}{solved}, {figures['completion_length']:,.0f} tokens"

    def judge(self, wrapped: nn.Module, split: SplitName) -> dict[str, float]:
        """Figures of `num_generations_eval` completions of each prompt of a split. Collective."""
        prompts, copies = open_prompts(self.spec.text, split), self.sizes.num_generations_eval
        ranks, seed = dist.get_world_size(), self.spec.recipe.train.seed
        mine = [(index, copy) for index in range(len(prompts)) for copy in range(copies)][dist.get_rank() :: ranks]
        rows = [prompts[index] for index, _ in mine]
        seeds = [seed_of(seed, f"{split} {index} {copy}") for index, copy in mine]
        PULSE.leave_if_asked(f"evaluation, {split}")
        with self.engine.rollout(wrapped) as model:
            made = self.evaluating(model, [row.tokens.tolist() for row in rows], seeds, self.settings.sampling)
        names = [reward.name for reward in self.settings.rewards]
        sums = torch.zeros(4 + len(names), dtype=torch.float64, device=self.engine.device)
        for prompt, one in zip(rows, made, strict=True):
            text = as_text(self.tokenizer, one.tokens, self.spec.text.stops)
            score = self.rewards.score(text, {**prompt.row, "completion_tokens": len(one.tokens)}, prompt.where)
            parts = [score.parts[name] for name in names]
            found = [1.0, score.total, len(one.tokens), float(not one.stopped), *parts]
            sums += torch.tensor(found, dtype=torch.float64, device=sums.device)
        dist.all_reduce(sums)
        count, reward, tokens, cut, *parts = sums.tolist()
        figures = {"reward": reward / count, "completion_length": tokens / count, "clipped": cut / count}
        figures |= {f"reward/{name}": part / count for name, part in zip(names, parts, strict=True)}
        if SOLVED in names:
            figures["pass@1"] = figures[f"reward/{SOLVED}"]
        return figures


class RolloutWork(Work):
    """Training on completions."""

    def job(self, spec: RunSpec, engine: Engine) -> RolloutJob:
        return RolloutJob(spec, engine)

    def trainer(
        self,
        spec: RunSpec,
        engine: Engine,
        model: TrainedModel,
        job: RolloutJob,
        store: Store,
        callbacks: list[TrainerCallback],
    ) -> RunTrainer:
        make = partial(GrpoTrainer, spec, engine, model, job, store, callbacks, job.tokenizer, job.roll_out)
        colocated = spec.rollout_engine == "vllm" and job.settings.rollout.vllm == "colocate"
        with loadable(spec, engine, model, job.tokenizer) if colocated else nullcontext():
            trainer = make(job.rewards.functions(), reference_of(spec, engine))
        if colocated:
            BEFORE.append(trainer.vllm_generation.llm.llm_engine.engine_core.shutdown)
        weights = {reward.name: reward.weight for reward in job.settings.rewards}
        trainer.add_callback(KeptCompletions(spec.run_dir, trainer, weights, job.settings.log_completions))
        return trainer

    def flops(self, model: TrainedModel) -> None:
        """Completions are as long as they come."""

    def test(self, run: Prepared) -> dict[str, Any]:
        split: SplitName = "test" if run.spec.text.test else "validation"
        figures = run.job.judge(run.trainer.model_wrapped, split)
        run.trainer.engine.settle(run.trainer.model_wrapped)
        return {"split": split, "problems": getattr(run.spec.text, split), **figures}

    def outcome(self, run: Prepared) -> dict[str, Any]:
        return {}


def reference_of(spec: RunSpec, engine: Engine) -> TrainedModel | None:
    """The model as the run began, where the KL is to it; null where none is asked for, or adapters can be put off."""
    if spec.recipe.model.lora is not None or not grpo_of(spec)[0].beta:
        return None
    return build_model(spec, engine.placement(), engine.compute_dtype)


def grpo_of(spec: RunSpec) -> tuple[Grpo, GrpoSizes]:
    """The settings and sizes of the task."""
    assert spec.recipe.grpo is not None
    assert spec.grpo is not None
    return spec.recipe.grpo, spec.grpo
