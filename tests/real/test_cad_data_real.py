"""DeepCAD's own models as samples: with Text2CAD's captions, and clouds that were made elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from zerofit.cad.kernel import Invalid, Kernel
from zerofit.cad.quantise import dequantise
from zerofit.cad.text import read
from zerofit.config.schema import Recipe
from zerofit.data.cad import describe, slots_of
from zerofit.data.cad_clouds import open_clouds
from zerofit.data.cad_inputs import draw_inputs
from zerofit.data.cad_order import CadOrder
from zerofit.data.cad_samples import open_cad_samples
from zerofit.data.cad_table import read_table
from zerofit.plan.batch import make_batches

ROOT = Path(__file__).parents[3] / "shared" / "data"
DEEPCAD, GPT2 = ROOT / "cad" / "deepcad_text2cad", ROOT / "tokenizers" / "gpt2"

pytestmark = pytest.mark.real
Lengths = NDArray[np.int64]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROFIT_CACHE", str(tmp_path / "cache"))


def recipe(micro: int = 2, **data: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "task": "cad",
            "model": {
                "kind": "cad_mllm",
                "shape": "qwen3-tiny",
                "tokenizer": "bytes",
                "points": {"latents": 16, "width": 16, "depth": 1, "heads": 2},
            },
            "data": {"source": "deepcad", "path": str(DEEPCAD), "max_length": 8000, **data},
            "train": {"epochs": 1, "micro_batch": micro, "global_batch": 8},
            "optimizer": {"lr": 1e-3},
        }
    )


def test_every_model_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    asked = recipe(caption="expert", validation=0.2, mix={"text": 1, "text+points": 1})
    facts = describe(asked)
    assert (facts.train, facts.validation, facts.left_out) == (60, 15, 0)
    assert not capsys.readouterr().out
    assert facts.clouds_in is not None
    clouds = open_clouds(facts.clouds_in, 2048)
    given = [number for number, row in enumerate(read_table(asked.cad, 0).rows) if row.cloud is not None]
    assert np.abs(clouds[given][:, :, :3]).max() == pytest.approx(0.75, abs=1e-3)
    assert np.linalg.norm(clouds[:, :, 3:], axis=-1) == pytest.approx(1.0, abs=2e-3)  # float16 in the file


def epochs(asked: Recipe, ranks: int = 1) -> Iterator[tuple[Lengths, list[Lengths]]]:
    """Of three epochs the tokens of every sample, and those of each micro-batch of any rank."""
    facts = describe(asked)
    samples, shares = open_cad_samples(facts, "train"), asked.cad.shares
    sizes, batches = samples.sizes(slots_of(asked)), make_batches(asked, facts, ranks)
    for epoch in range(3):
        which, images = draw_inputs(shares, 0, epoch, len(samples)), np.ones(len(samples), dtype=np.int64)
        lengths = sizes.drawn(shares, which, images)
        orders = [CadOrder(sizes, asked.cad, batches, 0, rank) for rank in range(ranks)]
        for order in orders:
            order.seek(epoch)
        yield lengths, [lengths[[key.sample for key in keys]] for order in orders for keys in order]


def padding(groups: Sequence[Lengths]) -> float:
    """Share of the places of these micro-batches that are filled up."""
    return 1 - sum(int(one.sum()) for one in groups) / sum(int(one.max()) * len(one) for one in groups)


@pytest.mark.parametrize("caption", ["abstract", "expert"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_padding_is_small(caption: str, ranks: int) -> None:
    asked = recipe(caption=caption, validation=0.01, mix={"text": 1, "text+points": 1})
    assert padding([one for _, groups in epochs(asked, ranks) for one in groups]) <= 0.03


@pytest.mark.parametrize(("caption", "most", "least"), [("abstract", 0.043, 0.033), ("expert", 0.076, 0.028)])
def test_micro_batches_of_four_have_the_least_padding_that_few_models_allow(
    caption: str, most: float, least: float
) -> None:
    """Groups that follow one another in length are the best; `least`: whichever two of the 74 models an epoch left out.

    Of long captions that would be the two longest, each time.
    """
    asked = recipe(4, caption=caption, validation=0.01, mix={"text": 1, "text+points": 1})
    found = list(epochs(asked))
    for lengths, groups in found:
        used = np.sort(np.concatenate(groups))
        assert padding(groups) == padding(list(used.reshape(-1, 4)))
        ordered = np.sort(lengths)
        others = (np.delete(ordered, pair).reshape(-1, 4) for pair in combinations(range(len(ordered)), 2))
        assert min(1 - one.sum() / (4 * one.max(axis=1).sum()) for one in others) > least
    assert padding([one for _, groups in found for one in groups]) <= most


def test_clouds_that_were_made_elsewhere_lie_where_the_commands_build() -> None:
    asked = recipe(validation=0.2, caption="abstract", mix={"points": 1})
    table, facts = read_table(asked.cad, 0), describe(asked)
    assert facts.clouds_in is not None
    clouds = open_clouds(facts.clouds_in, 2048)
    given = [number for number, row in enumerate(table.rows) if row.cloud is not None]
    assert len(given) == 63
    apart = []
    with Kernel(workers=2) as kernel:
        for number in given:
            made = kernel.points(dequantise(read(table.rows[number].commands)), 2048, 1)
            assert not isinstance(made, Invalid)
            apart.append(cKDTree(made[:, :3]).query(clouds[number, :, :3])[0].mean())
    assert np.median(apart) < 0.02
    assert np.quantile(apart, 0.9) < 0.05
