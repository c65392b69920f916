"""mixup (Zhang et al. 2018, arXiv:1710.09412) and CutMix (Yun et al. 2019, arXiv:1905.04899), as weights per pixel."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zerofit.data.placing import on_device

MIX_DRAWS = 4


def weights(
    draws: NDArray[np.float64], mixup: float, cutmix: float, size: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Share of a sample's own pixels [B, 1, S, S] and own label [B], float32 on `device`; its partner has the rest.

    draws [B, MIX_DRAWS] in [0, 1). Of mixup and cutmix (the alphas of Beta(alpha, alpha)) at least one is above 0; with
    both, each sample takes one of the two. CutMix's label follows the area of the box, which the border may cut.
    """
    from scipy.special import betaincinv  # type: ignore[import-untyped]

    assert mixup > 0 or cutmix > 0
    cut = draws[:, 0] < 0.5 if mixup > 0 and cutmix > 0 else np.full(len(draws), cutmix > 0)
    alpha = np.where(cut, cutmix, mixup)
    share = betaincinv(alpha, alpha, draws[:, 1])
    half = size * np.sqrt(1 - share) / 2
    middle = draws[:, 2:4] * size  # x, y
    low = np.rint(np.clip(middle - half[:, None], 0, size))
    high = np.rint(np.clip(middle + half[:, None], 0, size))
    area = (high - low).prod(axis=1) / size**2
    label = np.where(cut, 1.0 - area, share)
    numbers = on_device(np.column_stack([low, high, share, label]), device)
    left, right = numbers[:, 0:2, None], numbers[:, 2:4, None]
    pixel = torch.arange(size, device=device)
    inside = (pixel >= left) & (pixel < right)  # [B, (x, y), S]
    outside = 1.0 - (inside[:, 1, :, None] & inside[:, 0, None, :]).float()
    own = torch.where(on_device(cut, device)[:, None, None], outside, numbers[:, 4, None, None])
    return own[:, None], numbers[:, 5]
