"""Ignore SIGTERM on import, in the forkserver and ranks of a resumable training; the parent requests a checkpoint.

At shutdown systemd sends SIGTERM to every process at once (KillMode=control-group), and a rank that ended at once would
write no checkpoint.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)
