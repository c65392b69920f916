"""Trainer of the task grpo: TRL's GRPOTrainer; completions come from `roll_out`, by way of its `rollout_func`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from datasets import Dataset
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, TrainerCallback
from trl import GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

from zerofit.generate.completion import Completion, as_text
from zerofit.generate.mode import evaluating
from zerofit.models.trained import TrainedModel
from zerofit.plan.spec import RunSpec
from zerofit.train.arguments import grpo_arguments
from zerofit.train.engine import Engine
from zerofit.train.job import Job, Store
from zerofit.train.pulse import PULSE
from zerofit.train.sft_trainer import Quiet
from zerofit.train.trainer import RunTrainer

Rows = Sequence[dict[str, Any]]
RollOut = Callable[[Any, Rows], list[Completion]]
"""Completes rows of the loader with the plain model; not collective."""
Ask = Callable[[str, dict[str, Any], str], float]
"""One reward of a completion, its row, and what messages call that row."""
FIGURES = {
    "reward": "reward",
    "reward_std": "reward_std",
    "frac_reward_zero_std": "reward_alike",
    "entropy": "entropy",
    "kl": "kl",
    "completions/mean_length": "completion_length",
    "completions/max_length": "completion_length_max",
    "completions/clipped_ratio": "clipped",
    "clip_ratio/region_mean": "clip_ratio",
    "sampling/sampling_logp_difference/mean": "logprob_difference",
    "sampling/sampling_logp_difference/max": "logprob_difference_max",
    "generate_s": "generate_s",
}


class GrpoTrainer(Quiet, RunTrainer, GRPOTrainer):
    """Trains on completions of its own, by what they are worth."""

    def __init__(
        self,
        spec: RunSpec,
        engine: Engine,
        model: TrainedModel,
        job: Job,
        store: Store,
        callbacks: list[TrainerCallback],
        tokenizer: PreTrainedTokenizerBase,
        roll_out: RollOut,
        rewards: Sequence[tuple[str, Ask]],
        reference: TrainedModel | None,
    ) -> None:
        self.roll_out, self.generate_s = roll_out, 0.0
        self._text, self._names = tokenizer, [name for name, _ in rewards]
        self._rows: Rows = ()
        self._asked: Rows = ()
        self._made: list[Completion] = []
        self.figures = FIGURES | {f"rewards/{name}/mean": f"reward/{name}" for name, _ in rewards}
        stops = spec.text.stops
        super().__init__(
            spec,
            engine,
            model,
            job,
            store,
            callbacks,
            grpo_arguments(spec, engine),
            reward_funcs=[_as_reward(name, ask, tokenizer, stops) for name, ask in rewards],
            train_dataset=Dataset.from_dict({"prompt": [""]}),  # TRL asks for them; see `get_train_dataloader`
            eval_dataset=Dataset.from_dict({"prompt": [""]}),
            processing_class=tokenizer,
            rollout_func=lambda prompts, _: self._complete(prompts),
        )
        assert spec.recipe.grpo is not None
        # TRL would load the reference by the name of a model; here it begins where the policy begins.
        self.beta = spec.recipe.grpo.beta
        if self.beta:
            former: Any = WithoutAdapters(self) if reference is None else Reference(reference, engine, self.temperature)
            self.ref_model = former

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """As TRL's; remembers the rows whose completions it will ask for."""
        rows: Any = inputs  # the loader's, which TRL turns into tensors
        self._rows = rows
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As TRL's, with the seconds of generation since the line before."""
        if "loss" in logs:
            logs["generate_s"], self.generate_s = round(self.generate_s, 3), 0.0
        super().log(logs, start_time)

    def tokens_seen(self) -> float:
        """Tokens of prompts and completions that all ranks have trained on."""
        return float(self.state.num_input_tokens_seen)

    def generation(self) -> list[dict[str, Any]]:
        """What this rank wrote last, and what it was worth: the columns of completions.parquet."""
        logs: Any = self._logs
        first = self.accelerator.process_index * len(self._made)
        return [
            {
                "step": self.state.global_step,
                "prompt": as_text(self._text, row["tokens"], ()),
                "completion": as_text(self._text, one.tokens, self.spec.text.stops),
                "answer": None if row["row"].get("answer") is None else str(row["row"]["answer"]),
                **{f"reward/{name}": logs["rewards"][name][first + number] for name in self._names},
                "advantage": logs["advantages"][first + number],
                "tokens": len(one.tokens),
                "stopped": one.stopped,
            }
            for number, (row, one) in enumerate(zip(self._asked, self._made, strict=True))
        ]

    def _complete(self, prompts: list[str]) -> dict[str, list[Any]]:
        rows = self._rows
        assert [row["prompt"] for row in rows] == prompts
        PULSE.at(f"step {self.state.global_step + 1}: generating")
        started = time.perf_counter()
        if self.use_vllm:
            made = self._by_vllm(rows)
        else:
            with self.engine.rollout(self.model_wrapped) as model:
                made = self.roll_out(model, rows)
            self.engine.settle(self.model_wrapped)
        self._asked, self._made = rows, made
        self.generate_s += time.perf_counter() - started
        return {
            "prompt_ids": [row["tokens"] for row in rows],
            "completion_ids": [one.tokens for one in made],
            "logprobs": [one.logprobs for one in made],
        }

    def _by_vllm(self, rows: Rows) -> list[Completion]:
        """TRL has given it the newest weights. Collective; seeds are vLLM's own, log-probabilities those after cuts."""
        asked = [row["tokens"] for row in rows]
        _, tokens, logprobs, _ = self.vllm_generation.generate(
            prompts=asked, images=None, num_generations=self.num_generations or 1
        )
        stops = self.spec.text.stops
        return [
            Completion(list(one), [token[0] for token in logs], one[-1] in stops)
            for one, logs in zip(tokens, logprobs, strict=True)
        ]


class Reference(nn.Module):
    """A model of its own, as the policy began; whole while it is asked."""

    def __init__(self, model: TrainedModel, engine: Engine, temperature: float) -> None:
        super().__init__()
        self._model, self._engine = (model,), engine  # in a tuple: its weights are not the policy's to save
        model.requires_grad_(False)
        add_fused_lm_head(model.family, temperature=temperature)

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """As the policy's. Collective."""
        (model,) = self._model
        with evaluating(model), self._engine.whole(model), self._engine.autocast():
            return model(*arguments, **options)


class WithoutAdapters(nn.Module):
    """The policy as it began: its adapters are off."""

    def __init__(self, trainer: RunTrainer) -> None:
        super().__init__()
        self._trainer = (trainer,)  # in a tuple: it is no module of this one

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """As the policy's."""
        (trainer,) = self._trainer
        with adapters_off(trainer.classifier):
            return trainer.model_wrapped(*arguments, **options)


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Adapters of `model` do nothing here; they stay trainable, and whatever listens to them stays.

    Trainable here as well: FSDP2 reads at its first forward, which may be one of these, in which type gradients come.
    """
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def enable(on: bool) -> None:
        for layer in layers:
            layer.enable_adapters(on)
        for parameter in trained:
            parameter.requires_grad_(True)

    enable(False)
    try:
        yield
    finally:
        enable(True)


def _as_reward(name: str, ask: Ask, tokenizer: PreTrainedTokenizerBase, stops: Sequence[int]) -> Any:
    """A reward as TRL calls it, with everything of all rows at once."""

    def reward(completion_ids: list[list[int]], row: list[dict[str, Any]], where: list[str], **_: Any) -> list[float]:
        return [
            ask(as_text(tokenizer, tokens, stops), {**one, "completion_tokens": len(tokens)}, place)
            for tokens, one, place in zip(completion_ids, row, where, strict=True)
        ]

    reward.__name__ = name
    return reward
