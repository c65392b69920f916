"""Fine-tune models that don't fit: one recipe, any strategy, the same numbers."""

from __future__ import annotations


def __getattr__(name: str) -> str:
    """`__version__`, looked up when it is asked for: the look-up is slower than the rest of this import."""
    if name == "__version__":
        from importlib.metadata import version

        return version("zerofit")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
