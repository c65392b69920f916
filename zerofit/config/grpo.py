"""`grpo:` in a recipe: how completions are sampled, what they are worth, and how the policy learns from that."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from zerofit.config.ranges import NO_BOOL, AboveZero, Count, Fraction, NonNegative, Positive
from zerofit.config.reward import Rewards
from zerofit.config.section import Section


class Sampling(Section):
    """How tokens are drawn."""

    temperature: NonNegative = 1.0
    """Divides the logits; 0 takes the likeliest token."""
    top_p: AboveZero = 1.0
    """Draw from the likeliest tokens that make up this probability; 1: from all."""
    top_k: Annotated[int, Field(ge=0), NO_BOOL] = 0
    """Draw from so many of the likeliest tokens; 0: from all."""
    max_tokens: Count = 256
    """Tokens of a completion at most."""

    @model_validator(mode="after")
    def _shares(self) -> Sampling:
        if self.top_p > 1:
            raise ValueError(f"top_p is a probability, at most 1, not {self.top_p:g}")
        return self


class Rollout(Section):
    """What completions come from."""

    engine: Literal["auto", "graph", "hf", "vllm"] = "auto"
    """graph (static KV cache, decoding captured as a CUDA graph), hf (transformers' generate), vllm (the package);
    auto: vllm where it is installed and there is a GPU, else graph."""
    batch: Count | None = None
    """Completions decoded at once on a rank; null: as many as a rank has to make."""
    vllm: Literal["colocate", "server"] = "colocate"
    """colocate: in the ranks' own processes, asleep while they train. server: `vllm serve` at `server`, with the flags
    that TRL's vLLM guide names."""
    vllm_memory: Fraction = 0.3
    """colocate: share of a GPU's memory that vLLM may take."""
    server: str = "http://localhost:8000"
    """server: its address."""


class Grpo(Section):
    """The task grpo (Shao et al. 2024, arXiv:2402.03300), by TRL's GRPOTrainer."""

    rewards: Rewards
    """What a completion is worth: names with weights (docs/rewards.md)."""
    num_generations: Annotated[int, Field(ge=2), NO_BOOL] = 8
    """Completions of each prompt, which are compared with each other."""
    num_generations_eval: Count | None = None
    """The same in evaluation, a divisor of evaluate.micro_batch x ranks; null: the largest that divides num_generations
    too."""
    steps_per_generation: Count | None = None
    """Micro-batches made of one generation, a divisor of the accumulation; null: the accumulation itself. Micro-batch x
    ranks x this is a multiple of num_generations."""
    num_iterations: Count = 1
    """Passes over each generation; 1 for now: more would outlast the optimizer step, and no checkpoint keeps
    completions."""
    loss: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo"] = "dapo"
    """How tokens are averaged and ratios are clipped, by TRL's names."""
    beta: NonNegative = 0.0
    """Weight of the reverse KL to the reference: the model at the start, or without its adapters. 0: no reference."""
    epsilon: Positive = 0.2
    """Clipping of the probability ratio: at 1 - epsilon and 1 + epsilon."""
    epsilon_high: Positive | None = None
    """Another upper one (DAPO: 0.28); null: epsilon."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Standard deviation that advantages are divided by: of a prompt's completions, of all, or none (Dr. GRPO)."""
    mask_truncated: bool = False
    """Leave completions that reached max_tokens out of the loss."""
    sampling: Sampling = Sampling()
    """How completions are drawn."""
    rollout: Rollout = Rollout()
    """What they come from."""
    log_completions: Count = 16
    """Completions of each generation that completions.parquet keeps."""
