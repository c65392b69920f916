"""State of models that are not ours: tied, one-element, odd-sized and frozen parameters, three groups of weight decay.

Engines are given a state and save it; DeepSpeed checkpoints of another program are written anew and go on there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import furthest
from raw_worker import AFTER, BEFORE, given, groups_of, odd, optimizer_of
from starts import run_script
from torch import Tensor

from zerofit.launch.relocate import relocate
from zerofit.models.zero_files import zero_weights
from zerofit.models.zero_states import zero_states

pytestmark = pytest.mark.thorough

# ZeRO-3 last: it replaces F.linear for the rest of a process.
ENGINES = ("ddp", "fsdp2", "zero1", "zero2", "zero3")
OTHER = dict(zip(ENGINES, (*ENGINES[1:], ENGINES[0]), strict=True))
"""Of each engine, the one whose files it takes its state from."""
Job = tuple[str, dict[str, Any]]
Given = dict[str, Tensor]


def numbers() -> dict[str, Any]:
    """A state of known numbers."""
    draw = torch.Generator().manual_seed(7)
    shapes = {name: one.shape for name, one in odd(0).named_parameters() if one.requires_grad}
    random = {name: [torch.randn(shape, generator=draw) for _ in range(3)] for name, shape in shapes.items()}
    return {
        "weights": {name: values[0] for name, values in random.items()},
        "moments": {name: {"exp_avg": one[1], "exp_avg_sq": one[2].square()} for name, one in random.items()},
        "counts": dict.fromkeys(shapes, 9.0),
    }


def run(jobs: list[Job], world: int, directory: Path) -> list[dict[str, Any]]:
    directory.mkdir()
    (directory / "jobs.json").write_text(json.dumps(jobs))
    run_script("raw_worker.py", directory / "jobs.json", world=world)
    return json.loads((directory / "jobs.outcomes.json").read_text())


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """From two ranks to one and back to two: the engines, and the program's checkpoint."""
    base = tmp_path_factory.mktemp("raw")
    torch.save(numbers(), base / "numbers.pt")
    first: list[Job] = [
        ("restore", {"strategy": one, "source": str(base / "numbers.pt"), "source_strategy": None, "output": str(at)})
        for one, at in places(base, "first")
    ]
    first.insert(-1, ("train", {"strategy": "zero1", "output": str(base / "low"), "low": True}))
    first.insert(-1, ("train", {"strategy": "zero2", "output": str(base / "zero2")}))
    done = {"base": base, "zero2": run(first, 2, base / "start-1")[-2]}
    second: list[Job] = [
        *restored(base, "first", "second")[:-1],
        ("rewrite", {"tag": str(base / "zero2/four"), "stage": 1, "output": str(base / "zero1")}),
        ("go_on", {"strategy": "zero1", "source": str(base / "zero1")}),
        ("rewrite", {"tag": str(base / "low/four"), "stage": 1, "output": str(base / "low-zero1")}),
        ("go_on", {"strategy": "zero1", "source": str(base / "low-zero1"), "low": True}),
        restored(base, "first", "second")[-1],
        ("rewrite", {"tag": str(base / "zero2/four"), "stage": 3, "output": str(base / "zero3")}),
        ("go_on", {"strategy": "zero3", "source": str(base / "zero3")}),
        ("rewrite", {"tag": str(base / "low/four"), "stage": 3, "output": str(base / "low-zero3")}),
        ("go_on", {"strategy": "zero3", "source": str(base / "low-zero3"), "low": True}),
    ]
    outcomes = run(second, 1, base / "start-2")
    done |= {"zero1": outcomes[-8], "zero3": outcomes[-3]}
    third: list[Job] = [
        *restored(base, "second", "third")[:-1],
        ("rewrite", {"tag": str(base / "zero3/four"), "stage": 2, "output": str(base / "back")}),
        ("go_on", {"strategy": "zero2", "source": str(base / "back")}),
        restored(base, "second", "third")[-1],
    ]
    return {**done, "back": run(third, 2, base / "start-3")[-2]}


def places(base: Path, name: str) -> list[tuple[str, Path]]:
    return [(one, base / name / one) for one in ENGINES]


def restored(base: Path, before: str, now: str) -> list[Job]:
    return [
        (
            "restore",
            {
                "strategy": one,
                "source": str(base / before / OTHER[one]),
                "source_strategy": OTHER[one],
                "output": str(at),
            },
        )
        for one, at in places(base, now)
    ]


def bits(state: Any) -> dict[str, Tensor]:
    names = [name for group in groups_of(odd(0)) for name in group]
    found = {name: state.weights[name]() for name in names}
    found |= {f"{name} {kind}": read() for name in names for kind, read in state.moments[name].items()}
    return found | {f"{name} step": torch.tensor(state.counts[name]) for name in names}


def different(right: dict[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    assert found.keys() == right.keys()
    return [name for name in right if not torch.equal(right[name], found[name])]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("stop", ["first", "second", "third"])
def test_a_state_comes_out_of_an_engine_as_it_went_in(outcomes: dict[str, Any], engine: str, stop: str) -> None:
    right = bits(given(outcomes["base"] / "numbers.pt", None))
    assert different(right, bits(given(outcomes["base"] / stop / engine, engine))) == []


@pytest.mark.parametrize("target", ["zero1", "zero3", "back"])
def test_another_programs_checkpoint_is_its_own_again(outcomes: dict[str, Any], target: str) -> None:
    base, found, right = outcomes["base"], outcomes[target], outcomes["zero2"]
    assert furthest(found["losses"], right["losses"]) <= 1e-6
    assert right["losses"][0] != pytest.approx(right["before"][0], rel=0.01)
    rate = 0.02 / (1 + BEFORE / 5)
    assert found["where"] == [BEFORE, BEFORE * 8, BEFORE, pytest.approx([rate] * 3)]
    assert found["decays"] == [0.05, 0.0, 0.01]
    assert found["client"] == {"epoch": 3, "seen": [1, 2], "best": None}
    assert len(found["losses"]) == AFTER
    assert same(base / "zero2/four", base / target / "four") > {"head.weight", "embed.weight", "shift", "frozen.weight"}


@pytest.mark.parametrize("target", ["low-zero1", "low-zero3"])
def test_bf16_has_the_same_masters(outcomes: dict[str, Any], target: str) -> None:
    """Losses differ between engines, which round differently."""
    source = outcomes["base"] / "low/four"
    kind = "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"
    assert (source / kind).exists()
    assert (outcomes["base"] / target / "four" / kind).exists()
    assert "shift" in same(source, outcomes["base"] / target / "four")


def same(before: Path, after: Path) -> set[str]:
    """Compare two tags' directories; the names of what they hold."""
    assert different(bits(zero_states(before)), bits(zero_states(after))) == []
    whole = zero_weights(before, trust=False), zero_weights(after, trust=False)
    assert whole[0].keys() == whole[1].keys()
    for name, read in whole[0].items():  # of ZeRO-3 these are masters
        assert torch.equal(read(), whole[1][name]().to(read().dtype)), name
    return set(whole[0])


@pytest.mark.parametrize("written", ["zero2", "zero3"])
def test_it_goes_on_without_deepspeed(outcomes: dict[str, Any], tmp_path: Path, written: str) -> None:
    assert relocate(outcomes["base"] / written, "single", None, tmp_path / "state.pt") == 0
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert (state["global_steps"], state["client_state"]["seen"]) == (BEFORE, [1, 2])
    model = odd(4)
    optimizer = optimizer_of(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step / 5))
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["lr_scheduler"])
    losses = []
    for step in range(BEFORE, BEFORE + AFTER):
        tokens = torch.randint(11, (8, 6), generator=torch.Generator().manual_seed(step))
        loss = torch.nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([one for one in model.parameters() if one.requires_grad], 0.5)
        optimizer.step()
        schedule.step()
    assert furthest(losses, outcomes["zero2"]["losses"]) <= 1e-6
