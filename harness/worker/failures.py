"""Classify the exceptions that end a rank."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

import torch
import torch.distributed as dist
from safetensors import SafetensorError

from harness.errors import shorten
from harness.execution.oom_messages import find_oom_message
from harness.schema.record import Outcome
from harness.worker.device import Unsupported

_MAX_REASON_LENGTH = 300
# What gloo (gloo/transport/tcp/pair.cc, unbound_buffer.cc) and NCCL (ncclGetErrorString, ProcessGroupNCCL.cpp) say.
_LOST_PEER = re.compile(
    r"Connection (?:closed|reset) by peer|Broken pipe|gloo/transport/tcp/(?:pair|buffer|unbound_buffer)\.cc"
    r"|ncclRemoteError|remote process exited|NCCL communicator was aborted"
)

# Libraries raise these types when memory runs out, but also on other failures: only the message tells.
_AMBIGUOUS_TYPES = (RuntimeError, ImportError, OSError, SafetensorError)


def classify(error: BaseException) -> tuple[Outcome, str]:
    """Return the outcome that an exception stands for, and the reason in one line."""
    oom_reason = next(filter(None, map(_oom_reason, _with_causes(error))), None)
    if oom_reason is not None:
        return "oom", oom_reason
    return ("unsupported", str(error).strip()) if isinstance(error, Unsupported) else ("crashed", _first_line(error))


def lost_peer(error: BaseException) -> bool:
    """Return whether an exception means that the connection to another rank broke, which must have failed before."""
    for each in _with_causes(error):
        if isinstance(each, dist.DistNetworkError | dist.DistStoreError):
            return True
        if isinstance(each, RuntimeError) and _LOST_PEER.search(str(each)):
            return True
    return False


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and its causes: libraries wrap a failed allocation in errors of their own."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__


def _oom_reason(error: BaseException) -> str | None:
    """Return in one line why an exception means that memory ran out; None if it doesn't."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return _first_line(error)
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return _first_line(error)
    # Search the whole message, since NCCL doesn't name the cause in the first line.
    oom_message = find_oom_message(str(error)) if isinstance(error, _AMBIGUOUS_TYPES) else None
    return shorten(f"{type(error).__name__}: {oom_message}", _MAX_REASON_LENGTH) if oom_message else None


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return shorten(f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}", _MAX_REASON_LENGTH)
