"""DIR N PATIENCE: feeds the trackers of DIR/run.json with DIR/records.json, as a run does that goes on from step N."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

from zerofit.launch import failure
from zerofit.plan.spec import RunSpec
from zerofit.train.tracking import make_tracking

if __name__ == "__main__":
    directory, step = Path(sys.argv[1]), int(sys.argv[2])
    failure.END = 2.0
    tracking = make_tracking(
        RunSpec.model_validate_json((directory / "run.json").read_text()), partial(print, flush=True)
    )
    tracking.start(step)
    for record in json.loads((directory / "records.json").read_text()):
        if record["step"] > step:
            tracking.log(record)
    tracking.end()
    print("trained", flush=True)
    tracking.wait(float(sys.argv[3]))
    failure.finish()
