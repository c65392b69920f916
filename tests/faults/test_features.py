"""Features are extracted by real ranks (gloo), one of which is killed; the next start finishes what is missing."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from zerofit.config.schema import Recipe
from zerofit.data.augment import Augmenter
from zerofit.data.cache import Part
from zerofit.data.images import describe, open_split
from zerofit.launch.environment import prepare
from zerofit.launch.failure import Failure
from zerofit.launch.local import Outcome, run_ranks
from zerofit.models.build import build_model
from zerofit.models.placement import WholePlacement
from zerofit.plan.build import make_plan
from zerofit.plan.files import write_spec
from zerofit.plan.spec import Hardware, RunSpec

WORKER = Path(__file__).with_name("features_worker.py")
CPU = Hardware(device="cpu", count=1, name="CPU", memory_gib=8.0, capability=None, cpus=2)
TRAIN, TEST = Part("train", 2, 200, 16), Part("test", 1, 360, 16)
DIES = 5  # at which fsync: amid the second chunk of that rank, whose vectors are written and whose flag is not
SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 33}


def planned(directory: Path, cache: Path, ranks: int, heads: int = 3) -> RunSpec:
    recipe = Recipe.model_validate(
        {
            "task": "probe",
            "model": {"kind": "vit", "patch_size": 4, "shape": SHAPE},
            "data": {"source": "digits", "limit": TRAIN.images, "augment": {"crop_scale": (0.5, 1.0), "flip": 0.5}},
            "train": {"epochs": 4, "micro_batch": 20, "global_batch": 40},
            "optimizer": {"name": "lars", "lr": 1.0, "weight_decay": 0.0},
            "probe": {
                "features": "cached",
                "views": TRAIN.views,
                "cache": cache,
                "lr_scales": (0.3, 1.0, 3.0)[:heads],
                "batch_norms": (False, True) if heads > 1 else (False,),
            },
            "strategy": "ddp",
        }
    )
    facts = describe(recipe.data, None, 0)
    spec = make_plan(recipe, facts=facts, hardware=CPU, ranks=ranks, run_dir=directory)
    write_spec(spec)
    return spec


def start(*specs: RunSpec, die: int | None = None, asks: Sequence[int] = ()) -> Outcome:
    environ = dict(os.environ)
    prepare(environ, CPU, local_size=specs[0].batches.ranks)
    environ["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, str(WORKER), *(() if die is None else ("--die", str(die)))]
    runs = [str(spec.run_dir) for spec in specs]
    command += [f"--ask={number}" for number in asks]
    return run_ranks([*command, *runs], specs[0].batches.ranks, specs[0].run_dir / "logs", environ)


def outcomes(*specs: RunSpec, asks: Sequence[int] = ()) -> list[dict[str, Any]]:
    done = start(*specs, asks=asks)
    assert done.failure is None, done.failure.traceback
    return [json.loads((spec.run_dir / "outcome.json").read_text()) for spec in specs]


def contents(directory: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


def done_in(directory: Path) -> int:
    """Chunks that are done."""
    return sum(int(np.fromfile(directory / f"{part.name}.done", dtype=np.uint8).sum()) for part in (TRAIN, TEST))


class Killed(NamedTuple):
    """A start of two ranks of which the last was killed, and what one rank then made of its cache."""

    failure: Failure | None
    done: int
    finished: dict[str, Any]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Killed]:
    """What one rank computes, undisturbed; and where it goes on."""
    directory = tmp_path_factory.mktemp("features")
    killed = start(planned(directory / "killed", directory / "half", ranks=2), die=DIES)
    (half,) = (directory / "half").iterdir()
    done = done_in(half)
    alone, finished = outcomes(
        planned(directory / "alone", directory / "cache", ranks=1),
        planned(directory / "finished", directory / "half", ranks=1),
    )
    assert finished["directory"] == str(half)
    return alone, Killed(killed.failure, done, finished)


@pytest.fixture(scope="module")
def alone(both: tuple[dict[str, Any], Killed]) -> dict[str, Any]:
    return both[0]


def test_features_are_those_of_the_model_and_its_views(alone: dict[str, Any], tmp_path: Path) -> None:
    assert alone["train"] == [2, 200, 16]
    assert not alone["reused"]
    spec = planned(tmp_path / "run", tmp_path / "cache", ranks=1)
    model = build_model(spec, WholePlacement(torch.device("cpu"), torch.float32), torch.float32).eval()
    data = spec.recipe.data
    augment = Augmenter(data.augment, 8, 10, 0, data.mean, data.std)
    images = open_split(data, spec.data, "train", 0)
    pixels = torch.stack([images[i][0] for i in (0, 5, 199)])
    numbers, epoch = torch.tensor([0, 5, 199]), torch.ones(3, dtype=torch.int64)
    batch = {"images": pixels, "labels": numbers, "index": numbers, "epoch": epoch}
    with torch.no_grad():
        expected = model.features(augment(batch)[0])
    found = np.fromfile(Path(alone["directory"]) / "train.bf16", dtype=np.int16)
    second = torch.from_numpy(found).view(torch.bfloat16).view(2, 200, 16)[1, numbers]
    torch.testing.assert_close(second.float(), expected, rtol=2**-8, atol=1e-5)

    tests = open_split(data, spec.data, "test", 0)
    with torch.no_grad():
        plain = model.features(Augmenter.plain(data.mean, data.std)(torch.stack([tests[359][0]])))
    found = np.fromfile(Path(alone["directory"]) / "test.bf16", dtype=np.int16)
    last = torch.from_numpy(found).view(torch.bfloat16).view(360, 16)[-1:]
    torch.testing.assert_close(last.float(), plain, rtol=2**-8, atol=1e-5)


def test_a_cache_of_two_ranks_one_of_them_killed_is_finished_by_one_rank(both: tuple[dict[str, Any], Killed]) -> None:
    alone, (failure, done, finished) = both
    assert failure is not None
    assert failure.rank == 1
    assert "killed by SIGKILL" in failure.message
    total = TRAIN.chunks + TEST.chunks
    assert 1 <= done < total
    assert len(finished["forwards"]) == 2 * (total - done)  # a chunk of 32 is two forwards of at most 20
    assert set(finished["forwards"]) == {16}
    assert contents(finished["directory"]) == contents(alone["directory"])
    assert finished["losses"] == alone["losses"]


def test_two_ranks_that_were_interrupted_make_the_same_cache_reuse_it_and_train_the_same_heads(
    alone: dict[str, Any], tmp_path: Path
) -> None:
    cut, made, reused, one_head = outcomes(
        planned(tmp_path / "cut", tmp_path / "cache", ranks=2),
        planned(tmp_path / "made", tmp_path / "cache", ranks=2),
        planned(tmp_path / "reused", Path(alone["directory"]).parent, ranks=2),
        planned(tmp_path / "one", tmp_path / "cache", ranks=2, heads=1),
        asks=[6, 0, 0, 2],
    )
    assert cut["phases"] == [[f"features of train, batch {number}" for number in range(1, 7)]] * 2
    assert len(cut["forwards"]) == 5  # of which the last is of a chunk that is not done
    turns = -(-(TRAIN.chunks - 4) // 2) + TEST.chunks // 2  # each rank has kept two chunks
    assert len(made["forwards"]) == 2 * turns
    assert one_head["phases"] == [["heads, step 5", "heads, step 10"]] * 2  # rank 1 has no head, and stops as well
    assert not made["reused"]
    assert contents(made["directory"]) == contents(alone["directory"])
    assert reused["reused"]
    assert reused["forwards"] == []
    for one in (made, reused):
        assert one["best"] == alone["best"]
        assert one["trials"] == alone["trials"]
        assert one["test"]["confusion"] == alone["test"]["confusion"]
        np.testing.assert_allclose(one["losses"], alone["losses"], rtol=1e-6)
