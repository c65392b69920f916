"""A CAD-MLLM trains the same under every strategy, whatever its rows show, and every rank sends the same in one order.

The reference takes each row alone and runs no encoder for nothing, so it also says that padding, and what stands in
where a batch shows no image or no cloud, change nothing.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from cad_reference import cad_reference
from cad_task import APART, FACTS, batch_of, global_batch
from cases import CPU, SMALL, furthest, recipe
from reference import Curve
from safetensors.torch import load_file
from starts import Work, asked_for, column, outcome_of, run_together
from transformers import AutoModelForCausalLM

from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.launch.convert import convert
from zerofit.launch.export import export
from zerofit.models.build import build_model
from zerofit.models.placement import WholePlacement
from zerofit.plan.build import make_plan
from zerofit.plan.files import write_spec
from zerofit.plan.grpo_memory import COLUMNS
from zerofit.plan.spec import RunSpec
from zerofit.train.engine import WEIGHTS

STEPS, SAVED, WORLD = 10, 5, 2
WHOLE = WholePlacement(torch.device("cpu"), torch.float32)
LANGUAGE = {"model_type": "qwen3", "num_key_value_heads": 1, "head_dim": 8, **SMALL, "vocab_size": 48}
MODEL = {
    "kind": "cad_mllm",
    "tokenizer": "bytes",
    "shape": {**LANGUAGE, "tie_word_embeddings": True},
    "vision": {
        "shape": {**{k: v for k, v in SMALL.items() if k != "intermediate_size"}, "patch_size": 4},
        "image_size": 8,
    },
    "points": {"latents": 3, "width": 12, "depth": 2, "heads": 2, "frequencies": 3},
}
FREEZE = [{"pattern": r"^vision\.", "freeze": True}, "."]
LORA = {**MODEL, "lora": {"rank": 3, "alpha": 12}}
# Its logits are made in two tiles. Its head is frozen: torch's float32 norm of so many gradients is off by 1e-4, so
# that shares of them have another one.
WIDE = {**LORA, "shape": {**LANGUAGE, "vocab_size": COLUMNS + 48}}
KINDS: dict[str, tuple[dict[str, Any], dict[str, float]]] = {
    "whole": (MODEL, {"text": 1.0}),
    "frozen": ({**MODEL, "trainable": FREEZE}, {"text": 1.0}),
    "lora": (LORA, {"text": 1.0}),
    "lora-wide": (WIDE, {"text": 1.0}),
    "apart": (MODEL, APART),
    "lora-apart": (LORA, APART),
}
STRATEGIES = ("ddp", "fsdp2", "zero1", "zero2", "zero2+offload_optimizer", "zero3")
FEWER = {"whole": STRATEGIES, "apart": ("ddp", "fsdp2", "zero3"), "lora-apart": ("fsdp2", "zero3")}
LOSS, GRAD_NORM, WEIGHT = 1e-6, 3e-6, 3e-6  # relative, relative, absolute; as in test_sft.py


def small(kind: str, strategy: str | dict[str, Any]) -> Recipe:
    """What the rows are is decided in cad_task.py; of `data` it looks at the mix alone."""
    model, mix = KINDS[kind]
    return recipe(
        model,
        strategy,
        task="cad",
        data={"source": "parts", "mix": mix},
        train={"max_steps": STEPS, "micro_batch": 2, "global_batch": 8},
        optimizer={"lr": 3e-3, "clip_grad": 1.0},
        evaluate={"micro_batch": 4},
        checkpoint={"every_steps": SAVED},
    )


def planned(made: Recipe, run_dir: Path, world: int = WORLD) -> RunSpec:
    return make_plan(made, facts=FACTS, hardware=CPU, ranks=world, run_dir=run_dir)


RUNS: dict[str, tuple[str, Recipe]] = {
    f"{kind}-{strategy}": (kind, small(kind, strategy))
    for kind in KINDS
    for strategy in FEWER.get(kind, ("ddp", "fsdp2", "zero2", "zero3"))
}
for _engine in ("fsdp2", "zero3"):
    checkpointing = {"name": _engine, "activation_checkpointing": "full"}
    for _kind in ("apart", "lora"):
        RUNS[f"{_kind}-{_engine}-checkpointing"] = (_kind, small(_kind, checkpointing))
LOW = {f"{kind}-{name}-bf16": (kind, name) for kind in ("apart", "lora-apart") for name in ("ddp", "fsdp2", "zero3")}
RUNS |= {name: (kind, small(kind, {"name": engine, "precision": "bf16"})) for name, (kind, engine) in LOW.items()}
SHORT = ("whole-ddp", "apart-fsdp2", "apart-zero3", "lora-zero2")
NAMES = [pytest.param(name, marks=[] if name in SHORT else pytest.mark.thorough) for name in RUNS if name not in LOW]


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunSpec]:
    """Those that are asked for."""
    directory = tmp_path_factory.mktemp("cad")
    specs = {name: planned(RUNS[name][1], directory / name) for name in RUNS if name in asked_for(request)}
    for spec in specs.values():
        write_spec(spec)
    ordered = sorted(specs.values(), key=lambda spec: spec.strategy.name == "zero3")
    works = [Work(str(spec.run_dir), whole=True, synthetic=True, collectives=True) for spec in ordered]
    run_together(works, WORLD, directory / "start")
    return specs


@cache
def oracle(kind: str) -> Curve:
    return cad_reference(planned(small(kind, "ddp"), Path("unused")))


def checkpoint(spec: RunSpec, step: int) -> Path:
    return spec.run_dir / "checkpoints" / f"step-{step:06d}"


@pytest.mark.parametrize("name", NAMES)
def test_the_same_training(trained: dict[str, RunSpec], name: str) -> None:
    spec, right = trained[name], oracle(RUNS[name][0])
    assert len(right.loss) == STEPS
    assert furthest(column(spec, "loss"), right.loss) < LOSS
    assert furthest(column(spec, "grad_norm"), right.grad_norm) < GRAD_NORM
    assert outcome_of(spec)["test"]["loss"] == pytest.approx(right.test_loss, rel=LOSS)
    assert right.loss[-1] < right.loss[0]  # it learns
    held = load_file(checkpoint(spec, STEPS) / WEIGHTS)
    assert right.weights.keys() <= held.keys()
    for key, value in right.weights.items():
        assert (held[key] - value).abs().max() < WEIGHT, key


@pytest.mark.thorough
@pytest.mark.parametrize("name", LOW)
def test_about_the_same_in_bf16(trained: dict[str, RunSpec], name: str) -> None:
    """Every part computes in the types that its engine asks for; two digits of bf16 are what can be compared."""
    assert column(trained[name], "loss") == pytest.approx(oracle(LOW[name][0]).loss, rel=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_ranks_send_the_same_in_one_order(trained: dict[str, RunSpec], name: str) -> None:
    """Also where one shows clouds alone and the other images alone; and the run has come to its end."""
    sent = [json.loads((trained[name].run_dir / f"collectives-{rank}.json").read_text()) for rank in range(WORLD)]
    assert len(sent[0]) > STEPS
    assert sent[0] == sent[1]


def test_every_part_is_trained_and_moves_the_loss() -> None:
    """Else the comparison would say nothing of it."""
    spec = planned(small("whole", "ddp"), Path("unused"))
    start, right = build_model(spec, WHOLE, torch.float32), oracle("whole")
    for part in ("language", "vision", "points", "image_projector", "point_projector"):
        names = [name for name in right.weights if name.startswith(f"{part}.")]
        assert any((right.weights[name] - start.get_parameter(name)).abs().max() > 1e-3 for name in names), part


@pytest.mark.parametrize("name", ["lora-zero2"])
def test_all_of_it_or_the_language_model_goes_out(
    trained: dict[str, RunSpec], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, given = trained[name], batch_of(global_batch(trained[name], 0))
    labels = given.pop("labels")
    ours = build_model(spec, WHOLE, torch.float32, checkpoint(spec, STEPS) / WEIGHTS).eval()
    export(spec.run_dir, tmp_path / "all")
    plain = small("lora", "ddp")
    plain = plain.model_copy(update={"model": plain.model.model_copy(update={"lora": None})})
    merged = planned(plain, tmp_path).model_copy(update={"origin": tmp_path / "all"})
    again = build_model(merged, WHOLE, torch.float32).eval()
    capsys.readouterr()
    assert convert(spec.run_dir, to="hf", merge_lora=True, output=tmp_path / "hf") == 0
    said = capsys.readouterr().out
    assert "left out, since Qwen3ForCausalLM has no place for it: points." in said
    language = AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    with torch.no_grad():
        right = ours(**given)["logits"][labels != -100]
        assert (again(**given)["logits"][labels != -100] - right).abs().max() < 1e-5 * right.abs().max()
        text = torch.arange(2, 30)[None]
        right = ours(text)["logits"]
        assert (language(text).logits - right).abs().max() < 1e-5 * right.abs().max()
    with pytest.raises(UserError, match="adapters are not all that was trained"):
        convert(spec.run_dir, to="peft", output=tmp_path / "peft")


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["apart-zero3"])
def test_another_strategy_goes_on(trained: dict[str, RunSpec], name: str, tmp_path: Path) -> None:
    """From its checkpoint as it lies there, and from the canonical form of it, which says nothing of ranks."""
    spec, canonical = trained[name], tmp_path / "canonical"
    assert convert(Path(f"{spec.run_dir}@{SAVED}"), to="safetensors", output=canonical) == 0
    made = small("apart", "fsdp2")
    again, converted = planned(made, tmp_path / "again"), planned(made, tmp_path / "converted")
    converted = converted.model_copy(update={"origin": canonical, "origin_step": SAVED})
    for one in (again, converted):
        write_spec(one)
    resumed = Work(str(again.run_dir), whole=True, synthetic=True, resume=str(checkpoint(spec, SAVED)))
    run_together([resumed, Work(str(converted.run_dir), whole=True, synthetic=True)], WORLD, tmp_path / "start")
    for one in (again, converted):
        assert column(one, "loss") == pytest.approx(column(spec, "loss")[SAVED:], rel=LOSS)
        assert column(one, "grad_norm") == pytest.approx(column(spec, "grad_norm")[SAVED:], rel=GRAD_NORM)
