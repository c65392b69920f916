"""One rank of a calibration: `python -m zerofit.launch.rates_worker DIRECTORY` does what DIRECTORY/ask.json says.

Rank 0 measures its device and the drive, then all measure the host and the links; rank 0 writes DIRECTORY/found.json.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zerofit.config.section import Section
from zerofit.launch import failure, lifeline
from zerofit.launch.environment import World, outer_world

if TYPE_CHECKING:
    import torch

    from zerofit.measure.rates.outside import Outside

ASK, FOUND = "ask.json", "found.json"
GIGA = 1e9
MIB = 2**20


class Ask(Section):
    """What is to be measured."""

    device: Literal["cpu", "cuda"]
    """On what."""
    uuids: tuple[str, ...]
    """NVML's names of the GPUs, by local rank; empty on a CPU."""
    precisions: tuple[Literal["bf16", "fp16", "fp32"], ...]
    """Of products; attention is measured in the first."""
    products: tuple[tuple[int, int, int], ...]
    """(tokens, inputs, outputs) of linear layers."""
    attention: tuple[tuple[int, int, int, int], ...]
    """(batch, heads, tokens, width)."""
    copied_mib: int
    """Of a copy in the device's memory, and over PCIe."""
    adam: int
    """Elements that AdamW updates on the host, for each rank."""
    disk: Path
    """Directory on the drive that is measured."""
    disk_mib: int
    """Of a file on it."""
    messages_mib: tuple[float, ...]
    """Of buffers that ranks exchange."""
    budget: float
    """Seconds that each of these takes, or so."""


def main() -> None:
    """Run as a process that `run_ranks` has started."""
    lifeline.watch()
    world = outer_world(os.environ)
    assert world is not None, "started without a launcher"
    parser = argparse.ArgumentParser("zerofit.launch.rates_worker", description=__doc__)
    parser.add_argument("directory", type=Path, help="where ask.json lies")
    directory: Path = parser.parse_args().directory
    failure.guard(world.rank, directory / "logs", lambda: measure(directory, world))
    failure.finish()


def measure(directory: Path, world: World) -> None:
    """All of it. Raises UserError where PyTorch cannot use the device."""
    from zerofit.launch import group, rundir, workarounds

    workarounds.quiet()
    import torch

    ask = Ask.model_validate_json((directory / ASK).read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    outside, device = None, torch.device("cpu")
    if ask.device == "cuda":
        from zerofit.measure.rates.outside import Outside, begin_context

        device = group.gpu_of(world)
        outside = Outside(ask.uuids[world.local_rank], device)
        torch.cuda.set_device(device)
        begin_context(device)
        found["context_gib"] = outside.gib()
    if world.rank == 0:
        found |= _alone(ask, device)
    if outside is not None:
        from zerofit.measure.rates.outside import small_step

        small_step(device, torch.bfloat16 if "bf16" in ask.precisions else torch.float16)
        found["modules_gib"] = outside.gib()
    if world.size > 1:
        group.join(world, ask.device)
        found |= _together(ask, device, outside, found.get("modules_gib"))
        group.leave()
    else:
        from zerofit.measure.rates.adam import adam_rate

        _say("AdamW on the host, and a model's Python", world.rank)
        found["host"] = _giga(adam_rate(ask.adam, ask.budget))
        found["launch_s"] = _launches(ask, device)
    if world.rank == 0:
        rundir.write_json(directory / FOUND, found)


def _alone(ask: Ask, device: torch.device) -> dict[str, Any]:
    """What one rank measures by itself."""
    from zerofit.measure.rates import moving
    from zerofit.measure.rates.products import attention, products

    found: dict[str, Any] = {"products": {}}
    for precision in ask.precisions:
        _say(f"matrix products in {precision}")
        made = products(ask.products, precision, device, ask.budget)
        found["products"][precision] = [one.model_dump() for one in made]
    _say("attention")
    found["attention"] = [one.model_dump() for one in attention(ask.attention, ask.precisions[0], device, ask.budget)]
    _say("memory")
    found["memory"] = _giga(moving.memory_rate(device, ask.copied_mib, ask.budget))
    if device.type == "cuda":
        found["kernel_s"] = moving.kernel_seconds(device, ask.budget)
        _say("PCIe")
        up, down = moving.pcie_rates(device, ask.copied_mib, ask.budget)
        found |= {"pcie_up": _giga(up), "pcie_down": _giga(down)}
    _say(f"the drive of {ask.disk}")
    drive = moving.disk_rates(ask.disk, ask.disk_mib)
    if drive is not None:
        found |= {"disk_write": _giga(drive[0]), "disk_read": _giga(drive[1])}
    return found


def _together(ask: Ask, device: torch.device, outside: Outside | None, before: float | None) -> dict[str, Any]:
    """What ranks measure at once: what the host does, and what lies between them. Collective.

    `before` is what this rank took of its card, tensors apart, before it joined the others.
    """
    import torch.distributed as dist

    from zerofit.measure.rates.adam import adam_rate
    from zerofit.measure.rates.links import everyone, messages

    rank = dist.get_rank()
    found: dict[str, Any] = {}
    links: dict[str, Any] = {"backend": "gloo" if outside is None else "nccl"}
    if outside is not None:
        from zerofit.measure.rates.outside import communicate

        communicate(device)
        after = outside.gib()
        sizes = everyone(None if before is None or after is None else max(0.0, after - before))
        known = [size for size in sizes if size is not None]
        links["communicators_gib"] = round(max(known), 4) if len(known) == len(sizes) else None
    _say("AdamW on the host, and a model's Python", rank)
    dist.barrier()
    found["host"] = _giga(sum(everyone(adam_rate(ask.adam, ask.budget))))
    found["launch_s"] = max(everyone(_launches(ask, device)))  # whoever is ready waits for the slowest
    _say(f"collectives of {dist.get_world_size()} ranks", rank)
    links["messages"] = [one.model_dump() for one in messages(ask.messages_mib, device, ask.budget)]
    return found | {"links": links}


def _launches(ask: Ask, device: torch.device) -> float:
    from zerofit.measure.rates.launches import launch_seconds
    from zerofit.measure.rates.products import DTYPES

    return launch_seconds(device, DTYPES[ask.precisions[0]], ask.budget)


def _giga(rate: float) -> float:
    from zerofit.measure.rates.products import significant

    return significant(rate / GIGA)


def _say(what: str, rank: int = 0) -> None:
    if rank == 0:
        print(f"measuring {what}", flush=True)


if __name__ == "__main__":
    main()
