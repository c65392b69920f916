"""run.json: the RunSpec on disk, which alone starts a worker."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from zerofit.config.errors import UserError
from zerofit.config.limited import read_limited
from zerofit.plan.spec import RunSpec

RUN_FILE = "run.json"
DEEPSPEED_FILE = "deepspeed.json"


def write_spec(spec: RunSpec) -> Path:
    """Write run.json (and deepspeed.json, for reading, where DeepSpeed is used) into the run directory; its path."""
    spec.run_dir.mkdir(parents=True, exist_ok=True)
    if spec.deepspeed is not None:
        _write(spec.run_dir / DEEPSPEED_FILE, spec.deepspeed)
    path = spec.run_dir / RUN_FILE
    _write(path, spec.model_dump(mode="json"))
    return path


def read_spec(run_dir: Path) -> RunSpec:
    """The RunSpec in `run_dir`, with that directory as its run_dir (it may have been moved).

    Raises UserError where run.json is missing, is not JSON, or is not one of this version's.
    """
    path = run_dir / RUN_FILE
    try:
        fields = json.loads(read_limited(path).decode())
    except OSError as error:
        raise UserError(f"{run_dir} is no run directory: cannot read its {RUN_FILE}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: not JSON: {error}") from None
    try:
        spec = RunSpec.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path} is not a run of this version of zerofit: {where}: {first['msg']}") from None
    return spec.model_copy(update={"run_dir": run_dir.absolute()})


def _write(path: Path, value: dict[str, Any]) -> None:
    # Whole or not at all: another process may read it at any time.
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)
