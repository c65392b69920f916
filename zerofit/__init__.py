"""Fine-tune models that don't fit: one recipe, any strategy, the same numbers.

What is listed here is the Python API (docs/python-api.md). It is looked up when it is asked for: `import zerofit`
imports no tensor library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zerofit.api import compare, create_data_loaders, load_vit_model, run_training_experiment
    from zerofit.config.errors import UserError

__all__ = ["UserError", "compare", "create_data_loaders", "load_vit_model", "run_training_experiment"]

_HOMES = {
    "UserError": "zerofit.config.errors",
    "compare": "zerofit.api",
    "create_data_loaders": "zerofit.api",
    "load_vit_model": "zerofit.api",
    "run_training_experiment": "zerofit.api",
}


def __getattr__(name: str) -> object:
    """The API, and `__version__`, whose look-up is slower than the rest of this import."""
    if name == "__version__":
        from importlib.metadata import version

        return version("zerofit")
    if name in _HOMES:
        from importlib import import_module

        from zerofit.config.environ import kept_environment

        with kept_environment():
            return vars(import_module(_HOMES[name]))[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
