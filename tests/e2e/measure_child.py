"""Takes trials on the CPU, which `zerofit plan --measure` refuses: `python measure_child.py RECIPE WORD ...`.

Prints a line of JSON: what each took, with what was taken beside no prediction.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from zerofit.config.load import load_recipe
from zerofit.launch.asked import HERE
from zerofit.launch.measuring import beside
from zerofit.launch.planning import staged_plan
from zerofit.launch.trials import Interrupted, run, trials_of
from zerofit.plan.hardware import detect


def main() -> None:
    one = staged_plan(load_recipe(sys.argv[1], sys.argv[2:]), HERE, None, follows=False)
    trials = trials_of(one.spec)
    try:
        figures = run(trials, detect())
    except Interrupted as interrupted:
        raise SystemExit(interrupted.args[0]) from None
    found = [trial.model_dump() for trial in beside(trials, figures, one.machine)]
    print(json.dumps({"figures": [asdict(taken) for taken in figures], "trials": found}))


if __name__ == "__main__":
    main()
