"""What `zerofit trace` says of traces whose figures are known by construction."""

from __future__ import annotations

import builtins
import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from trace_examples import COMPUTE, COPY, REDUCE, Made, on_cpu, two_ranks

from zerofit.config.errors import UserError
from zerofit.report.trace.command import analyse, trace
from zerofit.report.trace.table import table

hta = pytest.importorskip("hta", reason="HTA, the extra trace")


def figures(found: Any, rank: int) -> dict[str, Any]:
    return {name: value for name, value in vars(found.ranks[rank]).items() if name not in ("rank", "device")}


RANK_0 = {
    "span_us": 2000,
    "compute_us": 500,
    "communication_us": 1400,
    "memory_us": 50,
    "exposed_communication_us": 1300,
    "non_compute_us": 1350,
    "idle_us": 150,
    "overlap": pytest.approx(100 / 1400),
}
RANK_1 = {
    "span_us": 2000,
    "compute_us": 1100,
    "communication_us": 700,
    "memory_us": 50,
    "exposed_communication_us": 600,
    "non_compute_us": 650,
    "idle_us": 250,
    "overlap": pytest.approx(100 / 700),
}


def test_one_step_of_two_ranks_on_gpus(tmp_path: Path) -> None:
    found = analyse(two_ranks(tmp_path))
    assert (found.device, found.steps, found.world_size, found.problems) == ("cuda", [3], 2, [])
    assert figures(found, 0) == RANK_0
    assert figures(found, 1) == RANK_1
    causes = {(entry["rank"], entry["cause"]): entry["us"] for entry in found.idle}
    assert causes == {
        (0, "host_wait"): 100,
        (0, "kernel_wait"): 20,
        (0, "other"): 30,
        (1, "host_wait"): 250,
        (1, "kernel_wait"): 0,
        (1, "other"): 0,
    }
    assert [(kernel.name, kernel.kind, kernel.us, kernel.count) for kernel in found.kernels] == [
        (REDUCE, "COMMUNICATION", 2100, 2),
        (COMPUTE, "COMPUTATION", 1600, 5),
        (COPY, "MEMORY", 100, 2),
    ]
    assert {entry["kind"]: entry["us"] for entry in found.kinds} == {  # HTA's: without double counting
        "COMMUNICATION": 1900,
        "COMPUTATION": 1400,
        "COMPUTATION overlapping COMMUNICATION": 200,
        "MEMORY": 100,
    }
    assert found.stragglers == [1]
    assert [(entry["count"], entry["short_kernels"]) for entry in found.launch] == [(5, 0), (4, 0)]
    assert found.launch[0]["mean_delay_us"] == (20 + 80 + 300 + 10 + 400) / 5 - 5  # from the end of the call
    assert found.findings[:4] == [
        "every rank waits 7.5 to 12 % of the step",
        "88 % of the idle time: the CPU launches kernels too late (host wait)",
        "communication takes 35 to 70 % of the time: 7.1 to 14 % of it lies behind computation, "
        "30 to 65 % of the time is exposed",
        "rank 1 comes late to collectives: it spends 35 % of the time there, the rest 70 %",
    ]


def test_the_strip_shows_one_step(tmp_path: Path) -> None:
    strip = analyse(two_ranks(tmp_path, steps=(3, 4, 5))).strip
    assert strip[1]["spans"] == [
        [0, 50, "memory"],
        [150, 1000, "compute"],
        [1300, 700, "communication"],
        [1400, 100, "compute"],
    ]


def test_of_several_steps_the_last_is_left_out_unless_it_is_whole(tmp_path: Path) -> None:
    cut = analyse(two_ranks(tmp_path / "cut", steps=(3, 4, 5)))
    assert (cut.steps, cut.left_out, cut.ranks[0].compute_us) == ([3, 4], [5], 1000)
    assert "steps 3, 4 (without 5, which may be cut off)" in table(cut)
    whole = analyse(two_ranks(tmp_path / "whole", steps=(3, 4, 5), zerofit={"steps": [3, 5]}))
    assert (whole.steps, whole.left_out, whole.ranks[0].compute_us) == ([3, 4, 5], [], 1500)
    assert whole.ranks[0].span_us == 8000
    assert whole.ranks[0].idle_us == 3 * 150 + 2 * 1000
    assert sum(entry["us"] for entry in whole.idle if entry["rank"] == 0) == whole.ranks[0].idle_us


def test_marks_on_the_gpu_do_not_move_the_end(tmp_path: Path) -> None:
    two_ranks(tmp_path, steps=(3, 4))
    for path in tmp_path.iterdir():  # kernels of step 4 run from 1,003,100 on; the mark of its kernels begins later
        content = json.loads(gzip.decompress(path.read_bytes()))
        mark = {"ph": "X", "cat": "gpu_user_annotation", "name": "ProfilerStep#4", "pid": 0, "tid": 7}
        content["traceEvents"].append({**mark, "ts": 1_004_500, "dur": 500, "args": {"External id": 1}})
        path.write_bytes(gzip.compress(json.dumps(content).encode()))
    found = analyse(tmp_path)
    assert (found.steps, found.ranks[0].span_us, found.ranks[0].compute_us) == ([3], 2000, 500)


def test_ranks_on_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_hta(monkeypatch)
    found = analyse(on_cpu(tmp_path))
    assert (found.device, found.steps, found.stragglers) == ("cpu", [5], [])
    assert "no rank has events of a GPU" in found.problems[0]
    assert figures(found, 0) == {
        "span_us": 1000,
        "compute_us": 600,
        "communication_us": 300,
        "memory_us": 0,
        "exposed_communication_us": 200,
        "non_compute_us": 200,
        "idle_us": 200,
        "overlap": pytest.approx(1 / 3),
    }
    assert found.ranks[1].idle_us == 200
    assert found.ranks[1].overlap is None
    times = {kernel.name: (kernel.us, kernel.count) for kernel in found.kernels}
    assert times == {
        "aten::linear": (400 - 250 + 800, 2),
        "aten::addmm": (250, 1),
        "aten::add": (200, 1),
        "c10d::allreduce_": (20, 1),
        "gloo:all_reduce": (300, 1),
    }


def without_hta(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def guarded(name: str, *rest: Any) -> Any:
        if name.startswith("hta"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", guarded)


def test_without_the_extra_one_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_ranks(tmp_path)
    without_hta(monkeypatch)
    with pytest.raises(UserError, match=r"pip install 'zerofit\[trace\]'"):
        analyse(tmp_path)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    two_ranks(tmp_path, steps=(3,))
    (tmp_path / "rank-1.json.gz").unlink()
    made = Made(4, world=6)
    made.step(7, 0, 10)
    made.cpu("aten::mm", 0, 5)
    made.write(tmp_path / "rank-4.json.gz")
    unnamed = Made(None)
    unnamed.step(3, 0, 100)
    unnamed.kernel(COMPUTE, 20, 10, launched=5)
    unnamed.write(tmp_path / "rank_2.json")
    found = analyse(tmp_path)
    assert [rank.rank for rank in found.ranks] == [0, 2]
    assert found.problems == [
        "rank_2.json has no distributedInfo: taken for rank 2",
        "the ranks do not agree on how many they are: 2, 6",
        "3 of 6 ranks are there; missing: 1, 3, 5",
        "the ranks have traced other steps: rank 0: 3; rank 2: 3; rank 4: 7",
        "no events of a GPU, and so no figures, of rank 4",
    ]


def test_two_traces_of_one_rank_are_refused(tmp_path: Path) -> None:
    two_ranks(tmp_path)
    shutil.copy(tmp_path / "rank-0.json.gz", tmp_path / "rank-9.json.gz")
    with pytest.raises(UserError, match=r"both of rank 0"):
        analyse(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"traceEvents": [{"ph": "X"', "ends in the middle: was its writer killed"),
        (b'{"traceEvents": [{"ph": }]}', "damaged"),
        (b"[]", "has '\\[' where '{' belongs"),
        (b'{"format": 1}', "is no trace: it has no traceEvents"),
        (gzip.compress(b'{"traceEvents": []}', mtime=0)[:-9], "ends early or is damaged"),
        (b'{"traceEvents": [{"ph": "X", "cat": "kernel", "ts": {}}]}', "an event's ts is no time"),
        (b'{"a":' + b"[" * 200_000, "nested too deeply|ends in the middle"),
        (b"", "ends in the middle"),
        (b'{"traceEvents": [{"ph": "X", "cat": "kernel", "ts": NaN}]}', "an event's ts is no time"),
        (b'{"a": ' + b"1" * 5000 + b"}", "limit"),
        (gzip.compress(b'{"traceEvents": []}', mtime=0), "it is packed by gzip: give it a name that says so"),
        (b'{"traceEvents": []}', "no operators and no kernels"),
    ],
)
def test_damaged_traces_are_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / ("rank-0.json.gz" if "ends early" in reason else "rank-0.json")
    path.write_bytes(content)
    with pytest.raises(UserError, match=reason) as caught:
        analyse(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zerofit.report.trace.events.MOST", 2**21)
    (tmp_path / "rank-0.json.gz").write_bytes(gzip.compress(b'{"traceEvents": [' + b"{},\n" * 2**20 + b"{}]}"))
    with pytest.raises(UserError, match=r"more than 2 MiB of JSON; trace fewer steps"):
        analyse(tmp_path)


def test_nothing_is_written_but_what_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    traces = two_ranks(tmp_path / "traces")
    monkeypatch.chdir(tmp_path)
    assert trace([traces]) == 0
    said = capfd.readouterr()
    assert said.err == ""
    assert said.out.startswith("2 of 2 ranks on GPUs, step 3\n\nrank   ms  compute")
    assert trace([traces], output=tmp_path / "a.json") == 0
    body = json.loads((tmp_path / "a.json").read_text())
    assert body["source"] == str(traces)
    assert list(body) == [
        *("format", "source", "world_size", "steps", "problems", "ranks", "kinds", "kernels", "idle", "stragglers"),
        *("launch", "strip", "findings"),
    ]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.json", "rank-0.json.gz", "rank-1.json.gz", "traces"]


def test_a_run_keeps_what_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match=r"has no traces: none of its steps was profiled; train with 'profile.steps="):
        trace([tmp_path])
    two_ranks(tmp_path / "profile")
    for _ in range(2):  # the second time trace.json is there, and no trace
        assert trace([tmp_path]) == 0
    assert json.loads((tmp_path / "profile" / "trace.json").read_text())["stragglers"] == [1]


def test_gates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    traces = two_ranks(tmp_path)
    assert trace([traces], fail_if=["idle>12.5%", "overlap<5%"]) == 0
    assert trace([traces], fail_if=["idle > 10 %", "exposed_communication>60%", "overlap<5%"]) == 3
    assert capsys.readouterr().err.splitlines() == [
        "failed: idle > 10 %: rank 1: 12.5 %",
        "failed: exposed communication > 60 %: rank 0: 65.0 %",
    ]
    for text in ("idle>20", "idle=20%", "idle>20%;x", "__import__('os')>1%", "idle>1e1%", "Idle>2%", ""):
        with pytest.raises(UserError, match="'idle>20%'"):
            trace([traces], fail_if=[text])
    with pytest.raises(UserError, match="there is no figure idel; did you mean idle"):
        trace([traces], fail_if=["idel>20%"])
    with pytest.raises(UserError, match="no share is above 100 %"):
        trace([traces], fail_if=["idle>101%"])


def test_two_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = two_ranks(tmp_path / "a")
    b = two_ranks(tmp_path / "b", steps=(3, 4), zerofit={})  # the same step twice, with 1000 us between them
    assert trace([a, b], output=tmp_path / "c.json", fail_if=["idle>20%"]) == 3
    body = json.loads((tmp_path / "c.json").read_text())
    assert {name: body[name]["steps"] for name in "ab"} == {"a": [3], "b": [3, 4]}
    assert {row["name"]: (row["us_a"], row["us_b"]) for row in body["kernels"]} == {
        REDUCE: (1050, 1050),
        COMPUTE: (800, 800),
        COPY: (50, 50),
    }
    assert body["findings"] == [
        "a step takes 2.0 ms in A and 2.5 ms in B, 25 % longer",
        "idle rises from 10 % to 28 % of the time",
        "compute falls from 40 % to 32 % of the time",
        "communication falls from 52 % to 42 % of the time",
        "exposed communication falls from 48 % to 38 % of the time",
    ]
    assert "25 % longer" in capsys.readouterr().out


def test_all_ranks_in_one_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    traces = two_ranks(tmp_path / "traces")
    target = tmp_path / "all.json.gz"
    assert trace([traces], merge=target) == 0
    events = json.loads(gzip.decompress(target.read_bytes()))["traceEvents"]
    named = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert sorted(named.values()) == ["rank 0", "rank 0: GPU 0", "rank 1", "rank 1: GPU 0"]
    marks = [event for event in events if event["name"] == "ProfilerStep#3"]
    assert [(named[mark["pid"]], mark["ts"]) for mark in marks] == [("rank 0", 0), ("rank 1", 0)]
    assert {event["pid"] for event in events} == named.keys()
    starts = [event["id"] for event in events if event["ph"] == "s"]
    assert len(starts) == len(set(starts)) == 9
    assert sorted(starts) == sorted(event["id"] for event in events if event["ph"] == "f")
    with pytest.raises(UserError, match="is itself one of the traces"):
        trace([traces], merge=traces / "rank-0.json.gz")


def test_ranks_whose_clocks_differ_are_aligned_at_the_step(tmp_path: Path) -> None:
    traces = two_ranks(tmp_path / "traces")
    made = Made(1)
    made.step(3, 50, 2500)
    made.kernel(COMPUTE, 100, 20, launched=60)
    made.write(traces / "rank-1.json.gz")
    trace([traces], merge=tmp_path / "all.json")
    events = json.loads((tmp_path / "all.json").read_text())["traceEvents"]
    assert [event["ts"] for event in events if event["name"] == "ProfilerStep#3"] == [0, 0]
