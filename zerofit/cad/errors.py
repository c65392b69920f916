"""What is wrong with a CAD model: of one item among many, so that whoever reads them can name it and go on."""

from __future__ import annotations


class CadError(ValueError):
    """A document, a vector or a text that is no construction sequence. One line: where, what and why."""
