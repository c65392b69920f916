"""ZeRO-3 gathers whole blocks: fewer gathers, and the very numbers of ZeRO-2, whose blocks have no hooks within.

The first block is above frozen embeddings, so that no input of it needs a gradient.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cases import PATCH_LM, QWEN3, plan, recipe
from safetensors.torch import load_file
from starts import Work, run_together

from zerofit.plan.files import write_spec
from zerofit.plan.spec import RunSpec
from zerofit.train.engine import WEIGHTS

BLOCKS, STEPS = 4, 8
FROZEN = [r"\.lora_|^head", {"pattern": ".", "freeze": True}]
LORA = {
    **PATCH_LM,
    "shape": {**QWEN3, "num_hidden_layers": BLOCKS},
    "lora": {"rank": 3, "alpha": 12},
    "trainable": FROZEN,
}
STRATEGIES = {
    "zero2": {"name": "zero2"},
    "zero3": {"name": "zero3"},
    "recomputed": {"name": "zero3", "activation_checkpointing": "full"},
    "half": {"name": "zero3", "activation_checkpointing": "selective"},
}
COMPILED = {"compiled": {"name": "zero3", "compile": True}} if shutil.which("g++") else {}
"""On a CPU that takes a C++ compiler."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunSpec]:
    """Without clipping: ranks add up the norm in another order under each engine. Weights come as they are needed."""
    directory = tmp_path_factory.mktemp("units")
    specs = {}
    for name, strategy in (STRATEGIES | COMPILED).items():
        unhelped = {"stage3_param_persistence_threshold": 0, "stage3_prefetch_bucket_size": 0}
        settings = {"zero_optimization": unhelped} if name != "zero2" else None
        made = recipe(
            LORA,
            {**strategy, "deepspeed": settings},
            train={"max_steps": STEPS, "micro_batch": 8},
            optimizer={"clip_grad": None},
            evaluate={"at_end": False},
        )
        specs[name] = plan(made, 2, directory / name)
        write_spec(specs[name])
    works = [Work(str(spec.run_dir), whole=True, collectives=True) for spec in specs.values()]
    run_together(works, 2, directory / "start")
    return specs


@pytest.mark.parametrize("name", ["zero3", "recomputed", "half"])
def test_the_weights_are_those_of_zero_2_to_the_last_bit(trained: dict[str, RunSpec], name: str) -> None:
    found, right = (load_file(_last(trained[one]) / WEIGHTS) for one in (name, "zero2"))
    assert found.keys() == right.keys()
    assert all((found[key] == right[key]).all() for key in right)
    assert all((value != 0).any() for value in right.values()), "every adapter has learnt"


@pytest.mark.skipif(not COMPILED, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_blocks_have_the_same_weights_but_for_the_last_bits(trained: dict[str, RunSpec]) -> None:
    found, right = (load_file(_last(trained[one]) / WEIGHTS) for one in ("compiled", "zero2"))
    assert found.keys() == right.keys()
    assert max((found[key] - right[key]).abs().max() for key in right) < 2e-6


@pytest.mark.parametrize("name", ["zero3", "recomputed", "half", *COMPILED])
def test_a_block_is_gathered_at_once(trained: dict[str, RunSpec], name: str) -> None:
    """In forward and in backward, however often it is computed; outside are embeddings, norm and head."""
    seen = [call for call, _ in json.loads((trained[name].run_dir / "collectives-0.json").read_text())]
    reduced = [place for place, call in enumerate(seen) if "reduce_scatter" in call]
    assert len(reduced) == STEPS, "a step's gradients are sent at once"
    gathers = [call for call in seen[reduced[0] : reduced[-1]] if "allgather_base" in call]
    assert 2 * BLOCKS < len(gathers) / (STEPS - 1) <= 2 * BLOCKS + 8


def _last(spec: RunSpec) -> Path:
    return spec.run_dir / "checkpoints" / f"step-{STEPS:06d}"
