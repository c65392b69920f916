"""Where the traces of a run, a directory or an archive lie."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zerofit.config.errors import UserError
from zerofit.plan.files import RUN_FILE
from zerofit.plan.job import is_job, read_job
from zerofit.report.trace.archive import is_archive, unpack

ENDINGS = (".json", ".json.gz")
RANK = re.compile(r"(?:^|[^a-z])rank[-_]?(\d+)", re.IGNORECASE)
PROFILE = "profile"
"""In a run directory: where its traces are."""


@contextmanager
def opened(source: Path) -> Iterator[list[Path]]:
    """The trace files of `source`, as long as they are needed. Raises UserError where there are none."""
    if is_archive(source):
        with tempfile.TemporaryDirectory(prefix="zerofit-trace-") as made:
            unpack(source, Path(made))
            yield _chosen(source, [path for path in Path(made).rglob("*") if path.is_file()])
    elif source.is_file():
        if not source.name.endswith(ENDINGS):
            raise UserError(
                f"{source} is neither a trace (.json, .json.gz) nor an archive of them (.zip, .tar, .tar.gz)"
            )
        yield [source]
    else:
        directory = run_traces(source) if is_run(source) else source
        if not directory.is_dir():
            raise UserError(f"{source} is not there: name a run, a directory of traces, or an archive of them")
        yield _chosen(source, [path for path in directory.iterdir() if not path.name.startswith(".")])


def is_run(source: Path) -> bool:
    """Whether a directory is that of a run."""
    return (source / RUN_FILE).is_file() or is_job(source)


def run_traces(run: Path) -> Path:
    """Where a run's traces are. Raises UserError where it has none."""
    if is_job(run):
        runs = ", ".join(str(one) for one in read_job(run).runs(run) if one.exists())
        raise UserError(f"{run} is a job of stages, a run each: name one of them: {runs or 'none yet'}")
    directory = run / PROFILE
    if not directory.is_dir():
        raise UserError(
            f"{run} has no traces: none of its steps was profiled; train with 'profile.steps=[10, 14]', for instance"
        )
    return directory


def rank_of_name(path: Path) -> int | None:
    """The rank that a file's name tells."""
    found = RANK.search(path.name)
    return None if found is None else int(found[1])


def _chosen(source: Path, paths: list[Path]) -> list[Path]:
    """Those that are traces, by their names: rank-N, else *.trace.json, else whatever is JSON."""
    found = sorted(path for path in paths if path.name.endswith(ENDINGS))
    for chosen in (
        [path for path in found if rank_of_name(path) is not None],
        [path for path in found if ".trace.json" in path.name],
        found,
    ):
        if chosen:
            return chosen
    raise UserError(f"{source} holds no traces: rank-N.json.gz, *.pt.trace.json or *.json.gz, as torch.profiler writes")
