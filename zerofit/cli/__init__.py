"""The commands. Each is a few lines that call one function below, imported only then: `zerofit --help` is instant.

Exit codes: 0 done, 1 a rank crashed, 2 the user's error, 3 a gate of `zerofit trace` failed, 4 interrupted: saved and
stopped after a signal, 128 + n ended by signal n (130 Ctrl-C, 143 SIGTERM): the second one, or before the first step.
"""

from __future__ import annotations

# The commands join the app in this order.
from zerofit.cli import planning, machine, training, evaluating, generating, showing, saved, inputs  # noqa: F401  # isort: skip
from zerofit.cli.root import app, main, split_words, without_local_rank

__all__ = ["app", "main", "split_words", "without_local_rank"]
