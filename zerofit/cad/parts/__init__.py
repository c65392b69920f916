"""Embedded parts: plates, brackets, flanges, shafts and blocks, drawn from a seed with a caption each."""

from zerofit.cad.parts.made import Family, Part, families, part, split

__all__ = ["Family", "Part", "families", "part", "split"]
