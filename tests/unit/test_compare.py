"""A comparison's arithmetic, its words, its tables, and which runs may stand side by side."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_examples import CPU, FACTS, gpus, recipe

from zerofit.config.errors import UserError
from zerofit.config.load import load_job, recipe_names
from zerofit.config.profile import Profile
from zerofit.config.schema import Recipe
from zerofit.launch.failure import Failure
from zerofit.plan.build import make_plan
from zerofit.plan.spec import RunSpec
from zerofit.prove.cases import Case, cases, recipe_of, window
from zerofit.prove.micro_batch import largest
from zerofit.prove.runs import Work, bare, by_another
from zerofit.prove.work import differences
from zerofit.report.comparison import Comparison, markdown, terminal, write
from zerofit.report.rows import Row, row_of, steady
from zerofit.report.verdict import deviation, related, verdict


def row(name: str, ranks: int = 4, speed: float | None = None, peak: float | None = None, **other: Any) -> Row:
    strategy, plus, addition = name.partition("+")
    label = f"{name} x{ranks}"
    figures: dict[str, Any] = {"samples_s": speed, "peak_allocated_gib": peak}
    return Row(label, strategy, plus + addition, ranks, label.replace(" ", "-"), **(figures | other))


OOM = row("ddp", status="out of memory", why="2.00 GiB more could not be had", needed_gib=97.5)


def test_the_fastest_with_head_room_and_what_the_leanest_costs() -> None:
    rows = [row("zero2", speed=100.0, peak=50.0), row("zero3", speed=77.0, peak=48.9)]
    assert verdict(rows, 80.0) == [
        "zero2 is the fastest that leaves 20 % head-room; zero3 costs 23 % here and saves 1.1 GiB"
    ]
    assert verdict(rows, None) == ["zero2 is the fastest; zero3 costs 23 % here and saves 1.1 GiB"]


def test_one_that_is_faster_and_nearly_full_is_named() -> None:
    rows = [row("ddp", speed=130.0, peak=76.0), row("zero2", speed=100.0, peak=50.0)]
    assert verdict(rows, 80.0) == [
        "zero2 is the fastest that leaves 20 % head-room; none saves memory beside it",
        "ddp is 30 % faster and leaves 5 % head-room",
    ]
    assert verdict([row("ddp", speed=130.0, peak=76.0), row("zero2", speed=100.0, peak=68.0)], 80.0) == [
        "ddp is the fastest; none leaves 20 % head-room, zero2 leaves most, 15 %"
    ]


def test_each_number_of_ranks_has_its_line_and_failures_their_reasons() -> None:
    rows = [
        row("zero2", 1, 30.0, 0.5),
        row("fsdp2", 1, 29.9, 0.25),
        row("zero2", 2, 50.0, 0.5, loss=(1.0,)),
        OOM,
    ]
    assert verdict(rows, None) == [
        "on 1 rank: zero2 is the fastest; fsdp2 costs nothing here and saves 256 MiB",
        "on 2 ranks: zero2 alone ran",
        "on 4 ranks: none of the strategies ran",
        "ddp x4: out of memory: 2.00 GiB more could not be had",
    ]
    assert verdict([], None) == []


def test_scaling_is_against_the_smallest_world_of_the_strategy() -> None:
    rows = [row("zero2", 4, 300.0), row("zero2", 2, 200.0), row("ddp", 4, 300.0), row("zero2+offload_all", 1, 5.0), OOM]
    assert [one.scaling_efficiency for one in related(rows)] == [0.75, 1.0, None, None, None]


def test_losses_are_held_against_the_first_that_ran() -> None:
    rows = [OOM, row("zero2", loss=(2.0, 1.0)), row("fsdp2", loss=(2.0, 1.01)), row("zero3", loss=(2.0, 1.0, 0.5))]
    assert [one.loss_deviation for one in related(rows)] == [None, None, pytest.approx(0.01), 0.0]
    assert "losses differ from those of zero2 x4 by 1e-02 at most (fsdp2 x4)" in verdict(related(rows), None)
    assert deviation((), (1.0,)) is None


SIZES = st.integers(1, 3000)


@given(start=SIZES, most=SIZES, edge=st.integers(0, 4000))
def test_the_largest_micro_batch_is_found_and_none_asked_twice(start: int, most: int, edge: int) -> None:
    asked: list[int] = []

    def fits(size: int) -> bool:
        assert 1 <= size <= most
        asked.append(size)
        return size <= edge

    found, true = largest(fits, start, most), min(edge, most)
    assert found <= true
    assert found == true if true <= 16 else found > true * 15 / 16 - 1
    assert len(asked) == len(set(asked)) <= 30


@pytest.mark.parametrize(
    ("status", "edge", "found", "asked"),
    [
        ("ok", 100, 100, [32, 64, 128, 96, 112, 104, 100]),  # to less than a sixteenth
        ("out of memory", 5, 5, [8, 4, 6, 5]),
        ("out of memory", 0, 0, [8, 4, 2, 1]),
        ("ok", 9999, 1437 // 2, [32, 64, 128, 256, 512, 718]),  # more samples there are not
    ],
)
def test_short_runs_find_the_largest_micro_batch(
    monkeypatch: pytest.MonkeyPatch, status: Any, edge: int, found: int, asked: list[int]
) -> None:
    sizes = []

    def run(self: Work, case: Case, path: Path, steps: int, traced: bool, micro: int) -> Row:
        assert (path, steps, traced) == (Path("d/max-micro-batch") / f"ddp-x2-{micro}", 3, False)
        sizes.append(micro)
        return row("ddp", 2, status="ok" if micro <= edge else "out of memory")

    monkeypatch.setattr(Work, "_run", run)
    work = Work(recipe(), FACTS, gpus(2), Path("d"), 30, True)
    assert work.with_largest(Case("ddp", 2), row("ddp", 2, status=status)).max_micro_batch == found
    assert sizes == asked
    monkeypatch.setattr(Work, "_run", lambda *_: row("ddp", 2, status="failed"))
    assert work.with_largest(Case("ddp", 2), row("ddp", 2, status=status)).max_micro_batch is None


def comparison(rows: list[Row], **changes: Any) -> Comparison:
    return replace(Comparison("digits", gpus(4), "bf16", 64, 30, tuple(rows)), **changes)


FULL = row(
    "zero3+offload_optimizer",
    8,
    123456.7,
    123.45,
    peak_reserved_gib=130.0,
    host_gib=1234.5,
    memory={"weights": 0.0001, "gradients": 30.0, "optimizer": 60.0, "rest": 33.45},
    samples_s_per_gpu=15432.1,
    tokens_s=24691340.0,
    tokens_s_per_gpu=3086417.5,
    mfu=0.4567,
    step_ms_p50=1234.5,
    step_ms_p99=2345.6,
    exposed_communication_share=0.12,
    optimizer_share=0.1,
    data_share=0.01,
    loss=(2.0,),
    micro_batch=128,
    accumulation=16,
    max_micro_batch=1024,
    predicted_gib=120.0,
)


@pytest.mark.parametrize("width", [80, 100])
def test_tables_fit_the_terminal(width: int) -> None:
    text = terminal(comparison([FULL, replace(FULL, ranks=4, label="zero2 x4"), OOM]), width)
    assert all(len(line) <= width for line in text.splitlines()), text
    for word in ("123.45", "> 97.50", "45.7%", "predicted", "exposed", "24,691,340", "2,346"):
        assert word in text, text


def test_columns_without_a_figure_are_left_out_and_a_cpu_has_ranks() -> None:
    text = terminal(comparison([row("ddp", speed=5.0, peak=0.5)], hardware=CPU), 100)
    assert "per GPU" not in text
    for word in ("MFU", "reserved", "scaling", "tokens/s"):
        assert word not in text
    assert "per rank" in text


def test_the_table_to_paste_has_a_line_a_run() -> None:
    lines = markdown(comparison([FULL, OOM], notes=("lr: 1 -> 2",))).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 4
    assert len({line.count("|") for line in table}) == 1
    assert "| out of memory | > 97.50 |" in table[3]
    assert lines[-1] == "- note: lr: 1 -> 2"


def test_the_file_holds_every_figure(tmp_path: Path) -> None:
    write(comparison([FULL, OOM]), tmp_path)
    body = json.loads((tmp_path / "compare.json").read_text())
    assert (body["format"], body["baseline"], body["limit_gib"]) == (1, FULL.label, 80.0)
    assert body["hardware"] == {"device": "cuda", "count": 4, "name": "Some GPU", "memory_gib": 80.0}
    assert body["rows"][0]["loss"] == [2.0]
    assert body["rows"][1]["needed_gib"] == 97.5
    assert {path.name for path in tmp_path.iterdir()} == {"compare.json", "compare.md"}


# --- the runs


def test_cases_are_each_strategy_on_each_number_of_ranks() -> None:
    base = recipe(train={"micro_batch": 16, "global_batch": 64})
    assert cases("ddp, zero2+offload_optimizer", "4,1", gpus(4), base) == [
        *(Case("ddp", 1), Case("ddp", 4)),
        *(Case("zero2+offload_optimizer", 1), Case("zero2+offload_optimizer", 4)),
    ]
    assert cases("single,zero3", None, gpus(8), base) == [Case("single", 1), Case("zero3", 4)]
    assert Case("zero2+offload_optimizer", 4).directory == "zero2-offload_optimizer-x4"


@pytest.mark.parametrize(
    ("strategies", "worlds", "word"), [("zero4", None, "did you mean"), (",", None, "none"), ("ddp", "0", "--gpus 0")]
)
def test_words_that_name_no_case_are_refused(strategies: str, worlds: str | None, word: str) -> None:
    with pytest.raises(UserError, match=word):
        cases(strategies, worlds, CPU, recipe())


def test_a_case_changes_the_strategy_and_leaves_out_what_no_step_needs(tmp_path: Path) -> None:
    base = recipe(
        strategy={"name": "zero2", "precision": "fp32", "offload": {"optimizer": "cpu"}, "deepspeed": {"x": 1}},
        optimizer={"warmup": {"epochs": 1}},
        evaluate={"every_epochs": 1},
        checkpoint={"every_steps": 5},
        track={"to": ["tensorboard"], "every": 10},
    )
    made = recipe_of(base, Case("ddp", 2), FACTS, tmp_path, steps=30, traced=True)
    assert (made.strategy.name, made.strategy.precision, made.strategy.deepspeed) == ("ddp", "fp32", None)
    assert made.strategy.offload.optimizer is None
    assert (made.train.epochs, made.train.max_steps, made.train.global_batch) == (None, 30, 64)
    assert made.optimizer.warmup.steps == 1437 // 64
    assert (made.evaluate.every_epochs, made.evaluate.at_end, made.checkpoint.every_steps) == (None, False, None)
    assert not made.checkpoint.at_end
    assert made.track.to == ()
    assert made.profile is not None
    assert made.profile.steps == (28, 30)
    sized = recipe_of(base, Case("zero2", 2), FACTS, tmp_path, steps=3, traced=False, micro=5)
    assert (sized.train.micro_batch, sized.train.global_batch, sized.profile) == (5, 10, None)
    assert sized.optimizer.warmup.steps == 3
    assert (sized.strategy.offload.optimizer, sized.strategy.deepspeed) == (None, {"x": 1})


@pytest.mark.parametrize("name", recipe_names())
def test_every_stage_of_every_shipped_recipe_can_be_compared(name: str, tmp_path: Path) -> None:
    for base in load_job(name).stages:
        made = recipe_of(base, Case("zero2", 2), FACTS, tmp_path, steps=3, traced=base.task != "probe")
        assert Recipe.model_validate(made.model_dump()) == made
        assert (made.evaluate.problems, made.evaluate.shapes, made.evaluate.at_start) == (None, None, False)


def planned(**sections: Any) -> RunSpec:
    made = recipe(**sections).model_copy(update={"name": "r"})
    return make_plan(made, facts=FACTS, hardware=CPU, ranks=2, run_dir=Path("a"))


PLANNED = planned()


@given(st.integers(3, 500))
def test_steps_are_left_to_be_timed(steps: int) -> None:
    first, last = window(steps)
    assert 1 < first <= last == steps
    traced = PLANNED.recipe.model_copy(update={"profile": Profile(steps=(first, last))})
    run = PLANNED.model_copy(update={"recipe": traced})
    lines = [({"step": step, "samples_s": 1.0}, 1) for step in range(1, steps + 1)]
    kept = [line["step"] for line, _ in steady(lines, run)]
    assert kept == list(range(kept[0], first))
    assert kept[0] > 1


def test_runs_of_other_work_are_refused_and_other_settings_noted() -> None:
    first = PLANNED
    assert differences(first, planned(strategy="fsdp2", evaluate={"every_steps": 3}, track={"every": 5})) == []
    for sections, word in (
        ({"model": {"shape": "vit-small"}}, "model.shape"),
        ({"train": {"global_batch": 32}}, "train.global_batch: 64 -> 32"),
        ({"train": {"seed": 1}}, "train.seed"),
        ({"data": {"augment": {"flip": 0.5}}}, "data.augment.flip"),
    ):
        with pytest.raises(UserError, match=word):
            differences(first, planned(**sections))
    (note,) = differences(first, planned(optimizer={"lr": 2e-3}))
    assert "optimizer.lr: 0.001 -> 0.002" in note
    (note,) = differences(first, planned(strategy={"precision": "bf16"}))
    assert "precision: fp32 -> bf16" in note
    other = first.model_copy(update={"data": FACTS.model_copy(update={"train": 5})})
    with pytest.raises(UserError, match="samples or classes"):
        differences(first, other)


def test_a_run_that_lacks_figures_has_none(tmp_path: Path) -> None:
    """As one of an earlier version, and ones that did not end."""
    spec = PLANNED.model_copy(update={"run_dir": tmp_path / "a"})
    spec.run_dir.mkdir()
    assert row_of(spec, tmp_path).why == f"has not ended; its directory: {os.path.relpath(spec.run_dir)}"
    (spec.run_dir / "result.json").write_text(json.dumps({"exit": "finished", "peak_alloc_gib": 1.0}))
    line = {"step": 1, "loss": 2.0, "samples_s": 64.0, "data_wait_s": 0.5}
    (spec.run_dir / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    found = row_of(spec, tmp_path)
    assert (found.status, found.run, found.label, found.peak_allocated_gib) == ("ok", "a", "ddp x2", 1.0)
    assert (found.step_ms_p50, found.data_share, found.loss) == (1000.0, 0.5, (2.0,))
    assert (found.host_gib, found.memory, found.tokens_s, found.optimizer_share, found.mfu) == (None,) * 5
    assert found.exposed_communication_share is None


def test_a_prediction_is_shown_where_the_plan_made_one(tmp_path: Path) -> None:
    spec = PLANNED.model_copy(update={"run_dir": tmp_path})
    (tmp_path / "run.json").write_text(json.dumps({"prediction": {"peak_gib": 12.5}}))
    assert row_of(spec, tmp_path).predicted_gib == 12.5


def test_the_rank_that_had_no_memory_is_believed_before_its_peers(tmp_path: Path) -> None:
    spec = PLANNED.model_copy(update={"run_dir": tmp_path})
    result = {"exit": "failed", "error": "RuntimeError: Connection closed by peer", "rank": 0}
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert row_of(spec, tmp_path).status == "failed"
    (tmp_path / "logs").mkdir()
    said = "OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB. 3.00 GiB is allocated by PyTorch"
    (tmp_path / "logs" / "rank-1.error.json").write_text(json.dumps({"message": said}))
    found = row_of(spec, tmp_path)
    assert (found.status, found.needed_gib) == ("out of memory", 4.0)


def test_a_reason_is_said_without_the_file_that_it_came_by() -> None:
    assert bare("command line: strategy=zero3: zero3 gathers") == "zero3 gathers"
    assert bare("/tmp/x1/recipe.yaml:1: strategy: cannot") == "strategy: cannot"
    assert bare("strategy single runs on 1 rank\nand more") == "strategy single runs on 1 rank"


def test_a_kill_that_the_kernel_did_not_count_was_somebody_elses() -> None:
    killed = Failure(1, 0.0, False, "killed by SIGKILL: most often by the kernel, out of memory", "")
    assert by_another(killed, 3, 3)
    assert not by_another(killed, 3, 4)
    assert not by_another(killed, None, None)
    assert not by_another(replace(killed, message="ValueError: no"), 3, 3)
