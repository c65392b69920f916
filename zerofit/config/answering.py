"""`evaluate.problems:` in a recipe: what a language model answers once it is trained."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from zerofit.config.ranges import Count, NonNegative
from zerofit.config.section import Section


class Problems(Section):
    """What `zerofit eval RUN` would be asked for. Short form: `[1, 8]`, the k."""

    k: Annotated[tuple[Count, ...], Field(min_length=1)] = (1,)
    """pass@k and maj@k for these."""
    samples: Count | None = None
    """Completions of each problem; null: the largest k."""
    data: str | None = None
    """A file or a directory of problems with answers, or `hf:ID`; null: the run's own test rows."""
    limit: Count | None = None
    """The first so many problems."""
    temperature: NonNegative | None = None
    """Null: 0 for one completion of each problem, else 0.7."""
    max_tokens: Count | None = None
    """Tokens of a completion at most; null: 1024, or what the context leaves."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"k": value} if isinstance(value, (list, tuple)) else value

    @model_validator(mode="after")
    def _enough(self) -> Problems:
        if self.samples is not None and self.samples < max(self.k):
            raise ValueError(f"k {max(self.k)} needs as many samples of each problem, and samples is {self.samples}")
        return self
