"""A point cloud as a few latent vectors: a Perceiver (Jaegle et al. 2021) over Fourier features of its points.

Sizes and order are those of Michelangelo's shape encoder (Zhao et al. 2023): learnt latents attend once to all points,
then to one another. Cost grows with points x latents, not with points squared.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerofit.config.model import Points
from zerofit.plan.slots import CHANNELS

WIDER = 4
"""Hidden elements of a block's MLP, over its width."""


class PointEncoder(nn.Module):
    """points [P, N, 6] -> latents [P, latents, width] in `dtype`, normalised; the order of points does not matter."""

    def __init__(self, sizes: Points, dtype: torch.dtype) -> None:
        super().__init__()
        self.frequencies, self.dtype = sizes.frequencies, dtype
        self.embedding = nn.Linear(CHANNELS + 6 * sizes.frequencies, sizes.width)
        self.latents = nn.Parameter(torch.zeros(sizes.latents, sizes.width))
        blocks = [Block(sizes.width, sizes.heads, crosses=depth == 0) for depth in range(sizes.depth + 1)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(sizes.width)

    def forward(self, points: Tensor) -> Tensor:
        """points float32 [P, N, 6], positions in [-1, 1]; or their bits, as int32."""
        features = fourier_features(float32_of(points), self.frequencies)
        context = self.embedding(features.to(self.dtype))
        latents = self.latents.expand(len(points), -1, -1)
        for depth, block in enumerate(self.blocks):
            # Not to those that only look at themselves: ZeRO-3 has a block done when all that it was given has its
            # gradient, and a context that is not used has none.
            latents = block(latents, context) if depth == 0 else block(latents)
        normalised: Tensor = self.norm(latents)
        return normalised


class Block(nn.Module):
    """Pre-norm attention and MLP. The queries are `x`; it attends to `context` where it crosses, else to itself."""

    def __init__(self, width: int, heads: int, *, crosses: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.context_norm = nn.LayerNorm(width) if crosses else None
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.mlp_norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, WIDER * width), nn.Linear(WIDER * width, width)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """x [P, L, width], context [P, N, width], where it crosses -> [P, L, width]."""
        queries = self.norm(x)
        seen = queries if self.context_norm is None else self.context_norm(context)
        query, key, value = (
            one.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for one in (self.query(queries), self.key(seen), self.value(seen))
        )
        attended = F.scaled_dot_product_attention(query, key, value)
        x = x + self.output(attended.transpose(1, 2).flatten(2))
        found: Tensor = x + self.down(F.gelu(self.up(self.mlp_norm(x))))
        return found


def fourier_features(points: Tensor, frequencies: int) -> Tensor:
    """float32 [P, N, 6] -> [P, N, 6 + 6 x frequencies]: as they are, then sin and cos of 2^k pi x of each coordinate.

    k is 0..frequencies - 1 (Mildenhall et al. 2020, equation 4): the last tells points apart that lie 2^-k apart.
    """
    octaves = math.pi * 2.0 ** torch.arange(frequencies, device=points.device, dtype=points.dtype)
    angles = (points[..., :3, None] * octaves).flatten(-2)
    return torch.cat([points, angles.sin(), angles.cos()], dim=-1)


def float32_of(points: Tensor) -> Tensor:
    """`points`, which are float32 or the bits of it: engines round all floats that a forward pass is given.

    In bf16 a position in [-1, 1] is off by up to 2^-9, a turn of the highest frequencies.
    """
    return points.view(torch.float32) if points.dtype == torch.int32 else points
