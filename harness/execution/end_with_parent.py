"""Let the kernel end this process with its parent, however that ends (Linux); importing this module does it.

A process that loads torch doesn't notice for seconds that its parent is gone, on a busy machine for tens of seconds. The
forkserver and other processes that load torch import this module first. Processes that they fork don't inherit it.
Source: prctl(2), PR_SET_PDEATHSIG.
"""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1

if sys.platform == "linux":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
