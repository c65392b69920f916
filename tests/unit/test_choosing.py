"""`strategy: auto`: which plan is taken out of which, on cards by their name, and that a run keeps to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_examples import CPU, FACTS, gpus, recipe, refuse_zero3
from played_by_formulas import play_by_formulas
from typer.testing import CliRunner

from zerofit import cli
from zerofit.config.errors import UserError
from zerofit.config.load import load_job
from zerofit.launch import choosing, planning
from zerofit.launch.alternatives import short_of
from zerofit.launch.asked import Asked
from zerofit.launch.contenders import sizes
from zerofit.launch.predicting import Timed
from zerofit.launch.recipe import override
from zerofit.launch.replan import replan
from zerofit.plan.answer import Plan
from zerofit.plan.auto import USUAL, divisors, micro_batches, settled
from zerofit.plan.build import make_plan
from zerofit.plan.choice import Choice, Row
from zerofit.plan.files import read_spec, write_spec
from zerofit.plan.spec import RunSpec
from zerofit.predict.choose import MARGIN, ORDER, RECOMPUTED, best, next_best
from zerofit.prove.cases import Case
from zerofit.prove.common import common

AUTO = ("strategy=auto", "strategy.activation_checkpointing=auto", "train.micro_batch=auto")


@pytest.fixture(autouse=True)
def _laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without GPUs and without data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(planning, "detect", lambda: CPU)


@pytest.fixture
def steps_played(monkeypatch: pytest.MonkeyPatch) -> list[RunSpec]:
    """Steps that were played through: here by formulas that call themselves exact."""
    monkeypatch.setattr(Timed, "seen", lambda self, spec: None)
    return play_by_formulas(monkeypatch)


def planned(name: str, asked: Asked, *words: str, stage: int = 0) -> planning.Staged:
    """A shipped recipe with all left to the planner, then `words`: what formulas choose."""
    said = load_job(name, [*AUTO, *words]).stages[stage]
    return planning.staged_plan(said, asked, None, follows=stage > 0)


def made(spec: RunSpec) -> Choice:
    assert spec.choice is not None
    return spec.choice


def how(spec: RunSpec) -> tuple[str, str | None, str]:
    return spec.strategy.name, spec.strategy.offload.optimizer, spec.strategy.activation_checkpointing


def test_a_small_model_on_a_large_card_is_simply_replicated() -> None:
    spec = planned("vit-tiny-cifar10", Asked(4, "h100")).spec
    assert how(spec) == ("ddp", None, "none")
    assert spec.batches.accumulation == 1, "nothing is gained by smaller micro-batches"
    assert planned("vit-tiny-cifar10", Asked(1, "h100")).spec.strategy.name == "single"


def test_a_large_model_is_sharded_as_far_as_it_must_be() -> None:
    spec = planned("qwen3-8b-sft", Asked(8, "h100")).spec
    name, offloaded, recomputed = how(spec)
    assert name in ("zero2", "fsdp2", "zero3"), "every rank cannot have all of the optimizer's state"
    assert offloaded is None
    assert recomputed != "none", "8,192 tokens of 36 blocks do not fit beside it"
    refused = {row.strategy for row in made(spec).table if row.verdict == "does not fit"}
    assert "ddp" in refused
    second = made(spec).runner_up
    assert second is not None
    assert second.strategy != name
    assert f"; next: {second.strategy}, about " in made(spec).why


def test_what_small_cards_cannot_hold_is_offloaded() -> None:
    spec = planned("qwen3-8b-sft", Asked(2, None, "11GiB", "512GiB"), "data.max_length=512").spec
    assert how(spec) == ("fsdp2", "cpu", "full")
    assert made(spec).chosen is not None
    short = planned("qwen3-8b-sft", Asked(2, None, "11GiB", "64GiB"), "data.max_length=512").spec
    with pytest.raises(UserError, match=r"auto: nothing fits 2 x GPU of 11 GiB.*of the host's 64"):
        choosing.check(short)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("vit-huge-food101", Asked(2, "rtx-2080-ti", None, "256GiB")),
        ("vit-base-cifar100-lora", Asked(3, None, "24GiB")),
        ("deepseek-r1-7b-sft", Asked(1, "a100-40gb")),
        ("deepseek-r1-7b-sft", Asked(8, "rtx-2080-ti", None, "64GiB")),
        ("deepseek-r1-7b-grpo", Asked(3, None, "24GiB")),
        ("qwen3-8b-sft", Asked(1, "t4")),
        ("cad-mllm", Asked(2, "h200")),
    ],
)
def test_what_is_chosen_is_the_best_that_fits(name: str, asked: Asked) -> None:
    words = ("strategy.precision=auto",)
    spec = planned(name, asked, *words).spec
    chosen, table = made(spec).chosen, made(spec).table
    assert len({(row.strategy, row.micro_batch, row.activation_checkpointing) for row in table}) == len(table)
    if chosen is None:
        assert {row.verdict for row in table} <= {"does not fit", None}
        return
    assert chosen in table
    assert (chosen.strategy, chosen.micro_batch, chosen.accumulation, chosen.activation_checkpointing) == (
        short_of(spec.strategy),
        spec.batches.micro,
        spec.batches.accumulation,
        spec.strategy.activation_checkpointing,
    )
    able = [row for row in table if row.verdict == chosen.verdict]
    assert chosen.verdict == "fits" or all(row.verdict != "fits" for row in table)
    assert (chosen.samples_s or 0) >= (1 - MARGIN) * max(row.samples_s or 0 for row in able)
    assert all(row.samples_s is None for row in table if row.verdict == "does not fit")
    assert all(row.micro_batch * row.accumulation * spec.batches.ranks == spec.batches.global_batch for row in table)
    assert spec.prediction is not None
    assert spec.prediction.peak_gib == pytest.approx(chosen.peak_gib, abs=0.01)
    assert spec.recipe.strategy.name == spec.recipe.train.micro_batch == "auto", "nothing is written back"


def test_what_the_recipe_says_is_kept() -> None:
    asked = Asked(8, "h100")
    micro = planned("qwen3-8b-sft", asked, "train.micro_batch=2").spec
    assert {row.micro_batch for row in made(micro).table} == {micro.batches.micro} == {2}
    named = planned("qwen3-8b-sft", asked, "strategy=zero3").spec
    assert {row.strategy for row in made(named).table} == {named.strategy.name} == {"zero3"}
    whole = planned("qwen3-8b-sft", asked, "strategy.activation_checkpointing=full").spec
    assert {row.activation_checkpointing for row in made(whole).table} == {"full"}
    said = planned("qwen3-8b-sft", asked, "strategy=zero3", "train.micro_batch=1").spec
    assert (said.choice, said.strategy.activation_checkpointing) == (None, "none"), "nothing else is left to choose"


def test_a_file_that_is_the_strategy_stays_it(tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    file.write_text('{"zero_optimization": {"stage": 2}, "bf16": {"enabled": true}}')
    said = recipe(train={"micro_batch": "auto"}, strategy={"deepspeed": str(file)})
    base = make_plan(said, facts=FACTS, hardware=gpus(4), ranks=4, run_dir=tmp_path / "run", here=False)
    spec = choosing.choose(base, None, None, here=False)
    assert {row.strategy for row in made(spec).table} == {"zero2"}
    assert spec.deepspeed is not None
    assert spec.deepspeed["train_micro_batch_size_per_gpu"] == spec.batches.micro == 16


def test_a_strategy_that_cannot_be_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zerofit.plan.build._check_strategy", refuse_zero3)
    spec = planned("vit-huge-food101", Asked(4, "h200")).spec
    (row,) = (row for row in made(spec).table if row.strategy == "zero3")
    assert row.reason is not None
    assert row.reason == "zero3 cannot do it"


def test_a_model_of_unknown_size_is_planned_by_a_rule() -> None:
    words = ("model.pretrained=someone/some-model", "strategy.precision=auto")
    spec = planned("qwen3-8b-cifar10", Asked(4, "h200"), *words).spec
    assert how(spec) == ("zero2", None, "full")
    assert made(spec).chosen is None
    assert "by rule, for nothing is predicted: the sizes of someone/some-model are not at hand" in made(spec).why
    choosing.check(spec)


def test_a_cpu_takes_what_was_the_default() -> None:
    said = recipe(train={"micro_batch": "auto", "global_batch": 192})
    spec = choosing.choose(make_plan(said, facts=FACTS, hardware=CPU, ranks=2, run_dir=Path("runs/a")), 8.0, None)
    assert (how(spec), spec.batches.micro) == (("ddp", None, "none"), USUAL)
    assert made(spec).why == (
        "ddp, micro-batch 32 x 3, no activation checkpointing: by rule, for nothing is predicted on a CPU"
    )


def test_the_step_of_what_is_chosen_is_played_through() -> None:
    one = planned("vit-tiny-cifar10", Asked(2, "a100"))
    spec = planning.chosen(one, Timed()).spec
    chosen = made(spec).chosen
    assert chosen is not None
    assert chosen.exact
    assert how(spec) == ("ddp", None, "none")
    assert spec.prediction is not None
    assert spec.prediction.memory.exact
    assert spec.prediction.speed is not None
    assert spec.prediction.speed.samples_s == chosen.samples_s
    assert f": {chosen.samples_s:,.1f} samples/s predicted, " in made(spec).why
    assert sum(row.exact for row in made(spec).table) <= choosing.PLAYS


def test_a_plan_shows_what_was_chosen(steps_played: list[RunSpec]) -> None:
    words = ["plan", "qwen3-8b-sft", *AUTO, "--gpus", "8", "--gpu", "h100"]
    done = CliRunner().invoke(cli.app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    (stage,) = Plan.model_validate_json(done.stdout).stages
    assert stage.choice is not None
    assert stage.choice.chosen is not None
    own = next(one for one in stage.strategies if one.own)
    assert own.strategy == stage.choice.chosen.strategy
    assert own.prediction is not None
    assert own.prediction.memory.exact
    assert stage.micro_batch == stage.choice.chosen.micro_batch
    assert len({spec.model_dump_json() for spec in steps_played}) == len(steps_played), "none is played twice"
    text = CliRunner().invoke(cli.app, [*words, "--quick"]).output
    assert "\nauto: " in text
    assert "\n* " in text
    assert "what auto chose" in text


def test_a_plan_of_what_fits_nowhere_says_so() -> None:
    done = CliRunner().invoke(
        cli.app, ["plan", "qwen3-8b-sft", *AUTO, "--gpus", "1", "--gpu-memory", "6GiB", "--quick"]
    )
    assert done.exit_code == 0
    assert "auto: nothing fits GPU of 6 GiB (Ampere assumed): zero3+offload_all, micro-batch 1 x 64" in done.output


def test_a_grid_asks_what_fits_at_all() -> None:
    machines = ["gpus=2", "gpu-memory=11,80", "--quick"]
    done = CliRunner().invoke(cli.app, ["plan", "qwen3-8b-sft", *AUTO, "--search", *machines])
    assert done.exit_code == 0, done.output
    assert "2     zero3+offload_all, tight  zero2+offload_optimizer" in done.output


@pytest.fixture
def chosen_run(tmp_path: Path) -> RunSpec:
    spec = planned("qwen3-8b-sft", Asked(8, "h100")).spec
    write_spec(spec.model_copy(update={"run_dir": tmp_path / "run"}))
    return read_spec(tmp_path / "run")


def test_run_json_has_it_all(chosen_run: RunSpec) -> None:
    assert made(chosen_run).chosen in made(chosen_run).table
    assert chosen_run.recipe.strategy.name == "auto"
    assert settled(chosen_run).strategy.name == chosen_run.strategy.name
    assert settled(chosen_run).train.micro_batch == chosen_run.batches.micro


def test_a_run_that_goes_on_keeps_what_was_chosen(chosen_run: RunSpec) -> None:
    old, cards = chosen_run, gpus(8)
    assert replan(old.run_dir, old, old.recipe, cards, None) is old
    fewer = replan(old.run_dir, old, old.recipe, cards, 4)
    assert (fewer.strategy, fewer.batches.ranks) == (old.strategy, 4)
    assert fewer.batches.micro == old.batches.micro
    assert made(fewer).why.startswith(f"kept as the run was begun: {old.strategy.name}, micro-batch ")
    other = replan(old.run_dir, old, override(old.recipe, ["strategy=zero3"]), cards, None)
    assert other.strategy.name == "zero3"
    assert other.batches.micro == old.batches.micro
    assert other.strategy.activation_checkpointing == old.strategy.activation_checkpointing
    smaller = replan(old.run_dir, old, override(old.recipe, ["train.micro_batch=1"]), cards, None)
    assert (smaller.strategy, smaller.batches.micro) == (old.strategy, 1)


@pytest.mark.parametrize(("ranks", "micro"), [(1, 32), (3, 32), (6, 16)])
def test_on_other_ranks_a_micro_batch_that_divides_is_taken(ranks: int, micro: int, tmp_path: Path) -> None:
    said = recipe(train={"micro_batch": "auto", "global_batch": 96})
    old = make_plan(said, facts=FACTS, hardware=CPU, ranks=1, run_dir=tmp_path)
    assert old.batches.micro == 32
    assert replan(tmp_path, old, said, CPU, ranks).batches.micro == micro


def test_generations_come_out_whole() -> None:
    spec = planned("deepseek-r1-7b-grpo", Asked(2, "rtx-2080-ti"), "strategy.precision=auto").spec
    assert spec.grpo is not None
    assert made(spec).chosen is not None
    assert all(row.samples_s is None for row in made(spec).table)


def test_a_comparison_has_one_micro_batch() -> None:
    cases = [Case("ddp", 2), Case("zero2", 3)]
    said = recipe(train={"micro_batch": "auto", "global_batch": 96})
    assert common(said, cases, FACTS, CPU).train.micro_batch == 16, "of 48 and 32 the largest common divisor"
    settled_once = common(said, cases, FACTS, gpus(4))
    assert settled_once.train.micro_batch == 16
    assert settled_once.strategy.activation_checkpointing == "none"
    small = gpus(4).model_copy(update={"memory_gib": 2.2})
    assert common(said, cases, FACTS, small).train.micro_batch != "auto"
    assert common(said, [*cases, Case("ddp", 5)], FACTS, CPU).train.micro_batch == 16, "that row is refused anyway"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"strategy": {"offload": {"optimizer": "cpu"}}}, "auto chooses what is offloaded, too"),
        ({"strategy": {"name": "auto", "deepspeed": {"x": 1}}}, "deepspeed settings need a ZeRO strategy by its name"),
    ],
)
def test_what_auto_does_not_take(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        recipe(**fields)


rows = st.builds(
    Row,
    strategy=st.sampled_from(ORDER),
    micro_batch=st.sampled_from([1, 2, 4]),
    accumulation=st.just(1),
    activation_checkpointing=st.sampled_from(RECOMPUTED),
    verdict=st.sampled_from(["fits", "tight", "does not fit"]),
    samples_s=st.one_of(st.none(), st.floats(0.1, 1000.0)),
)


@given(st.lists(rows, max_size=12))
def test_the_simplest_of_the_fastest_is_taken(table: list[Row]) -> None:
    taken = best(table)
    able = [row for row in table if row.verdict == "fits"] or [row for row in table if row.verdict == "tight"]
    if taken is None:
        assert not able
        return
    assert taken in able
    fastest = max(row.samples_s or 0.0 for row in able)
    assert (taken.samples_s or 0.0) >= (1 - MARGIN) * fastest

    def simpler(row: Row) -> tuple[int, int]:
        return ORDER.index(row.strategy), RECOMPUTED.index(row.activation_checkpointing)

    near = [row for row in able if (row.samples_s or 0.0) >= (1 - MARGIN) * fastest]
    assert simpler(taken) == min(map(simpler, near))
    second = next_best(table, taken)
    assert second is None or second != taken


@given(st.integers(1, 5000), st.integers(1, 16))
def test_micro_batches_divide_and_are_few(share: int, ranks: int) -> None:
    every = micro_batches(share * ranks, ranks)
    assert every == divisors(share) == tuple(one for one in range(1, share + 1) if share % one == 0)
    few = sizes(every)
    assert {1, share} <= set(few) <= set(every)
    assert len(few) <= share.bit_length() + 2
