"""Measured rates: how they are kept, what is left out of them, and that the planner takes them."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from fake_runs import VIT, images
from hypothesis import given
from hypothesis import strategies as st
from plan_examples import CPU, gpus
from test_plan_fitting import memory, run
from typer.testing import CliRunner

from zerofit import cli
from zerofit.config.errors import UserError
from zerofit.launch import planning
from zerofit.launch.calibrating import shapes_of
from zerofit.launch.rates_table import rows
from zerofit.plan.answer import Plan
from zerofit.plan.calibration import Attention, Calibration, Links, Message, Product
from zerofit.plan.calibration_file import default_root, path_of, store, stored
from zerofit.plan.cards import asked_hardware, named_card
from zerofit.plan.fitting import COMMUNICATORS, fit, outside, outside_from
from zerofit.predict.rates import LAUNCH_S, Rates, curve, rates_of
from zerofit.predict.timing import Timing

DAY = date(2026, 11, 29)


def links(ranks: int, rate: float = 100.0, gib: float | None = 0.5) -> dict[int, Links]:
    slow = Message(mib=1, all_reduce=1.0, all_gather=1.0, reduce_scatter=1.0)
    fast = Message(mib=64, all_reduce=rate, all_gather=2 * rate, reduce_scatter=3 * rate)
    return {ranks: Links(measured=DAY, backend="nccl", messages=(slow, fast), communicators_gib=gib)}


def calibration(name: str = "NVIDIA H200", **fields: Any) -> Calibration:
    known: dict[str, Any] = {
        "name": name,
        "device": "cuda",
        "memory_gib": 140.4,
        "measured": DAY,
        "versions": {"torch": "2.13.0"},
        "products": {
            "bf16": (
                Product(tokens=512, inputs=1280, outputs=1280, tera=100.0),
                Product(tokens=4096, inputs=4096, outputs=4096, tera=600.0),
            )
        },
        "attention": (Attention(batch=1, heads=8, tokens=1024, width=64, forward_tera=400, backward_tera=300),),
        "memory": 4000.0,
        "kernel_s": 1e-6,
        "launch_s": 1e-5,
        "pcie_up": 50.0,
        "pcie_down": 40.0,
        "host": 20.0,
        "context_gib": 0.4,
        "modules_gib": 0.55,
        "links": links(4),
    }
    return Calibration(**known | fields)


def test_what_is_kept_is_read_again_under_every_name_of_the_card(tmp_path: Path) -> None:
    kept = store(calibration(), tmp_path / "rates")
    assert kept == path_of("NVIDIA H200", tmp_path / "rates")
    assert [one.name for one in kept.parent.iterdir()] == ["h200.json"], "nothing half-written is left"
    assert stored("H200", tmp_path / "rates") == calibration()
    assert stored("NVIDIA H100 80GB HBM3", tmp_path / "rates") is None
    assert default_root({"ZEROFIT_CACHE": "/scratch/me"}) == Path("/scratch/me/rates")
    assert default_root({}) == Path.home() / ".cache/zerofit/rates"


def test_links_of_other_numbers_of_ranks_stay(tmp_path: Path) -> None:
    store(calibration(memory=1.0, links=links(2)), tmp_path)
    store(calibration(links=links(8)), tmp_path)
    found = stored("NVIDIA H200", tmp_path)
    assert found is not None
    assert (found.memory, set(found.links)) == (4000.0, {2, 8})
    for ranks, nearest in ((2, 2), (3, 2), (5, 2), (6, 8), (64, 8)):
        assert found.between(ranks) == found.links[nearest]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "Expecting"),
        ("[]", "valid dictionary"),
        ('{"version": 1}', "version"),
        (calibration(memory=1.0).model_dump_json().replace('"memory":1.0', '"memory":-1.0'), "memory"),
        (calibration("NVIDIA L4").model_dump_json(), "it is of NVIDIA L4"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_file_that_is_none_is_left_out_with_a_word(tmp_path: Path, content: str, why: str) -> None:
    path_of("NVIDIA H200", tmp_path).write_text(content)
    told: list[str] = []
    assert stored("NVIDIA H200", tmp_path, told.append) is None
    (line,) = told
    assert why in line
    assert "\n" not in line
    assert "zerofit doctor --calibrate" in line
    store(calibration(), tmp_path)
    assert stored("NVIDIA H200", tmp_path, told.append) == calibration()


def test_a_drive_that_does_not_take_it_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "rates").write_text("a file")
    with pytest.raises(UserError, match="ZEROFIT_CACHE"):
        store(calibration(), tmp_path / "rates")


sizes = st.integers(1, 20_000)
products = st.builds(Product, tokens=sizes, inputs=sizes, outputs=sizes, tera=st.floats(0.1, 2000.0))


@given(measured=st.lists(products, min_size=1, max_size=8), flops=st.floats(1.0, 1e18))
def test_a_product_is_as_fast_as_its_neighbours_in_size(measured: list[Product], flops: float) -> None:
    points = curve((one.flops, one.tera) for one in measured)
    rates = Rates({"bf16": 1.0}, 1.0, 1.0, 1.0, 1.0, curves={"bf16": points})
    low, high = min(rate for _, rate in points), max(rate for _, rate in points)
    assert low * (1 - 1e-9) <= rates.product("bf16", flops) <= high * (1 + 1e-9)
    for size, rate in points:
        assert rates.product("bf16", size) == pytest.approx(rate)
    assert rates.product("bf16", points[0][0] / 2) == points[0][1]
    assert rates.product("bf16", points[-1][0] * 2) == points[-1][1]


def test_measured_rates_take_the_place_of_shipped_ones_one_by_one() -> None:
    hardware = asked_hardware(card=named_card("h200"), memory_gib=None, count=8, cpus=64)
    shipped, found = rates_of(hardware, 8), rates_of(hardware, 8, calibration())
    assert shipped is not None
    assert found is not None
    assert (shipped.source, found.source) == ("shipped", "calibrated 2026-11-29")
    assert found.products == shipped.products | {"bf16": 600e12}
    assert (found.memory, found.pcie, found.host) == (4e12, 40e9, 20e9 / 8)
    assert found.link == 100e9, "the slowest collective, at the largest message"
    assert (found.kernel_s, found.launch_s) == (1e-6, 1e-5)
    flops = 4.0 * 8 * 1024**2 * 64
    assert found.attention == {"forward": ((flops, 400e12),), "backward": ((2.5 * flops, 300e12),)}
    assert (found.attends("backward", 1.0, 5.0), shipped.attends("backward", 1.0, 5.0)) == (300e12, 5.0)
    alone = calibration(links={}, pcie_up=None, pcie_down=None, attention=(), products={}, kernel_s=None)
    left = rates_of(hardware, 8, alone)
    assert left is not None
    assert (left.link, left.pcie, left.products, left.curves) == (shipped.link, shipped.pcie, shipped.products, {})
    assert left.kernel_s == shipped.kernel_s
    assert rates_of(CPU, 2, calibration()) is None


def test_a_step_is_timed_by_them() -> None:
    spec = images(VIT)
    shipped, slow = Timing().speed(spec), Timing(calibration(memory=1.0, launch_s=1e-6)).speed(spec)
    assert shipped is not None
    assert slow is not None
    assert (shipped.rates, slow.rates) == ("shipped", "calibrated 2026-11-29")
    assert slow.parts["compute"] > 10 * shipped.parts["compute"], "memory is a thousandth as fast"
    assert slow.parts["host"] == pytest.approx(shipped.parts["host"] * 1e-6 / LAUNCH_S, abs=2e-6)
    assert slow.error == shipped.error


def test_a_card_holds_what_was_measured_beside_tensors() -> None:
    assert outside(1, calibration()) == 0.55
    assert outside(8, calibration()) == pytest.approx(0.55 + 0.5)
    unknown = calibration(links=links(4, gib=None))
    assert outside(8, unknown) == pytest.approx(0.55 + COMMUNICATORS)
    nothing = calibration(modules_gib=None, links={})
    assert outside(8, nothing) == outside(8)
    assert (outside_from(8, nothing), outside_from(8, unknown)) == ("shipped", "calibrated 2026-11-29")
    shipped, found = fit(memory(20.0), run(24.0)), fit(memory(20.0), run(24.0), None, calibration())
    assert (shipped.outside_gib, found.outside_gib) == (1.5, 1.05)
    assert found.needed_gib == pytest.approx(shipped.needed_gib - 0.45)
    assert fit(memory(20.0), run(24.0), slack=0.5).needed_gib == pytest.approx(20.0 * 1.52 + 1.5)


@pytest.fixture
def _kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without GPUs that has rates of H200s."""
    monkeypatch.setenv("ZEROFIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(planning, "detect", lambda: CPU)
    monkeypatch.chdir(tmp_path)
    store(calibration(), default_root({"ZEROFIT_CACHE": str(tmp_path / "cache")}))


@pytest.mark.usefixtures("_kept")
def test_a_plan_says_whose_rates_it_took() -> None:
    def call(*words: str) -> str:
        done = CliRunner().invoke(cli.app, ["plan", "digits", "--gpus", "2", "--quick", *words])
        assert done.exit_code == 0, done.output
        return done.output

    (h200,) = Plan.model_validate_json(call("--gpu", "h200", "--json")).stages
    (h100,) = Plan.model_validate_json(call("--gpu", "h100", "--json")).stages
    for stage, source, gib in ((h200, "calibrated 2026-11-29", 1.05), (h100, "shipped", 1.5)):
        fits = [one.prediction.fit for one in stage.strategies if one.prediction is not None]
        assert {(found.outside_from, found.outside_gib) for found in fits} == {(source, gib)}
    assert "1.1 GiB of CUDA and NCCL" in call("--gpu", "h200")
    assert "calibrated 2026-11-29 (zerofit doctor): what CUDA and NCCL take" in call("--gpu", "h200")
    assert "calibrated" not in call("--gpu", "h100")
    path_of("NVIDIA H200", default_root({"ZEROFIT_CACHE": "cache"})).write_text("{}")
    broken = CliRunner().invoke(cli.app, ["plan", "digits", "--gpus", "2", "--quick", "--gpu", "h200"])
    assert broken.exit_code == 0
    assert "measured rates are left out" in broken.stderr
    assert "calibrated" not in broken.stdout


def test_a_recipes_layers_are_measured_at_its_own_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "detect", lambda: CPU)
    found = shapes_of("digits", ["train.micro_batch=4"])
    assert {tokens for tokens, _, _ in found} == {4 * 4}, "4 images of 4 patches"
    assert len(found) == len(set(found)) >= 3
    with pytest.raises(UserError, match="digits"):
        shapes_of("digitz")


def test_a_table_sets_measured_beside_shipped() -> None:
    cells = {row[0]: row[1:] for row in rows(calibration(), gpus(4).model_copy(update={"name": "NVIDIA H200"}))}
    assert cells["memory"] == ("4,000 GB/s", "3,984 GB/s")
    assert cells["with cuBLAS and kernels"] == ("0.55 GiB", "0.60 GiB")
    assert cells["all-reduce of 64 MiB, 4 ranks (nccl)"][0] == "100 GB/s"
    cpu = calibration("Any CPU", device="cpu", kernel_s=None, pcie_up=None, pcie_down=None)
    assert {row[2] for row in rows(cpu, CPU)[1:]} <= {"", "0.60 GiB", "0.90 GiB"}
    assert json.loads(cpu.model_dump_json())["version"] == 2
