"""From an encoder's vectors to what a language model takes for tokens."""

from __future__ import annotations

from torch import Tensor, nn


class Projector(nn.Module):
    """[..., inputs] -> [..., outputs]: a norm, then an MLP of one hidden layer as in LLaVA-1.5 (Liu et al. 2024)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(inputs)
        self.up, self.down = nn.Linear(inputs, outputs), nn.Linear(outputs, outputs)
        self.activation = nn.GELU()

    def forward(self, vectors: Tensor) -> Tensor:
        """Each vector by itself."""
        projected: Tensor = self.down(self.activation(self.up(self.norm(vectors))))
        return projected
