"""What the host takes for a block whose activations are recomputed, beyond the block's operations.

    python bench/recomputed.py --device cuda

Small blocks, so that no kernel is as long as its launch. A line for each: microseconds an operation, and for recomputed
blocks what they take beyond their operations, in microseconds a block and in operations.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from zerofit.measure.operations import Count
from zerofit.measure.rates.launches import TOKENS, decoder

LAYERS = 12
PASSES, REPEATS = 4, 15


def blocks(dtype: torch.dtype, device: str, lora: bool) -> tuple[nn.Module, nn.ModuleList]:
    """A decoder, and its blocks."""
    model = decoder(LAYERS)
    layers = model.model.layers
    if lora:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear"))
        model.enable_input_require_grads()
    return model.to(device, dtype), layers


def timed(model: nn.Module, device: str, autocast: bool) -> tuple[float, int]:
    """Seconds of a forward and backward pass, and its operations."""
    tokens = torch.arange(TOKENS, device=device)[None]

    def work() -> None:
        with torch.autocast(device, torch.bfloat16) if autocast else contextlib.nullcontext():
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()

    def wait() -> None:
        if device != "cpu":
            torch.cuda.synchronize()

    work()
    with Count() as count:
        work()
    taken = []
    for _ in range(REPEATS):
        wait()
        began = time.perf_counter()
        for _ in range(PASSES):
            work()
        wait()
        taken.append((time.perf_counter() - began) / PASSES)
    return statistics.quantiles(taken, n=4)[0], count.operations


def compare(device: str, lora: bool, autocast: bool) -> None:
    """One sort of block: not recomputed, recomputed, and so without keeping the states of random numbers."""
    dtype = torch.float32 if autocast else torch.bfloat16
    name = f"{'lora' if lora else 'full'} {'autocast' if autocast else 'bf16'}"
    ways: dict[str, dict[str, Any] | None] = {
        "kept": None,
        "recomputed": {},
        "no states": {"preserve_rng_state": False},
    }
    plain, count = 0.0, 1
    for way, options in ways.items():
        model, layers = blocks(dtype, device, lora)
        if options is not None:
            for layer in layers:
                layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, **options)
        seconds, operations = timed(model, device, autocast)
        found = {"blocks": name, "way": way, "operations": operations, "us_operation": 1e6 * seconds / operations}
        if options is None:
            plain, count = seconds, operations
        else:
            beyond = (seconds - plain * operations / count) / LAYERS
            found |= {"us_block_beyond": 1e6 * beyond, "in_operations": beyond * count / plain}
        print(
            json.dumps({key: round(one, 1) if isinstance(one, float) else one for key, one in found.items()}),
            flush=True,
        )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    device = parser.parse_args().device
    torch.set_num_threads(1)
    for lora in (False, True):
        for autocast in (False, True):
            compare(device, lora, autocast)


if __name__ == "__main__":
    main()
