"""Answers are compared in a process that a hopeless one ends, from any thread."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from zerofit.measure.verifier import MEBIBYTES, Verdict, Verifier

HOPELESS = {
    "a tower of powers": r"\boxed{10^{10^{10}}}",
    "nesting": r"\boxed{" + "(" * 2000 + "1" + ")" * 2000 + "}",
}


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    one = Verifier(seconds=1.0)
    yield one
    one.close()


@pytest.mark.parametrize("text", HOPELESS.values(), ids=HOPELESS)
def test_what_takes_too_long_is_given_up_and_the_next_answer_is_compared(verifier: Verifier, text: str) -> None:
    before = verifier.given_up
    assert verifier.judge(r"\boxed{42}", [text]) is None
    assert verifier.given_up == before + 1
    assert verifier.judge(r"\boxed{42}", [r"the answer is \boxed{42}"]) == Verdict(True, True, "42")


def test_memory_has_a_limit(verifier: Verifier) -> None:
    verifier.judge(r"\boxed{1}", ["1"])
    assert verifier._process is not None
    limits = Path(f"/proc/{verifier._process.pid}/limits").read_text()
    assert re.search(rf"^Max address space +{MEBIBYTES * 2**20} ", limits, re.MULTILINE)


def test_any_thread_may_ask(verifier: Verifier) -> None:
    with ThreadPoolExecutor(8) as threads:
        verdicts = list(threads.map(lambda n: verifier.judge(rf"\boxed{{{n % 5}}}", [f"so it is {n}"]), range(40)))
    assert [verdict and verdict.correct for verdict in verdicts] == [n < 5 for n in range(40)]


def test_signals_are_for_the_rank_and_a_killed_process_is_replaced(verifier: Verifier) -> None:
    verifier.judge(r"\boxed{1}", ["1"])
    process = verifier._process
    assert process is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        os.kill(process.pid, number)
    assert verifier.judge(r"\boxed{1}", ["1"]) == Verdict(True, True, "1")
    assert verifier._process is process
    process.kill()
    process.wait()
    assert verifier.judge(r"\boxed{1}", ["1"]) == Verdict(True, True, "1")


def test_a_process_that_is_held_up_is_given_up(verifier: Verifier, monkeypatch: pytest.MonkeyPatch) -> None:
    verifier.judge(r"\boxed{1}", ["1"])
    assert verifier._process is not None
    os.kill(verifier._process.pid, signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr("zerofit.measure.verifier.PATIENCE", 0.1)
        assert verifier.judge(r"\boxed{1}", ["1"]) is None
    assert verifier.judge(r"\boxed{1}", ["1"]) == Verdict(True, True, "1")


def test_a_process_that_does_not_start_is_no_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(RuntimeError, match="did not start"):
        Verifier().judge(r"\boxed{1}", ["1"])


def test_a_gold_answer_that_is_none(verifier: Verifier) -> None:
    assert verifier.judge(r"\boxed{}", ["1"]) == Verdict(False, False, "1")
