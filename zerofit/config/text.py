"""`data:` of language tasks: rows of messages or plain documents, and how they become samples."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from zerofit.config.ranges import BelowOne, Count, Fraction
from zerofit.config.section import Section


class Text(Section):
    """Text, and how it is cut into samples."""

    source: Literal["arithmetic", "rows", "documents"]
    """arithmetic (embedded word problems), rows (what `zerofit prepare` reads, or has written: conversations, questions
    with solutions or answers), documents (plain text: all of it is learnt)."""
    path: str | None = None
    """File, directory, or `hf:ID` of the hub; arithmetic takes none. Several forms and formats: docs/prepare.md."""
    validation_path: str | None = None
    """Rows to validate on; null holds a fraction of train out (`validation`)."""
    test_path: str | None = None
    """Rows to test on at the end; null: those that are validated on."""
    system: str | None = None
    """A system message put before every conversation that has none."""
    validation: BelowOne = 0.0
    """Fraction of the rows held out for validation where there is no validation_path; 0: the test rows."""
    limit: Count | None = None
    """Use only this many training rows (drawn with `train.seed`)."""
    max_length: Count = 1024
    """Tokens per sample, prompt included; longer rows are left out and counted (documents are cut). For the task
    grpo: of a prompt."""
    packing: bool = False
    """Fill each sample with several rows, none of which sees another."""
    problems: Count = 20_000
    """arithmetic: training problems."""
    test_problems: Count = 500
    """arithmetic: test problems, which share no operands with training."""
    largest: Count = 20
    """arithmetic: largest operand."""
    estimates: Fraction = 0.0
    """arithmetic: share of training solutions that only estimate the answer, to the nearest ten: what SFT imitates and
    rewards unteach."""

    @model_validator(mode="after")
    def _path(self) -> Text:
        if (self.source == "arithmetic") != (self.path is None):
            raise ValueError(
                "arithmetic is embedded and takes no path" if self.path is not None else f"{self.source} needs a path"
            )
        if self.source == "arithmetic" and (self.validation_path or self.test_path):
            raise ValueError("arithmetic is embedded and takes no validation_path and no test_path")
        return self
