"""Trackers: a small adapter each, which gets the lines of metrics.jsonl under the same names.

A tracker is used by one thread of its own (tracking.py): it may wait for a network, and raise whatever it likes. Its
library is imported there as well. What sends usage statistics home has that switched off.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
}
"""Environment variables, where the user has not set them."""
LONGEST_PARAM = 500  # characters that every MLflow server takes


@dataclass(frozen=True)
class Curve:
    """What a tracker is to know of a run."""

    id: str
    """The same after a resume."""
    project: str
    name: str
    """The run directory's; a stage's has its job's before it."""
    directory: Path
    config: Mapping[str, Any]
    """run.json."""
    step: int
    """Optimizer steps that were done when training began, or went on."""


@dataclass(frozen=True)
class Line:
    """The numbers in a line of metrics.jsonl."""

    step: int
    time: float
    """When it was written, in seconds since the epoch."""
    figures: Mapping[str, float]

    @property
    def identity(self) -> str:
        """The same for a line that a resumed run writes again."""
        return f"{self.step}-{'train' if 'loss' in self.figures else 'validation'}"


class Tracker(Protocol):
    """Where figures go besides."""

    def start(self, curve: Curve) -> str | None:
        """Open the tracker's run, or the one that `curve.id` had before; what the user may want to know of it."""

    def log(self, lines: Sequence[Line]) -> None:
        """Take lines, oldest first. After a resume some come again."""

    def finish(self) -> None:
        """All that was logged is to be safe now."""


class Trackio:
    """A database in TRACKIO_DIR (~/.cache/huggingface/trackio): no account, no server, nothing sent.

    Written as trackio itself does, but at once, and by us: its own logger turns errors into warnings, and asks
    huggingface.co for the user's name.
    """

    def start(self, curve: Curve) -> str | None:
        """The database is made here. On a network's drive, where SQLite is not safe, files that the dashboard reads."""
        from trackio import fragments, utils
        from trackio.sqlite_storage import SQLiteStorage

        SQLiteStorage.validate_project_name(curve.project)
        self.curve, self._config, self._writer = curve, dict(curve.config), None
        if utils.get_storage_mode() == "jsonl":
            self._writer = fragments.FragmentWriter()
        else:
            SQLiteStorage.init_db(curve.project)
        return f"zerofit watch {os.path.relpath(curve.directory)}"

    def log(self, lines: Sequence[Line]) -> None:
        """Lines that are there already are left out by their ids."""
        from trackio import fragments
        from trackio.sqlite_storage import SQLiteStorage

        curve = self.curve
        times = [datetime.fromtimestamp(line.time, UTC).isoformat() for line in lines]
        names = [f"{curve.id}-{line.identity}" for line in lines]
        if self._writer is None:
            SQLiteStorage.bulk_log(
                curve.project,
                curve.name,
                [dict(line.figures) for line in lines],
                steps=[line.step for line in lines],
                timestamps=times,
                config=self._config,
                log_ids=names,
                run_id=curve.id,
            )
        else:
            entry = {"project": curve.project, "run": curve.name, "run_id": curve.id, "config": self._config}
            records = [
                {**entry, "metrics": dict(line.figures), "step": line.step, "timestamp": time, "log_id": name}
                for line, time, name in zip(lines, times, names, strict=True)
            ]
            self._writer.write_local([fragments.metric_record(record) for record in records])
        self._config = {}  # once is enough

    def finish(self) -> None:
        """Nothing is left to write."""


class Wandb:
    """Weights & Biases, in the mode and with the key of the user's environment; offline where there is no key."""

    def start(self, curve: Curve) -> str | None:
        """Nobody is asked for a key: the terminal is not ours."""
        import wandb

        mode: Any = os.environ.get("WANDB_MODE")
        note = None
        if mode in (None, "online", "run") and not wandb.login(prompt=False, verify=False):
            mode = "offline"
            found = os.path.relpath(curve.directory / "wandb")
            note = f"no API key, so it records offline; to send it later: wandb sync {found}/offline-run-*"
        settings = {"console": "off", "disable_code": True, "x_disable_stats": True, "x_disable_meta": True}
        self._run = wandb.init(
            project=curve.project,
            name=curve.name,
            id=curve.id,
            resume="allow",
            config=dict(curve.config),
            dir=curve.directory,
            mode=mode,
            settings=wandb.Settings(silent=True, **settings),
        )
        return note if mode in ("offline", "dryrun", "disabled") else self._run.url

    def log(self, lines: Sequence[Line]) -> None:
        """Steps that it has are dropped by the server."""
        for line in lines:
            self._run.log(dict(line.figures), step=line.step)

    def finish(self) -> None:
        """Waits for what has to be sent."""
        self._run.finish()


class TensorBoard:
    """Event files in RUN/tensorboard."""

    def start(self, curve: Curve) -> str | None:
        """What earlier event files say of later steps is hidden."""
        from torch.utils.tensorboard import SummaryWriter

        directory = curve.directory / "tensorboard"
        self._writer = SummaryWriter(str(directory), purge_step=curve.step + 1 if curve.step else None)
        self._writer.add_text("recipe", f"```\n{json.dumps(curve.config, indent=2)}\n```", curve.step)
        return f"tensorboard --logdir {os.path.relpath(directory)}"

    def log(self, lines: Sequence[Line]) -> None:
        """Flushed: who looks wants the newest."""
        for line in lines:
            for name, value in line.figures.items():
                self._writer.add_scalar(name, value, line.step, line.time)
        self._writer.flush()

    def finish(self) -> None:
        """Closes the file."""
        self._writer.close()


class MLflow:
    """MLflow, where MLFLOW_TRACKING_URI says; else mlflow.db in the current directory, which is MLflow's default."""

    def start(self, curve: Curve) -> str | None:
        """The run is found again by a tag: MLflow gives it an id of its own."""
        from mlflow import MlflowClient
        from mlflow.entities import Param

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self._client, self._known = MlflowClient(), set[str]()
        experiment = self._client.get_experiment_by_name(curve.project)
        number = self._client.create_experiment(curve.project) if experiment is None else experiment.experiment_id
        found = self._client.search_runs([number], f"tags.`zerofit.id` = '{curve.id}'")
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            for kind, name in (("train", "loss"), ("validation", "val_loss")):
                self._known |= {f"{one.step}-{kind}" for one in self._client.get_metric_history(self._id, name)}
            return None
        self._id = self._client.create_run(number, run_name=curve.name, tags={"zerofit.id": curve.id}).info.run_id
        params = [Param(name, value[:LONGEST_PARAM]) for name, value in flat(curve.config)]
        for first in range(0, len(params), 100):  # as many as one call takes
            self._client.log_batch(self._id, params=params[first : first + 100])
        return None

    def log(self, lines: Sequence[Line]) -> None:
        """What the run had before is left out. At most 1000 figures a call."""
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, int(line.time * 1000), line.step)
            for line in lines
            for name, value in line.figures.items()
            if line.identity not in self._known
        ]
        for first in range(0, len(metrics), 1000):
            self._client.log_batch(self._id, metrics=metrics[first : first + 1000])

    def finish(self) -> None:
        """The run is shown as finished."""
        self._client.set_terminated(self._id)


TRACKERS: dict[str, type[Tracker]] = {
    "trackio": Trackio,
    "wandb": Wandb,
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
}


def flat(value: Any, above: str = "") -> list[tuple[str, str]]:
    """`optimizer.lr` and its value as text, for each field of a nested config; lists are one value."""
    if isinstance(value, Mapping) and value:
        return [pair for key, part in value.items() for pair in flat(part, f"{above}.{key}" if above else str(key))]
    return [(above, value if isinstance(value, str) else json.dumps(value))]
