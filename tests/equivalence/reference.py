"""The oracle: one process, plain PyTorch, each formula written again. Nothing of train/ or tasks/ is used.

It shares with the product the model (whole, float32), the images, and the permutation of an epoch's samples.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import torch
from recorded import tokens_of, worth
from torch import Tensor, nn

from zerofit.data.images import open_split
from zerofit.data.order import permutation
from zerofit.data.samples import Sample, open_prompts, open_samples
from zerofit.models.build import build_model
from zerofit.models.placement import WholePlacement
from zerofit.plan.rules import rules_of
from zerofit.plan.seeds import seed_of
from zerofit.plan.spec import RunSpec

CPU = torch.device("cpu")


@dataclass
class Curve:
    """What a run showed: a value for each step, and the loss over the test split at the end."""

    loss: list[float] = field(default_factory=list)
    grad_norm: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    test_loss: float = math.nan
    elements: int = 0
    """Of all trained parameters."""
    weights: dict[str, Tensor] = field(default_factory=dict)
    """The trained parameters at the end."""


def reference(spec: RunSpec, micro: int) -> Curve:
    """Train `spec` with `micro` samples a forward (its own micro-batches, accumulation and ranks are not looked at).

    A model with BatchNorm needs the run's own micro-batch; its running statistics are those of the run's rank 0.
    """
    recipe, sizes = spec.recipe, spec.batches
    model = build_model(spec, WholePlacement(CPU, torch.float32), torch.float32)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = optimizer_of(spec, groups(model, spec))
    pixels, labels = samples(spec, "train")
    curve = Curve(elements=sum(parameter.numel() for parameter in trained))
    for step in range(sizes.total_steps):
        epoch, place = divmod(step, sizes.steps_per_epoch)
        order = permutation(spec.data.train, recipe.train.seed, epoch)
        chosen = torch.from_numpy(order[place * sizes.global_batch : (place + 1) * sizes.global_batch])
        factor = schedule(recipe.optimizer.schedule, step, sizes.warmup_steps, sizes.total_steps)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        losses = []
        for number, part in enumerate(chosen.split(micro)):
            statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
            loss = cross_entropy(model(pixels[part]), labels[part]) * (len(part) / len(chosen))
            loss.backward()
            if number % sizes.ranks:  # seen by another rank than the first
                for name, buffer in model.named_buffers():
                    buffer.copy_(statistics[name])
            losses.append(loss.item())
        norm = nn.utils.clip_grad_norm_(trained, recipe.optimizer.clip_grad or math.inf)
        optimizer.step()
        optimizer.zero_grad()
        curve.loss.append(sum(losses))
        curve.grad_norm.append(norm.item())
        curve.lr.append(spec.lr * factor)
    model.eval()
    with torch.no_grad():
        pixels, labels = samples(spec, "test")
        curve.test_loss = cross_entropy(model(pixels), labels).item()
    named = model.named_parameters()
    curve.weights = {name: parameter.detach() for name, parameter in named if parameter.requires_grad}
    return curve


def samples(spec: RunSpec, split: str) -> tuple[Tensor, Tensor]:
    """All of a split, normalised: pixels float32 [N, 3, S, S], labels int64 [N]."""
    data = spec.recipe.data
    images = open_split(data, spec.data, split, spec.recipe.train.seed)
    pixels = torch.stack([images[index][0] for index in range(len(images))]).float() / 255
    labels = torch.tensor([images[index][1] for index in range(len(images))])
    return (pixels - torch.tensor(data.mean).view(3, 1, 1)) / torch.tensor(data.std).view(3, 1, 1), labels


def language_model(spec: RunSpec) -> nn.Module:
    """The run's model; weights in 4 bits are bitsandbytes' own layers, made of the weights of the plain model."""
    quantised = spec.recipe.language_model.quantize is not None
    if quantised:
        plain = spec.recipe.model.model_copy(update={"quantize": None})
        spec = spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"model": plain})})
    model = build_model(spec, WholePlacement(CPU, torch.float32), torch.float32)
    if quantised:
        for block in model.blocks:
            for name, module in list(block.named_modules()):
                if type(module) is nn.Linear and ".lora_" not in name:
                    owner, _, leaf = name.rpartition(".")
                    setattr(block.get_submodule(owner), leaf, in_4_bits(module))
    return model


def in_4_bits(plain: nn.Linear) -> nn.Module:
    """bitsandbytes' layer, of the same weights."""
    import bitsandbytes as bnb

    shape, bias = (plain.in_features, plain.out_features), plain.bias is not None
    layer = bnb.nn.Linear4bit(*shape, bias=bias, compute_dtype=torch.float32, quant_type="nf4")
    layer.load_state_dict(plain.state_dict())
    layer.support_avx512bf16_for_cpu = False  # would compute in bf16 in evaluation
    return layer.to("cpu").requires_grad_(False)


def language_reference(spec: RunSpec) -> Curve:
    """Train a language model row by row, each alone: no padding, no packs, no accumulation and no ranks.

    The loss is the sum over all tokens that are learnt in the global batch, divided by their number.
    """
    sizes = spec.batches
    model = language_model(spec)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = optimizer_of(spec, groups(model, spec))
    samples = open_samples(spec.text, "train")
    curve = Curve(elements=sum(parameter.numel() for parameter in trained))
    for step in range(sizes.total_steps):
        epoch, place = divmod(step, sizes.steps_per_epoch)
        order = permutation(spec.text.train, spec.recipe.train.seed, epoch)
        batch = order[place * sizes.global_batch : (place + 1) * sizes.global_batch].tolist()
        factor = schedule(spec.recipe.optimizer.schedule, step, sizes.warmup_steps, sizes.total_steps)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        rows = [row for sample in batch for row in rows_of(samples[sample])]
        targets = sum(int(learnt[1:].sum()) for _, learnt in rows)
        loss = 0.0
        for tokens, learnt in rows:
            part = row_loss(model, tokens, learnt) / targets
            part.backward()
            loss += part.item()
        norm = nn.utils.clip_grad_norm_(trained, spec.recipe.optimizer.clip_grad or math.inf)
        optimizer.step()
        optimizer.zero_grad()
        curve.loss.append(loss)
        curve.grad_norm.append(norm.item())
        curve.lr.append(spec.lr * factor)
    model.eval()
    rows = [row for sample in open_samples(spec.text, "test") for row in rows_of(sample)]
    with torch.no_grad():
        total = sum(row_loss(model, *row).item() for row in rows)
    curve.test_loss = total / sum(int(learnt[1:].sum()) for _, learnt in rows)
    named = model.named_parameters()
    curve.weights = {name: parameter.detach() for name, parameter in named if parameter.requires_grad}
    return curve


def rollout_reference(spec: RunSpec) -> Curve:
    """GRPO on recorded completions, each alone: DAPO's loss, advantages within the completions of a prompt, KL to the
    weights of the beginning, whose gradient is that of the reverse KL (DeepSeek-V3.2, arXiv:2512.02556).
    """
    sizes, grpo = spec.batches, spec.recipe.grpo
    assert grpo is not None
    copies, temperature = grpo.num_generations, grpo.sampling.temperature
    model, former = language_model(spec), language_model(spec)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = optimizer_of(spec, groups(model, spec))
    prompts = open_prompts(spec.text, "train")
    curve = Curve()
    for step in range(sizes.total_steps):
        epoch, place = divmod(step, sizes.steps_per_epoch)
        order = permutation(spec.text.train, spec.recipe.train.seed, epoch)
        count = sizes.global_batch // copies
        chosen = order[place * count : (place + 1) * count].tolist()
        factor = schedule(spec.recipe.optimizer.schedule, step, sizes.warmup_steps, sizes.total_steps)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        made: list[tuple[list[int], list[int], float]] = []  # prompt, completion, advantage
        for index in chosen:
            seeds = [seed_of(spec.recipe.train.seed, f"{epoch} {index} {copy}") for copy in range(copies)]
            completions = [tokens_of(seed) for seed in seeds]
            rewards = torch.tensor([float(worth("".join(map(chr, one)), {})) for one in completions])
            advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
            prompt = prompts[index].tokens.tolist()
            made += [(prompt, one, advantage) for one, advantage in zip(completions, advantages.tolist(), strict=True)]
        total, loss = sum(len(completion) for _, completion, _ in made), 0.0
        for prompt, completion, advantage in made:
            logs = log_probabilities(model, prompt, completion, temperature)
            with torch.no_grad():
                before = log_probabilities(former, prompt, completion, temperature)
            ratio = (logs - logs.detach()).exp()
            distance = ratio * ((before - logs).exp() - (before - logs) - 1)
            part = (-advantage * ratio + grpo.beta * distance).sum() / total
            part.backward()
            loss += part.item()
        norm = nn.utils.clip_grad_norm_(trained, spec.recipe.optimizer.clip_grad or math.inf)
        optimizer.step()
        optimizer.zero_grad()
        curve.loss.append(loss)
        curve.grad_norm.append(norm.item())
        curve.lr.append(spec.lr * factor)
    named = model.named_parameters()
    curve.weights = {name: parameter.detach() for name, parameter in named if parameter.requires_grad}
    return curve


def log_probabilities(model: nn.Module, prompt: list[int], completion: list[int], temperature: float) -> Tensor:
    """Of each token of the completion."""
    tokens = torch.tensor(prompt + completion)
    logs = (model(input_ids=tokens[None, :-1]).logits[0] / temperature).log_softmax(dim=1)
    return logs[torch.arange(len(tokens) - 1), tokens[1:]][len(prompt) - 1 :]


def rows_of(sample: Sample) -> list[tuple[Tensor, Tensor]]:
    """(tokens, which of them are learnt) of each row in a sample."""
    sizes = list(sample.lengths)
    tokens = torch.from_numpy(sample.tokens.astype("int64")).split(sizes)
    return list(zip(tokens, torch.from_numpy(sample.learnt.copy()).split(sizes), strict=True))


def row_loss(model: nn.Module, tokens: Tensor, learnt: Tensor) -> Tensor:
    """Minus the log-probability of the tokens that are learnt, each after those before it, added up."""
    logs = model(input_ids=tokens[None, :-1]).logits[0].log_softmax(dim=1)
    return -logs[torch.arange(len(tokens) - 1), tokens[1:]][learnt[1:]].sum()


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the samples of minus the log-probability of the right class."""
    return -logits.log_softmax(dim=1)[torch.arange(len(labels)), labels].mean()


def schedule(name: str, step: int, warmup: int, total: int) -> float:
    """Factor on the peak learning rate at the step that is `step` steps after the first."""
    if step < warmup:
        return step / warmup
    done = (step - warmup) / (total - warmup)
    return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[name]


def optimizer_of(spec: RunSpec, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The recipe's optimizer over `groups`."""
    settings = spec.recipe.optimizer
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, betas=settings.betas, eps=settings.eps)
    if settings.name == "sgd":
        return torch.optim.SGD(groups, momentum=settings.momentum)
    return PlainLars(groups, {"momentum": settings.momentum, "trust": settings.trust_coefficient})


class PlainLars(torch.optim.Optimizer):
    """LARS over whole parameters: matrices alone are decayed and scaled."""

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                update = p.grad
                if p.ndim > 1:
                    update = update + group["weight_decay"] * p
                    sizes = p.norm().item(), update.norm().item()
                    update = update * (group["trust"] * sizes[0] / sizes[1] if min(sizes) > 0 else 1.0)
                self.state[p]["sum"] = group["momentum"] * self.state[p].get("sum", 0) + update
                p -= group["lr"] * self.state[p]["sum"]


def groups(model: nn.Module, spec: RunSpec) -> list[dict[str, Any]]:
    """One optimizer group for each parameter that the first rule that finds it does not freeze."""
    recipe, found = spec.recipe, []
    blocks = {name: re.search(r"\.(\d+)\.", name) for name, _ in model.named_parameters()}
    head = 1 + max(int(number[1]) + 1 for number in blocks.values() if number)
    for name, parameter in model.named_parameters():
        rule = next(rule for rule in rules_of(recipe) if re.search(rule.pattern, name))
        number = blocks[name]
        if number:
            depth = int(number[1]) + 1
        else:
            depth = 0 if "embed" in name or "cls_token" in name else head
        peak = spec.lr * rule.lr_scale * recipe.optimizer.layer_decay ** (head - depth)
        decay = recipe.optimizer.weight_decay if rule.weight_decay is None else rule.weight_decay
        if not rule.freeze:
            found.append({"params": [parameter], "peak": peak, "lr": peak, "weight_decay": decay})
    return found
