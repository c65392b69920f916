"""Solids from construction sequences, through OpenCASCADE, which crashes and hangs: it runs in processes of its own."""

from zerofit.cad.kernel.kernel import Kernel
from zerofit.cad.kernel.results import Invalid, Solid

__all__ = ["Invalid", "Kernel", "Solid"]
