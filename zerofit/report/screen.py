"""What `zerofit watch` shows in a terminal: one table of a run that trains, or has ended."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from zerofit.report.live import State, sparkline

COLOURS = {"running": "cyan", "finished": "green", "interrupted": "yellow", "failed": "red", "gone": "red"}
VALIDATION: dict[str, str] = {
    "val_top1": "{:.2%} top-1",
    "val_pass@1": "{:.2%} pass@1",
    "val_reward": "reward {:.4f}",
    "val_token_accuracy": "{:.2%} of tokens",
    "val_loss": "loss {:.4f}",
}
"""What is said of a validation, and how."""


def panel(state: State) -> Panel:
    """The table in a frame, for a terminal that is drawn over again and again."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    for name, value in rows(state):
        grid.add_row(name, Text(value, style=COLOURS[state.status] if name == "state" else ""))
    return Panel(grid, title=Text(title(state)), title_align="left", expand=False)


def text(state: State) -> str:
    """The same as plain lines."""
    lines = [("run", title(state)), *rows(state)]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:{width}}  {value}" for name, value in lines)


def title(state: State) -> str:
    """The run's directory, and which stage it is."""
    return os.path.relpath(state.spec.run_dir) + (f", {state.place}" if state.place else "")


def rows(state: State) -> list[tuple[str, str]]:
    """(name, value); what the run has not logged is left out."""
    last, validation, batches = state.tail.last, state.tail.validation, state.spec.batches
    shown = [("state", _state(state))]
    epoch = f", epoch {last['epoch']:.2f}" if "epoch" in last else ""
    share = state.step / batches.total_steps
    shown.append(("step", f"{state.step}/{batches.total_steps} ({share:.0%}){epoch}"))
    if "loss" in last:
        shown.append(("loss", f"{last['loss']:.4f}  {sparkline(state.tail.losses)}"))
    if "reward" in last:
        shown.append(("reward", _reward(last)))
    if last.get("lr") is not None:
        norm = last.get("grad_norm")
        shown.append(
            ("learning rate", f"{last['lr']:.3g}" + (f", gradient norm {norm:.3g}" if norm is not None else ""))
        )
    if validation:
        figures = ", ".join(how.format(validation[name]) for name, how in VALIDATION.items() if name in validation)
        shown.append(("validation", f"{figures} at step {validation['step']}"))
    if last.get("samples_s"):
        shown.append(("speed", _speed(state)))
    memory = _memory(last)
    if memory:
        shown.append(("memory", memory))
    card = _card(last)
    if card:
        shown.append(("GPU of rank 0", card))
    if state.left_s is not None:
        shown.append(("time left", f"about {timedelta(seconds=round(state.left_s))}"))
    return shown


def _state(state: State) -> str:
    said: str = {"gone": "ended"}.get(state.status, state.status)
    if state.status == "running" and not state.tail.last:
        said = "starting"
    elif state.status == "running" and state.step >= state.spec.batches.total_steps:
        said = "trained; its test and what else is left at the end go on"
    elif state.status == "running" and state.age_s is not None:
        said = f"running; the last line is {timedelta(seconds=round(state.age_s))} old"
    return said + (f"; {state.why}" if state.why else "")


def _reward(line: dict[str, Any]) -> str:
    said = {"completion_length": "{:,.0f} tokens each", "clipped": "{:.0%} of them cut off", "kl": "KL {:.3g}"}
    parts = [how.format(line[name]) for name, how in said.items() if line.get(name) is not None]
    return ", ".join([f"{line['reward']:.4f}", *parts])


def _speed(state: State) -> str:
    last = state.tail.last
    rate = last["samples_s"]
    said = f"{rate:,.{1 if rate < 100 else 0}f} {'samples' if state.spec.grpo is None else 'completions'}/s"
    if last.get("mfu") is not None:
        said += f", MFU {last['mfu']:.1%}"
    if "data_wait_s" in last:
        before = state.spec.recipe.track.every * state.spec.batches.global_batch / rate
        said += f", {min(1.0, last['data_wait_s'] / before):.0%} of it waiting for data"
    return said


def _memory(line: dict[str, Any]) -> str:
    names = {
        "peak_alloc_gib": "allocated",
        "peak_reserved_gib": "reserved",
        "host_rss_gib": "in the process",
        "host_used_gib": "in use on the host",
    }
    parts = [f"{line[name]:.1f} {what}" for name, what in names.items() if line.get(name) is not None]
    return f"GiB: {', '.join(parts)}" if parts else ""


def _card(line: dict[str, Any]) -> str:
    shapes = {"gpu_utilisation": "{:.0%} busy", "gpu_temperature_c": "{:.0f} °C", "gpu_power_w": "{:.0f} W"}
    return ", ".join(shape.format(line[name]) for name, shape in shapes.items() if line.get(name) is not None)
