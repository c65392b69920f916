"""Linear heads that see the same vectors, trained together: a step of all of them is two matrix products.

They differ in their learning rates alone. Gradients are written out: of mean cross-entropy through a softmax they are
(probabilities - targets) / batch, and nothing lies before the head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from zerofit.config.optimizer import Optimizer

EPS, MOMENTUM = 1e-6, 0.1  # of BatchNorm: MAE's, as the models' own


class Heads:
    """H heads on vectors of `width`, with or without a BatchNorm (no affine parameters) before them.

    They begin at `weight` [C, width] and bias 0. rates [steps, H]: each one's learning rate at each step; both on the
    device on which they are to be trained.
    """

    def __init__(self, weight: Tensor, rates: Tensor, optimizer: Optimizer, norm: bool, smoothing: float) -> None:
        self.classes, self.width = weight.shape
        self.number = rates.shape[1]
        self.rates, self.norm, self.smoothing, self.clip = rates, norm, smoothing, optimizer.clip_grad
        self.weight = weight.repeat(self.number, 1)  # [H * C, width]: one matrix
        self.bias = torch.zeros_like(self.weight[:, 0])
        self.mean, self.var = torch.zeros_like(weight[0]), torch.ones_like(weight[0])
        self.gradient = torch.empty_like(self.weight)
        self.steps = 0
        update = Adamw if optimizer.name == "adamw" else Momentum
        trust = optimizer.name == "lars"
        self.weight_update: Update = update(self._by_head(self.weight), optimizer, trust, decay=True)
        self.bias_update: Update = update(self._by_head(self.bias), optimizer, False, decay=not trust)

    def step(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """Train on vectors float32 [B, width] with labels int64 [B]; each head's loss before [H]."""
        batch = len(vectors)
        if self.norm:
            vectors = F.batch_norm(vectors, self.mean, self.var, training=True, momentum=MOMENTUM, eps=EPS)
        logs = F.log_softmax(self._logits(vectors), dim=-1)
        target = labels[:, None, None].expand(batch, self.number, 1)
        losses = logs.gather(2, target).mean(dim=(0, 2)).mul_(self.smoothing - 1)
        if self.smoothing:
            losses -= logs.mean(dim=(0, 2)) * self.smoothing
        slopes = logs.exp_()
        if self.smoothing:
            slopes -= self.smoothing / self.classes
        slopes.scatter_add_(2, target, slopes.new_full((1, 1, 1), self.smoothing - 1).expand_as(target))
        flat = slopes.mul_(1 / batch).view(batch, -1)
        torch.mm(flat.T, vectors, out=self.gradient)
        self._update(flat.sum(dim=0))
        return losses

    def logits(self, vectors: Tensor) -> Tensor:
        """float32 [B, width] -> [B, H, C], as in evaluation."""
        if self.norm:
            vectors = F.batch_norm(vectors, self.mean, self.var, training=False, eps=EPS)
        return self._logits(vectors)

    def state(self, head: int) -> dict[str, Tensor]:
        """A head's tensors on the CPU, by their names in the model."""
        mine = slice(head * self.classes, (head + 1) * self.classes)
        state = {"head.weight": self.weight[mine], "head.bias": self.bias[mine]}
        if self.norm:
            steps = torch.tensor(self.steps)
            state |= {
                f"head_norm.{name}": one for name, one in (("running_mean", self.mean), ("running_var", self.var))
            }
            state["head_norm.num_batches_tracked"] = steps
        return {name: value.detach().cpu().clone() for name, value in state.items()}

    def _logits(self, vectors: Tensor) -> Tensor:
        return torch.addmm(self.bias, vectors, self.weight.T).view(len(vectors), self.number, self.classes)

    def _by_head(self, tensor: Tensor) -> Tensor:
        return tensor.view(self.number, -1)

    def _update(self, bias_gradient: Tensor) -> None:
        weight, bias = self._by_head(self.gradient), self._by_head(bias_gradient)
        if self.clip is not None:
            norm = torch.linalg.vector_norm(torch.stack([_norms(weight), _norms(bias)]), dim=0)
            factor = (self.clip / (norm + 1e-6)).clamp(max=1)  # as torch.nn.utils.clip_grad_norm_
            weight.mul_(factor)
            bias.mul_(factor)
        rate = self.rates[self.steps][:, None]
        self.weight_update.apply(self._by_head(self.weight), weight, rate)
        self.bias_update.apply(self._by_head(self.bias), bias, rate)
        self.steps += 1


class Update(ABC):
    """An optimizer's way with one tensor of each head [H, N]: the gradient is its to overwrite. `rate` [H, 1]."""

    def __init__(self, values: Tensor, optimizer: Optimizer, trust: bool, decay: bool) -> None:
        self.optimizer, self.trust = optimizer, trust
        self.decay = optimizer.weight_decay if decay else 0.0

    @abstractmethod
    def apply(self, values: Tensor, gradient: Tensor, rate: Tensor) -> None:
        """One step."""


class Momentum(Update):
    """SGD as torch's; with `trust` LARS as in MAE's util/lars.py, each head with norms of its own."""

    def __init__(self, values: Tensor, optimizer: Optimizer, trust: bool, decay: bool) -> None:
        super().__init__(values, optimizer, trust, decay)
        self.velocity = torch.zeros_like(values)

    def apply(self, values: Tensor, gradient: Tensor, rate: Tensor) -> None:
        if self.decay:
            gradient.add_(values, alpha=self.decay)
        self.velocity.mul_(self.optimizer.momentum)
        if self.trust:
            sizes, slopes = _norms(values), _norms(gradient)
            ratio = self.optimizer.trust_coefficient * sizes / slopes
            self.velocity.addcmul_(gradient, torch.where((sizes > 0) & (slopes > 0), ratio, 1.0))
        else:
            self.velocity.add_(gradient)
        values.addcmul_(self.velocity, rate, value=-1)


class Adamw(Update):
    """AdamW as torch's."""

    def __init__(self, values: Tensor, optimizer: Optimizer, trust: bool, decay: bool) -> None:
        super().__init__(values, optimizer, trust, decay)
        self.mean, self.square, self.steps = torch.zeros_like(values), torch.zeros_like(values), 0

    def apply(self, values: Tensor, gradient: Tensor, rate: Tensor) -> None:
        first, second = self.optimizer.betas
        self.steps += 1
        if self.decay:
            values.mul_(1 - rate * self.decay)
        self.mean.lerp_(gradient, 1 - first)
        self.square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        below = self.square.sqrt().div_((1 - second**self.steps) ** 0.5).add_(self.optimizer.eps)
        values.sub_(below.reciprocal_().mul_(self.mean).mul_(rate / (1 - first**self.steps)))


def _norms(values: Tensor) -> Tensor:
    return torch.linalg.vector_norm(values, dim=1, keepdim=True)
