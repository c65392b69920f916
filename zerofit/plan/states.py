"""What a rank holds all through a run, in bytes: weights, gradients and optimizer, by strategy. Closed form.

With T trained elements and N ranks. Sources: docs/numerics.md for the types that each engine holds; ZeRO (Rajbhandari
et al. 2020, section 3) for the shares; DeepSpeed 0.19.8's runtime/zero/stage_1_and_2.py and stage3.py for float32
masters, for gradients added up over micro-batches in float32, and for the buckets that gradients are reduced in.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Generic, Protocol, TypeVar

from zerofit.config.strategy import REPLICATED, ZERO_STAGE
from zerofit.plan.fused import is_fused
from zerofit.plan.spec import RunSpec

BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
FLOAT = 4
PACKED, SCALES = 0.5, 1 / 64 + FLOAT / (64 * 256)
"""Bytes of an element in 4 bits, and of its scales: 8 bits for each 64 elements, and a float32 for each 256 of those
(QLoRA, Dettmers et al. 2023, section 3)."""
NF4 = PACKED + SCALES
SUB_GROUP = 100_000_000
"""Elements that ZeRO-3's optimizer works on at once (plan/deepspeed.py)."""


@dataclass(frozen=True)
class States:
    """Bytes on the device."""

    weights: int
    gradients: int
    optimizer: int
    reference: int
    """The model that KL is measured to; adapters need none: their reference is the base."""

    @property
    def total(self) -> int:
        """All of them."""
        return sum(astuple(self))


class Sizes(Protocol):
    """How large a model is, in elements."""

    @property
    def parameters(self) -> int:
        """All, adapters apart."""

    @property
    def matrices(self) -> int:
        """Of linear layers that a 4-bit base holds in 4 bits."""

    @property
    def rest(self) -> int:
        """All others."""

    def adapters(self, rank: int, targets: str) -> int:
        """Of LoRA adapters."""


S = TypeVar("S", bound=Sizes, covariant=True)


@dataclass(frozen=True)
class Engine(Generic[S]):
    """What decides on them."""

    spec: RunSpec
    sizes: S
    counted: int | None = None
    """Elements with a gradient; null: the adapters', or all."""

    @property
    def name(self) -> str:
        """The strategy's."""
        return self.spec.strategy.name

    @property
    def stage(self) -> int:
        """ZeRO stage; 0: another engine."""
        return ZERO_STAGE.get(self.name, 0)

    @property
    def compute(self) -> int:
        """Bytes of an element that is computed with."""
        return BYTES[self.spec.precision]

    @property
    def held(self) -> int:
        """Bytes of a weight as the engine holds it: DeepSpeed's in the compute type, others in float32."""
        return self.compute if self.stage else FLOAT

    @property
    def autocast(self) -> bool:
        """Whether weights are cast at each use, and what flows between blocks is float32."""
        return self.name in REPLICATED and self.compute < FLOAT and not self.quantised

    @property
    def quantised(self) -> bool:
        """Whether the base is held in 4 bits; what is not of it is then in the compute type."""
        return self.spec.quantised

    @property
    def sharded(self) -> bool:
        """Whether a rank holds a share of the weights alone, and gathers them."""
        return self.stage == 3 or self.name == "fsdp2"

    @property
    def ranks(self) -> int:
        """World size."""
        return self.spec.batches.ranks

    @property
    def trained(self) -> int:
        """Elements with a gradient: as they were counted, else the adapters', or all, whatever rules freeze."""
        if self.counted is not None:
            return self.counted
        return self.added if self.adapted else self.sizes.parameters

    @property
    def added(self) -> int:
        """Elements of adapters."""
        lora = self.spec.recipe.model.lora
        return 0 if lora is None else self.sizes.adapters(lora.rank, lora.targets)

    @property
    def adapted(self) -> bool:
        """Whether adapters alone are trained."""
        return self.spec.recipe.model.lora is not None

    @property
    def scales(self) -> int:
        """Bytes of what unpacks a 4-bit base: whole on every rank, whatever the strategy."""
        return round(self.sizes.matrices * SCALES) if self.quantised else 0

    def weights(self, size: int) -> int:
        """Bytes of all weights at `size` an element; a 4-bit base, without its scales, and what is around it, are as
        they are.
        """
        sizes, adapters = self.sizes, self.added
        matrices = sizes.matrices * (PACKED if self.quantised else size)
        return round(matrices + sizes.rest * (self.compute if self.quantised else size) + adapters * size)


def states(engine: Engine[Sizes]) -> States:
    """What stays on a rank's device from step to step."""
    strategy = engine.spec.strategy
    trained, ranks = engine.trained, engine.ranks
    spread = ranks if engine.stage or engine.name == "fsdp2" else 1
    shares = ranks if engine.sharded else 1
    several = engine.spec.batches.accumulation > 1
    gradient = FLOAT if several or not engine.stage else engine.compute
    moments = 2 if engine.spec.recipe.optimizer.name == "adamw" else 1
    master = FLOAT if engine.stage else 0
    whole = engine.weights(engine.held)
    away = strategy.offload.optimizer is not None
    inside = engine.name == "ddp" and ranks > 1  # gradients are views of the buckets
    # Float32 sums of ZeRO-1 and 2 stay on the device until the step; of ZeRO-1 whole, where nothing is offloaded.
    summed = FLOAT * trained // ranks if several and engine.stage in (1, 2) else 0
    wanted = engine.spec.recipe.grpo is not None and engine.spec.recipe.grpo.beta > 0 and not engine.adapted
    return States(
        weights=engine.scales + (0 if strategy.offload.params else whole // shares),
        gradients=summed if away or inside else gradient * trained // (1 if engine.stage == 1 else spread),
        optimizer=0 if away else (FLOAT * moments + master) * trained // spread,
        reference=whole // shares if wanted else 0,
    )


def buckets(engine: Engine[Sizes]) -> int:
    """Bytes that gradients are reduced in.

    DDP's hold all of them, in float32, all the time. DeepSpeed has two where communication overlaps
    (stage_1_and_2.py:3256).
    """
    if engine.name == "ddp":
        return FLOAT * engine.trained if engine.ranks > 1 else 0
    settings = (engine.spec.deepspeed or {}).get("zero_optimization", {})
    copies = 2 if settings.get("overlap_comm") else 1
    return int(copies * settings.get("reduce_bucket_size", 0) * engine.compute)


def update(engine: Engine[Sizes]) -> int:
    """Bytes that come and go in the optimizer's step, beyond its gradients.

    ZeRO makes gradients flat and float32: 6 bytes an element of the share, under ZeRO-3 of a sub-group
    (stage_1_and_2.py:3117, stage3.py). Float32 sums of several micro-batches are flat already where the compute type is
    another, else they are joined: 4. They are gone by the optimizer's own step; reduced gradients lie in a buffer that
    is not.
    """
    if engine.spec.strategy.offload.optimizer is not None:
        return 0
    spread = engine.ranks if engine.stage or engine.name == "fsdp2" else 1
    share, own = engine.trained // spread, _made(engine.spec)
    if not engine.stage:
        return own * share
    if engine.stage < 3 and engine.spec.batches.accumulation > 1:
        return max(FLOAT if engine.compute == FLOAT else 0, own) * share
    return max(engine.compute + FLOAT, FLOAT + own) * (min(share, SUB_GROUP) if engine.stage == 3 else share)


def _made(spec: RunSpec) -> int:
    """Bytes an element that the optimizer itself makes of all that it steps at once (predict/updating.py).

    AdamW's are the root of its second moments, unless it is fused; SGD's are decayed gradients.
    """
    optimizer = spec.recipe.optimizer
    rooted = optimizer.name == "adamw" and not is_fused(spec, spec.hardware.device)
    decayed = optimizer.name == "sgd" and optimizer.weight_decay > 0
    return FLOAT if rooted or decayed else 0
