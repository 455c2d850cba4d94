"""Ignore SIGTERM and SIGHUP in the forkserver of a resumable training, which imports this module, and thus in its ranks.

At shutdown systemd sends SIGTERM to all processes at the same time (KillMode=control-group), and a rank that ended on
this signal would write no checkpoint. A closing terminal sends SIGHUP in the same way. Instead, the parent
handles the signal and asks the ranks for a checkpoint.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
