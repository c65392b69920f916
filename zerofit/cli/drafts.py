"""What is shown in a terminal until something better takes its place."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def drafted(*, hidden: bool) -> Iterator[Callable[[str], None]]:
    """A function that shows a text, gone when this is left; nothing where no terminal reads, or if `hidden`."""
    if hidden or not sys.stdout.isatty():
        yield lambda text: None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(), auto_refresh=False, transient=True) as live:
        yield lambda text: live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
