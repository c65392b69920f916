"""How long is waited, and what is said after it."""

from __future__ import annotations

import pytest

from zerofit.config import patience
from zerofit.config.errors import UserError
from zerofit.launch.watchdog import Place, cause


def test_seconds_from_the_environment() -> None:
    assert (patience.grace({}), patience.watchdog({})) == (60.0, 1800.0)
    assert patience.grace({"ZEROFIT_GRACE": "2.5"}) == 2.5
    assert patience.watchdog({"ZEROFIT_WATCHDOG": "0"}) == 0
    for text in ("soon", "-1", "inf", "nan", "0"):
        with pytest.raises(UserError, match=f"ZEROFIT_GRACE={text}: is to be a number above 0; default: 60"):
            patience.grace({"ZEROFIT_GRACE": text})


def test_the_cause_of_a_hang_names_who_is_behind() -> None:
    said = cause({0: Place(9, "step 4"), 2: Place(9, "step 4")}, 3, 30)
    assert "rank 1 does not answer (stopped, or its host is gone); rank 0 waits at: step 4; rank 2 waits" in said
    said = cause({0: Place(9, "step 4"), 1: Place(8, "step 4: waiting for data")}, 2, 30)
    assert said == (
        "no step or batch for 30 min (--watchdog): "
        "rank 1 is behind at: step 4: waiting for data; rank 0 waits at: step 4"
    )
    assert cause({0: Place(3, "step 2")}, 1, 0.5).endswith("rank 0 is at: step 2")
