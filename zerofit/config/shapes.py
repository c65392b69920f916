"""`evaluate.shapes:` in a recipe: what is made of the CAD models of the test once a model is trained."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from zerofit.config.ranges import NO_BOOL, Count
from zerofit.config.section import Section


class Shapes(Section):
    """What `zerofit eval RUN` would be asked for; `{}` for its defaults."""

    limit: Count | None = None
    """The first so many CAD models; null: all."""
    constrained: bool = False
    """Hold texts to the grammar: then all of them parse."""
    max_tokens: Count | None = None
    """Tokens of a text at most; null: as many as the longest sample has, or what the context leaves."""
    pictures: Annotated[int, Field(ge=0), NO_BOOL] = 24
    """Of so many CAD models, the first ones."""
