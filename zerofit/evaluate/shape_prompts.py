"""What a CAD-MLLM is shown in an evaluation: of each CAD model what a mix tells, seen from the first sides."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from zerofit.config.cad import UNTOLD
from zerofit.config.errors import UserError
from zerofit.data.cad_loader import CadCollator, CadSample, Models
from zerofit.data.cad_order import CadKey
from zerofit.data.cad_table import read_table
from zerofit.data.cad_tokens import CadTokens
from zerofit.data.splits import SplitName
from zerofit.data.tokenizer import load_tokenizer
from zerofit.evaluate.shape_request import Asked
from zerofit.generate.conditioned import NOTHING
from zerofit.plan.spec import RunSpec
from zerofit.tasks.commands import collator


class Prompts:
    """Of a split of a run's data, whose mix has all that is told."""

    def __init__(self, spec: RunSpec, split: SplitName) -> None:
        self.spec = spec
        self.models = Models(spec.recipe.cad, spec.cad, split)
        self.collate: CadCollator = collator(spec)
        self.tokenizer = load_tokenizer(spec.recipe)
        self._shares = {share.inputs.name: number for number, share in enumerate(spec.recipe.cad.shares)}
        self._untold = np.array(CadTokens(self.tokenizer).prompts([""])[0], dtype=np.int32)

    def __len__(self) -> int:
        return len(self.models)

    def prompt(self, number: int, mix: str) -> CadSample:
        """What is told of that CAD model."""
        if mix == UNTOLD:
            return CadSample(self._untold, NOTHING, None, ())
        sample = self.models[CadKey(number, self._shares[mix], self.spec.recipe.cad.views_of_evaluations)]
        assert sample is not None
        return sample

    def longest(self, mixes: tuple[str, ...]) -> int:
        """Tokens of the longest prompt."""
        sizes = self.models.sizes(self.collate.slots)
        shares, images = self.spec.recipe.cad.shares, len(self.spec.recipe.cad.views_of_evaluations)
        told = [sizes.of(shares[self._shares[mix]].inputs, images) - sizes.commands for mix in mixes if mix != UNTOLD]
        return max([len(self._untold), *(int(lengths.max()) for lengths in told)])

    def asked(self, limit: int | None) -> Iterator[Asked]:
        """The CAD models, or the first `limit`."""
        rows = read_table(self.spec.recipe.cad, self.spec.recipe.train.seed).rows
        for number in range(len(self) if limit is None else min(limit, len(self))):
            row = rows[self.models.samples[number].row]
            yield Asked(row.id, row.caption, row.commands)


def tokens_of_a_text(asked: int | None, usual: int, prompt: int, context: int | None) -> int:
    """As many as were asked for; else the usual, or what the context leaves. Raises UserError where it does not fit."""
    room = None if context is None else context - prompt
    if room is not None and room < (asked or 1):
        advice = f"use --max-tokens {room}" if room > 0 else "tell less"
        raise UserError(
            f"a prompt of {prompt} tokens and {asked or 1} of a text do not fit into the model's context of {context}: "
            f"{advice}"
        )
    return asked or (usual if room is None else min(usual, room))
