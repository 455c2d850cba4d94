"""The processes of a cell's ranks: start them, receive their messages, and end them with all their child processes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any

import psutil

from harness.execution.jobs import Job
from harness.execution.messages import OnMessage, PhaseStarted, Progress, RankResult
from harness.machine.affinity import allowed_cpus, set_allowed_cpus
from harness.machine.variables import without_thread_variables

# Function to call in the new process, with the rank's job, the pipe to the parent and the path of the log.
WorkerEntry = Callable[[Job, connection.Connection, str], None]
# Seconds that a process has to end after SIGTERM, or after sending its result.
END_TIMEOUT_S = 3.0
_TAIL_BYTES = 20_000


@dataclass
class RankProcess:
    """One rank's process and the messages received from it.

    Attributes:
        process: The process object of multiprocessing, whose type depends on the start method.
        stderr: Log with all output of the process.
        progress: Each progress message with its time of arrival, in seconds since submission of the cell.
        ended_at: When the process ended, in seconds since submission; None while the process runs.
    """

    process: Any
    pipe: connection.Connection
    stderr: Path
    phases: list[PhaseStarted] = field(default_factory=list)
    progress: list[tuple[float, Progress]] = field(default_factory=list)
    result: RankResult | None = None
    ended_at: float | None = None

    def receive(self, now: float, on_message: OnMessage) -> None:
        """Read every pending message; `now` is in seconds since submission."""
        with contextlib.suppress(EOFError, OSError):
            while self.pipe.poll():
                message = self.pipe.recv()
                if isinstance(message, Progress):
                    self.progress.append((now, message))
                elif isinstance(message, PhaseStarted):
                    self.phases.append(message)
                elif isinstance(message, RankResult):
                    self.result = message
                on_message(message)

    def join(self, now: float) -> None:
        """Wait for the process to end; call this once the result has arrived or the process has exited."""
        self.process.join(END_TIMEOUT_S if self.result is not None else None)
        self.ended_at = now


class ForkserverLostError(Exception):
    """The server that starts processes is gone: the kernel ended it, as it does when memory runs out."""


def start_process(process: Any) -> None:  # noqa: ANN401 - contexts share no type
    """Start a process of multiprocessing.

    Raises:
        ForkserverLostError: The forkserver was ended while it loaded torch, or since.
    """
    with hidden_main(), without_thread_variables():
        try:
            process.start()
        except (EOFError, ConnectionError):
            raise ForkserverLostError from None


def start_rank(context: Any, entry: WorkerEntry, job: Job, stderr: Path) -> RankProcess:  # noqa: ANN401 - contexts share no type
    """Start a rank's process.

    Args:
        context: multiprocessing's context of the start method.
        entry: Module-level function to call in the process.
        job: The rank's job.
        stderr: Log for all output of the process.

    Raises:
        ForkserverLostError: The forkserver was ended.
    """
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_enter, args=(entry, allowed_cpus(), job, sender, str(stderr)))
    start_process(process)
    sender.close()
    return RankProcess(process, receiver, stderr)


def _enter(entry: WorkerEntry, cpus: frozenset[int] | None, job: Job, pipe: connection.Connection, stderr: str) -> None:
    """Let this process use the parent's CPUs, and call its entry.

    The forkserver may have fewer: whatever it loads can bind its thread, and forked processes inherit that.

    Args:
        entry: The function to call.
        cpus: The parent's CPUs; None if not known.
        job: The rank's job.
        pipe: The pipe to the parent.
        stderr: Path of the log.
    """
    set_allowed_cpus(cpus)
    entry(job, pipe, stderr)


def end_ranks(ranks: Sequence[RankProcess]) -> None:
    """End the ranks' processes and all processes that they started, with SIGTERM first and SIGKILL for those left."""
    victims: list[psutil.Process] = []
    for rank in ranks:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(rank.process.pid)
            victims += [process, *process.children(recursive=True)]
    for victim in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.terminate()
    _, alive = psutil.wait_procs(victims, timeout=END_TIMEOUT_S)
    for victim in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
    psutil.wait_procs(alive, timeout=END_TIMEOUT_S)
    for rank in ranks:
        # End orphans by their process group: a dead rank's processes are no longer its children, but stay in its group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(rank.process.pid, signal.SIGKILL)
        rank.process.join()
        rank.pipe.close()


def read_tail(path: Path) -> str:
    """Return the end of a log file; empty if the file does not exist."""
    return path.read_bytes()[-_TAIL_BYTES:].decode(errors="replace") if path.exists() else ""


@contextlib.contextmanager
def hidden_main() -> Iterator[None]:
    """Keep multiprocessing from running the parent's main script in every child, which would import the whole CLI."""
    main = sys.modules["__main__"]
    hidden = {name: getattr(main, name) for name in ("__file__", "__spec__") if hasattr(main, name)}
    main.__spec__ = None
    main.__dict__.pop("__file__", None)
    try:
        yield
    finally:
        main.__dict__.update(hidden)
