"""A small recipe, what its data hold, and machines to plan it for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.plan.spec import CadFacts, Hardware, ImageFacts, TextFacts

FACTS = ImageFacts(
    classes=tuple("0123456789"),
    train=1437,
    validation=360,
    test=360,
    validation_from="test",
    image_size=8,
)
TEXT_FACTS = TextFacts(
    train=10_000,
    validation=100,
    test=100,
    validation_from="test",
    rows=10_000,
    tokens=2_000_000,
    targets=1_000_000,
    longest=300,
    left_out=0,
    vocabulary=259,
    pad=258,
    stops=(257,),
    samples=Path("samples"),
)
CAD_FACTS = CadFacts(**dict(TEXT_FACTS), clouds=0.5, images=0.25, points=2048, image_size=224)
CPU = Hardware(device="cpu", count=1, name="Any CPU", memory_gib=8.0, capability=None, cpus=2)


def gpus(count: int, capability: tuple[int, int] = (9, 0)) -> Hardware:
    return Hardware(device="cuda", count=count, name="Some GPU", memory_gib=80.0, capability=capability, cpus=32)


def recipe(**sections: dict[str, Any] | str) -> Recipe:
    """The recipe with fields of its sections replaced; a string (strategy="zero2") replaces the section."""
    fields: dict[str, Any] = {
        "model": {"kind": "vit", "shape": "vit-tiny", "patch_size": 2},
        "data": {"source": "digits"},
        "train": {"epochs": 2, "micro_batch": 16, "global_batch": 64},
        "optimizer": {"lr": 1e-3},
    }
    for name, section in sections.items():
        fields[name] = section if isinstance(section, str) else fields.get(name, {}) | section
    return Recipe.model_validate(fields)


def refuse_zero3(name: str, *_: object) -> None:
    """In place of what looks at strategies."""
    if name == "zero3":
        raise UserError("zero3 cannot do it")
