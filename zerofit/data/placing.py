"""Small arrays on their way to a device, and what of a batch does not go there."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

DRAWN = ("epoch", "index", "partner_index")
"""What augmentation draws its random numbers from, on the host: sent to a GPU, the host would have to wait for it."""


def on_device(values: NDArray[Any], device: torch.device) -> Tensor:
    """A tensor of float64 (as float32), integers or booleans. The host does not wait for what it has launched before.

    From memory that is not page-locked it would: torch waits for such copies.
    """
    made = torch.from_numpy(values.astype(np.float32) if values.dtype == np.float64 else values)
    return made.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else made.to(device)
