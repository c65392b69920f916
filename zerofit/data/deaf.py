"""Imported by the fork server of loader workers, first and by nobody else: signals are the rank's to handle.

The workers inherit it. They end when their rank closes the loader, and when it or the fork server is gone.
"""

from __future__ import annotations

import signal

for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
