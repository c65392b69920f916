"""What sharding the optimizer saves where few parameters are trained: next to nothing, which a user should know."""

from __future__ import annotations

from torch import nn

from zerofit.models.quantised import packed_layers
from zerofit.plan.spec import RunSpec

STATE_BYTES = {"adamw": 8, "sgd": 4, "lars": 4}
"""Optimizer state of a trained parameter, float32: two moments, or a momentum."""
MASTER_BYTES = 4
"""Its float32 weight, sharded with the state."""
OPTIMIZER_ALONE = ("zero1", "zero2")
"""Strategies that keep whole weights on every rank."""
SHARDING = ("zero3", "fsdp2")
"""Strategies that gather weights for use."""
LITTLE = 0.05
"""Of the memory that whole weights take: what saves less than this does not decide whether a model fits."""


def saving_note(
    trained_elements: int,
    total_elements: int,
    strategy: str,
    ranks: int,
    optimizer: str = "adamw",
    weights: int | None = None,
) -> str | None:
    """One line on what `strategy` saves where that is little; null where it is not, or where weights are sharded too.

    Elements are counted over the whole model, and bytes per rank: float32 weights and optimizer state of what is
    trained, of which a rank keeps 1 / ranks. `weights` are the bytes of all weights; null: they have 16 bits.
    """
    if strategy not in OPTIMIZER_ALONE:
        return None
    held = trained_elements * (MASTER_BYTES + STATE_BYTES[optimizer])
    saved = held - held // ranks
    if saved >= LITTLE * (2 * total_elements if weights is None else weights):
        return None
    return (
        f"{strategy} saves {in_words(saved)} a rank here: {trained_elements:,} of {total_elements:,} parameters are "
        f"trained, whose float32 weights and {optimizer} state are {in_words(held)}; every rank keeps all weights "
        "either way. ddp is as good; fsdp2 and zero3 shard the frozen weights too"
    )


def note_of(model: nn.Module, spec: RunSpec) -> str | None:
    """`saving_note` of a run, whose model is placed as its strategy says; or that a small base is sharded in vain."""
    named = dict(model.named_parameters())  # under ZeRO-3 they have no elements
    trained = sum(parameter.numel() for parameter in named.values() if parameter.requires_grad)
    total, weights = sum(parameter.numel() for parameter in named.values()), None
    packed = dict(packed_layers(model))
    if packed and spec.strategy.name in SHARDING:
        size = in_words(sum(layer.bytes for layer in packed.values()))
        return (
            f"weights in 4 bits are {size}, and {spec.strategy.name} gathers them in every forward and backward "
            "pass: where they fit whole, ddp and zero2 are faster"
        )
    if packed:
        weights = sum(parameter.numel() * parameter.element_size() for parameter in named.values())
        total += sum(one.in_features * one.out_features - named[name].numel() for name, one in packed.items())
    name, optimizer = spec.strategy.name, spec.recipe.optimizer.name
    return saving_note(trained, total, name, spec.batches.ranks, optimizer, weights)


def in_words(size: int) -> str:
    """Bytes in B, KiB, MiB or GiB."""
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
