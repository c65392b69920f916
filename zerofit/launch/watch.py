"""`zerofit watch`: trackio's dashboard of a run that has it, else a table in the terminal."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import sys
import threading
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.live import Live

from zerofit.report.live import watched
from zerofit.report.screen import panel, text
from zerofit.train.trackers import QUIET
from zerofit.train.tracking import FILE

EVERY = 1.0
"""Seconds between two looks."""


def watch(run: Path, *, terminal: bool = False, once: bool = False) -> int:
    """Show how `run`, a run's directory or a job's, is doing, until it is finished or Ctrl-C; the exit code.

    `terminal`: no dashboard. `once`: print it and leave, as it is where the output is no terminal. Raises UserError
    where there is no run.
    """
    current = watched(run)
    track = _track(current.directory)
    try:
        if not terminal and not once and "trackio" in track.get("to", ()):
            if importlib.util.find_spec("trackio") is not None:
                _dashboard(track)
                return 0
            print("trackio is not installed here: pip install 'zerofit[trackio]'", file=sys.stderr)
        if once or not sys.stdout.isatty():
            print(text(current.poll()))
        else:
            _follow(run)
    except KeyboardInterrupt:
        pass
    return 0


def _follow(run: Path) -> None:
    """Draw until it is finished. A resume of an interrupted or failed run is waited for, as a next stage is."""
    current = watched(run)
    with Live(console=Console(), auto_refresh=False) as live:
        while True:
            state = current.poll()
            live.update(panel(state), refresh=True)
            if state.over:
                return
            time.sleep(EVERY)
            newest = watched(run)
            if newest.directory != current.directory:
                current = newest


def _dashboard(track: dict[str, Any]) -> None:
    """Serve trackio's dashboard on this machine alone, until Ctrl-C."""
    if track.get("trackio_dir"):
        os.environ.setdefault("TRACKIO_DIR", track["trackio_dir"])
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import trackio

    project = track["project"]
    with redirect_stdout(io.StringIO()):  # an address that lets everybody write
        app, url, _, _ = trackio.show(
            project=project, open_browser=False, block_thread=False, host="127.0.0.1", share=False, mcp_server=False
        )
    print(
        f"trackio: {url.rstrip('/')}/?project={quote(project)} (Ctrl-C ends it; --terminal: a table here)", flush=True
    )
    try:
        threading.Event().wait()
    finally:
        app.close()


def _track(directory: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((directory / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content
