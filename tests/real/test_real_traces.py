"""Real traces beside the repository: the figures that are known of them, to the last digit."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from zerofit.report.trace.command import analyse

TRACES = Path(__file__).parents[2].parent / "shared" / "data" / "traces"
pytestmark = [pytest.mark.real, pytest.mark.skipif(not TRACES.is_dir(), reason="no real traces beside the repository")]
pytest.importorskip("hta", reason="HTA, the extra trace")


@cache
def of(name: str) -> Any:
    return analyse(TRACES / name)


def test_a_megatron_step_on_eight_gpus() -> None:
    found = of("megatron_tp8")
    assert (found.world_size, found.steps, found.problems) == (8, [3], [])
    idle, compute = [rank.idle_us for rank in found.ranks], [rank.compute_us for rank in found.ranks]
    assert idle == [222514, 7383, 65886, 20297, 3329, 7978, 208748, 11015]
    assert compute == [131390, 131923, 131474, 132743, 131874, 131544, 133554, 132271]
    assert [(kind["kind"], kind["us"], round(100 * kind["share"], 1)) for kind in found.kinds] == [
        ("COMMUNICATION", 3_340_091, 75.9),
        ("COMPUTATION", 1_056_773, 24.0),
        ("MEMORY", 1_359, 0.0),
    ]
    assert [rank.overlap for rank in found.ranks] == [0.0] * 8
    assert found.stragglers == [0, 6]
    assert found.findings[0] == "ranks 0 and 6 wait 37 % and 34 % of the step; the others under 11 %"
    assert found.kernels[0].name.startswith("ncclDevKernel_AllReduce_Sum_f16_RING_LL")


def test_figures_add_up() -> None:
    for name in ("megatron_tp8", "hta_sampled_2of128"):
        found = of(name)
        for rank in found.ranks:
            assert rank.compute_us + rank.non_compute_us + rank.idle_us == rank.span_us
            assert sum(entry["us"] for entry in found.idle if entry["rank"] == rank.rank) == rank.idle_us
            assert rank.exposed_communication_us <= rank.communication_us <= rank.span_us
        assert all(0 < len(strip["spans"]) <= 600 for strip in found.strip)


def test_two_ranks_of_a_large_job() -> None:
    found = of("hta_sampled_2of128")
    assert (found.steps, found.left_out) == ([551], [552])
    assert [round(100 * rank.overlap, 1) for rank in found.ranks] == [11.8, 20.1]
    assert found.problems == ["2 of 128 ranks are there; missing: 2 to 127"]


def test_overlap_is_what_hta_says() -> None:
    from hta.trace_analysis import TraceAnalysis

    from zerofit.report.trace.gpu import quiet

    with quiet():
        analysis = TraceAnalysis(trace_dir=str(TRACES / "hta_sampled_2of128"))
        table = analysis.get_comm_comp_overlap(visualize=False)
    ours = [round(100 * rank.overlap, 2) for rank in of("hta_sampled_2of128").ranks]
    assert ours == list(table.sort_values("rank")["comp_comm_overlap_pctg"])
