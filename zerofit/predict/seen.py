"""What a roofline has seen of micro-batches: played through, or by formulas. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Protocol

from zerofit.plan.activations import flows
from zerofit.plan.anatomy import anatomy_of
from zerofit.plan.spec import RunSpec
from zerofit.plan.states import BYTES
from zerofit.predict.rates import Rates

TENSORS = 70
"""Times that all elements between two blocks are read or written in a pass through one, besides matrix products: 44 of
ViT-Huge's blocks, 100 of Qwen3-8B's (steps that were played through)."""
OPERATIONS, MODULES = 45, 10
"""Operations of a pass through a block, and its modules with weights; likewise (24 and 53; 8 and 11)."""
AGAIN = {"none": 0.0, "selective": 0.5, "full": 1.0}
"""Passes that activation checkpointing adds."""


class Seen(Protocol):
    """Of one or several micro-batches, added up."""

    seconds: float
    operations: int
    micro_steps: int
    trained: int
    frozen: int
    gradients: int
    """Trained parameters, each one tensor."""
    modules: int
    """With weights of their own."""
    units: int
    """Blocks, and such modules outside of them."""


@dataclass
class Counted:
    """Of one micro-batch."""

    seconds: float
    operations: int
    trained: int
    frozen: int
    gradients: int
    modules: int
    units: int
    micro_steps: int = 1

    def scaled(self, played: Seen, counted: Counted) -> Counted:
        """This one, by what `played` came to where formulas said `counted`."""
        of = played.micro_steps
        return Counted(
            seconds=self.seconds * played.seconds / of / counted.seconds,
            operations=round(self.operations * played.operations / of / counted.operations),
            trained=played.trained,
            frozen=played.frozen,
            gradients=played.gradients,
            modules=played.modules,
            units=played.units,
        )


def counted(spec: RunSpec, rates: Rates) -> Counted:
    """By formulas: matrix products at their rate, and all else at the memory's. For ranking, before a step is played.

    Raises Unpredicted where the model's sizes are not at hand.
    """
    anatomy, low = anatomy_of(spec), BYTES[spec.precision]
    again = AGAIN[spec.strategy.activation_checkpointing]
    flops = moved = operations = modules = 0.0
    units = gradients = 0
    for flow in flows(anatomy):
        block, tokens = flow.part.stack.block, spec.batches.micro * flow.part.tokens
        share = 1.0 if spec.recipe.model.lora is None else 0.0  # adapters' own gradients are next to nothing
        for own, reached in zip(flow.trained, flow.reached, strict=True):
            passes = 1 + again * reached
            flops += 2 * (passes + reached + share * bool(own)) * tokens * block.matrices
            flops += 4 * (passes + 2 * reached) * tokens * flow.part.tokens * block.query
            moved += (passes + reached) * low * (TENSORS * tokens * block.hidden + block.elements)
            operations += (passes + reached) * OPERATIONS
            gradients += len(own)
            modules += MODULES
            units += 1
    if spec.recipe.task in ("sft", "grpo", "cad"):
        flops += 6 * spec.batches.micro * anatomy.main.tokens * prod(anatomy.head)
    seconds = flops / rates.products[spec.precision] + moved / rates.memory
    return Counted(
        seconds=max(seconds, rates.kernel_s * operations),
        operations=round(operations),
        trained=anatomy.trains,
        frozen=max(0, anatomy.parameters - anatomy.trains),
        gradients=gradients,
        modules=round(modules),
        units=units,
    )
