"""Ignore SIGTERM in the process that imports this module: the forkserver of a resumable training, and thus its ranks.

At shutdown systemd sends SIGTERM to all processes at the same time (KillMode=control-group), and a rank that ended on
this signal would write no checkpoint. Instead, the parent handles the signal and asks the ranks for a checkpoint.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)
