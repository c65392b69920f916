"""The process of `zerofit.measure.verifier`: a JSON line in, {"gold": text, "texts": [...]}; one out, a `Verdict`.

python -m zerofit.measure.verifier_process SECONDS MEBIBYTES

Math-Verify's own time limits are off: a handler of SIGALRM raises in the middle of sympy, which may catch it, and each
comparison starts the clock anew. Here the kernel ends the process.
"""

from __future__ import annotations

import json
import logging
import resource
import signal
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

BOXED_FIRST = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())


def _parse(text: str) -> list[Any]:
    """What Math-Verify reads out of a text: an expression, and its source; nothing where it finds neither."""
    return parse(text, BOXED_FIRST, parsing_timeout=None)


_parse_gold = lru_cache(maxsize=1024)(_parse)  # a group of completions has one gold answer


def judge(gold: str, texts: Sequence[str]) -> dict[str, Any]:
    """A `Verdict` on texts, which are readings of one answer: any may be right; the first that can be read is named."""
    expected = _parse_gold(gold)
    found = [parsed for parsed in map(_parse, texts) if parsed]
    correct = any(verify(expected, parsed, timeout_seconds=None) for parsed in found)
    sources = [part for parsed in found for part in parsed if isinstance(part, str) and part.strip()]
    return {"readable": bool(expected), "correct": correct, "answer": sources[0] if sources else None}


def main(seconds: float, mebibytes: int) -> None:
    """Answer requests until there are no more."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # they are the rank's to handle; this ends with it
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # which ends the process
    resource.setrlimit(resource.RLIMIT_AS, (mebibytes * 2**20, mebibytes * 2**20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable()
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        verdict = judge(request["gold"], request["texts"])
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(verdict), flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
