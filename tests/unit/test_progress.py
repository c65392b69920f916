from __future__ import annotations

import io

import pytest

from zerofit.measure.progress import Progress


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZEROFIT_TTY", raising=False)
    monkeypatch.setenv("COLUMNS", "100")


def lines_of(total: int, seconds_per_step: float, first: int = 0) -> list[str]:
    out, clock = io.StringIO(), Clock()
    progress = Progress(total, out, clock)
    progress.start(first)
    for step in range(first + 1, total + 1):
        clock.now += seconds_per_step
        progress.update(step, loss=2.0, samples_s=32 / seconds_per_step)
    progress.close()
    return out.getvalue().splitlines()


def test_without_a_terminal_lines_are_few_and_the_first_comes_at_once() -> None:
    assert lines_of(1000, 0.001) == ["step 0/1000", "step 1000/1000, loss 2.0000, 32,000 samples/s, 0:00:00 left"]
    assert len(lines_of(1000, 1.0)) <= 1 + 1000 // 30 + 20
    assert lines_of(10, 600.0)[3] == "step 3/10, loss 2.0000, 0.1 samples/s, 1:10:00 left"


def test_the_time_left_of_a_resumed_run_follows_from_its_own_steps() -> None:
    assert lines_of(10, 60.0, first=8) == [
        "step 8/10",
        "step 9/10, loss 2.0000, 0.5 samples/s, 0:01:00 left",
        "step 10/10, loss 2.0000, 0.5 samples/s, 0:00:00 left",
    ]


def test_a_run_that_stops_early_says_where_it_stands() -> None:
    out, clock = io.StringIO(), Clock()
    progress = Progress(100, out, clock)
    progress.start()
    progress.update(1, loss=1.0, samples_s=8.0)
    progress.note("a checkpoint")
    clock.now += 1.0
    progress.close()
    assert out.getvalue().splitlines()[1:] == ["a checkpoint", "step 1/100, loss 1.0000, 8.0 samples/s, 0:01:39 left"]


def test_a_terminal_gets_a_bar_at_once_and_notes_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROFIT_TTY", "1")
    out = io.StringIO()
    progress = Progress(4, out)
    progress.start()
    assert "step 0/4" in out.getvalue()
    for step in range(1, 5):
        progress.update(step, loss=0.5, samples_s=64.0, memory_gib=1.25)
    progress.note("validation")
    progress.close()
    shown = [part.strip() for part in out.getvalue().replace("\n", "\r").split("\r")]
    assert "validation" in shown
    assert "\x1b" not in out.getvalue()  # it is written to a log as well
    final = shown[-2]
    assert final.startswith("100%")
    assert "step 4/4, loss 0.5000, 64.0 samples/s, 1.2 GiB, 00:00 left" in final
    assert max(map(len, shown)) < 100


def test_80_columns_hold_the_bar_of_a_large_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROFIT_TTY", "1")
    monkeypatch.setenv("COLUMNS", "80")
    out = io.StringIO()
    progress = Progress(50_000, out)
    progress.start(24_999)
    progress.update(25_000, loss=12.3456, samples_s=1234.5, memory_gib=139.25)
    progress.close()
    final = out.getvalue().replace("\n", "\r").split("\r")[-2]
    assert "step 25000/50000, loss 12.3456, 1,234 samples/s, 139.2 GiB, " in final
    assert final.endswith(" left")
    assert len(final) < 80
