"""request.json and models.parquet of an evaluation on CAD models: what its ranks need. Written before they start."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from zerofit.config.cad import Cad
from zerofit.config.grpo import Sampling
from zerofit.data.splits import SplitName
from zerofit.evaluate.request import Pending, Settled, read_as
from zerofit.measure.parquet_rows import Form
from zerofit.plan.files import read_spec
from zerofit.plan.spec import CadFacts, RunSpec

if TYPE_CHECKING:
    import pyarrow as pa

MODELS_FILE = "models.parquet"


@dataclass(frozen=True)
class Asked:
    """A CAD model that is to be made of what is told of it."""

    id: str
    caption: str | None
    truth: str
    """Its command text."""


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([("id", pa.string()), ("caption", pa.string()), ("truth", pa.string())])


MODELS = Form(Asked, _schema)
"""How they lie in a file."""


class ShapeSettings(Settled):
    """What decides about rows."""

    models: str
    """Digest of the CAD models: ids, captions and command texts."""
    shown: tuple[str, ...]
    """Keys of what is shown of them: samples, clouds and images."""
    mixes: tuple[str, ...]
    """What is told of each."""
    sampling: Sampling
    """How texts are drawn."""
    seed: int
    """From which numbers."""
    constrained: bool
    """Whether they are held to the grammar."""
    pictures: int
    """Of how many CAD models there are pictures."""
    dtype: Literal["bf16", "fp16", "fp32"]
    """Of weights and activations."""


class ShapeRequest(Pending):
    """Of a run on CAD models."""

    settings: ShapeSettings
    """What decides about rows."""
    cad: Cad
    """Where the CAD models come from; its mix has all that is told of them."""
    facts: CadFacts
    """What they were found to hold."""
    split: SplitName
    """Which of them."""


def read_request(directory: Path) -> ShapeRequest:
    """Of that evaluation. Raises UserError where it is none of this version's."""
    return read_as(ShapeRequest, directory)


def spec_of(request: ShapeRequest) -> RunSpec:
    """The run's, on the data and the hardware of the evaluation."""
    run = request.settings.model.run
    assert run is not None, "there is no CAD model of others"
    spec = read_spec(run)
    recipe = spec.recipe.model_copy(update={"data": request.cad})
    return spec.model_copy(update={"recipe": recipe, "data": request.facts, "hardware": request.hardware})


def digest(models: Sequence[Asked]) -> str:
    """The same for the same CAD models."""
    return sha256(json.dumps([asdict(one) for one in models]).encode()).hexdigest()
