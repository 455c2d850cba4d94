"""The agent on a node: starts the process that measures, and speaks for it to the computer that plans the run.

The class is an ordinary one; `harness.cluster.connection` makes a Ray actor of it. Several of its methods run at a time,
each in a thread of Ray's.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, TypeVar

import psutil

from harness.cluster.messages import (
    Begin,
    Command,
    Described,
    Ended,
    Event,
    Progressed,
    Ready,
    Refused,
    RunCell,
    Session,
    Stop,
    StopOutcome,
)
from harness.cluster.study_inputs import unpack_input
from harness.cluster.waiting_records import forget_waiting, read_waiting
from harness.errors import UserError
from harness.files import PACKAGE_FOLDER
from harness.machine.scrub import scrub
from harness.schema.cells import Cell

_MODULE = "harness.cluster.node_process"
_DETACH = """
import os, sys
if os.fork():
    os._exit(0)
os.setsid()
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
_TAIL_BYTES = 2000
_ALLOCATOR_OF_RAY = "/ray/core/libjemalloc"
_CHANGED_BY_RAY = ("PYTHONPATH", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")

_Answer = TypeVar("_Answer")


class NodeAgent:
    """Starts the process that measures on this node, passes commands to it, and keeps what it says."""

    def __init__(self, session: Session) -> None:
        """Start the process.

        Args:
            session: What all runs on this node have in common.
        """
        self._session = session
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the agent lives
        self._described: queue.SimpleQueue[Described | Refused] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[Ready | Refused] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[Ended | Refused] = queue.SimpleQueue()
        self._progress = Progressed("starting")
        self._folder = Path()
        self._has_ended = threading.Event()
        self._commands, events = _start(self._log)
        self._send(session)
        threading.Thread(target=self._read, args=(events,), daemon=True, name="events").start()

    def describe(self) -> Described:
        """Return what the node is, as the process that measures there sees it.

        Raises:
            UserError: If the process can't describe it, or ended.
        """
        described = _require(self._described.get())
        self._folder = described.folder
        return described

    def prepare(self, cells: Sequence[Cell], names: Sequence[tuple[str, str]], *archives: bytes) -> None:
        """Unpack the study's files, prepare the data of all cells, and load torch.

        Args:
            cells: All cells that the node may get.
            names: The study's name of each file or folder, and the path that stands for it in its archive.
            archives: The archives; Ray takes them from its store of objects.

        Raises:
            UserError: If a file can't be unpacked, or a cell's data or model is unusable here.
        """
        copies = {
            name: unpack_input(name, inside, archive, self._folder / f"input{index}")
            for index, ((name, inside), archive) in enumerate(zip(names, archives, strict=True))
        }
        self._send(Begin(tuple(cells), copies))
        _require(self._ready.get())

    def run_cell(self, command: RunCell) -> Ended:
        """Run one cell and return its record.

        Raises:
            UserError: If the process ended before there was a record.
        """
        self._send(command)
        return _require(self._ended.get())

    def progress(self) -> Progressed:
        """Return what the process does now."""
        return self._progress

    def stop(self, outcome: StopOutcome, reason: str | None) -> None:
        """End the running cell with this outcome, and the process; returns when both have ended."""
        self._send(Stop(outcome, reason))
        self._has_ended.wait()

    def waiting(self) -> list[tuple[str, bytes]]:
        """Return name and content of each record that waits on this node."""
        return read_waiting(self._session.results_key)

    def acknowledge(self, names: Sequence[str]) -> None:
        """Remove records that were saved by the computer that planned the run."""
        forget_waiting(self._session.results_key, names)

    def _send(self, command: Command | Session) -> None:
        with contextlib.suppress(OSError):  # it has ended, which `_read` says
            self._commands.send(command)

    def _read(self, events: Connection) -> None:
        """Sort the process's events until it ends."""
        while True:
            try:
                event: Event = events.recv()
            except (EOFError, OSError):
                break
            if isinstance(event, Progressed):
                self._progress = event
            elif isinstance(event, Described):
                self._described.put(event)
            elif isinstance(event, Ready):
                self._ready.put(event)
            elif isinstance(event, Ended):
                self._ended.put(event)
            else:
                self._refuse(event)
        self._has_ended.set()
        self._refuse(Refused(f"the process that measures ended{self._last_words()}"))

    def _refuse(self, refused: Refused) -> None:
        for waiting in (self._described, self._ready, self._ended):
            waiting.put(refused)

    def _last_words(self) -> str:
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - _TAIL_BYTES))
        lines = scrub(self._log.read().decode(errors="replace")).strip().splitlines()
        return f": {lines[-1]}" if lines else ""


def _require(answer: _Answer | Refused) -> _Answer:
    if isinstance(answer, Refused):
        raise UserError(answer.reason)
    return answer


def _start(log: IO[bytes]) -> tuple[Connection, Connection]:
    """Start the process; return the pipe of its commands and that of its events.

    It is no child of this process, because Ray kills those when an agent ends: it then has a record to save.
    """
    commands_in, commands_out = os.pipe()
    events_in, events_out = os.pipe()
    # -P: nothing of the current folder is imported.
    command = ["-P", "-m", _MODULE, str(commands_in), str(events_out)]
    subprocess.run(
        [sys.executable, "-c", _DETACH, *command], env=node_environment(), pass_fds=(commands_in, events_out), cwd="/",
        stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True,
    )  # fmt: skip
    os.close(commands_in)
    os.close(events_out)
    return Connection(commands_out, readable=False), Connection(events_in, writable=False)


def node_environment() -> dict[str, str]:
    """Return the environment that Ray was started with on this node, for a process that runs the code that was sent.

    Ray changes the environment of its workers (threads, visible GPUs, and the folders of imports), and its own processes have
    another allocator than cells would have.
    """
    changed: tuple[str, ...] = ()
    try:
        variables = psutil.Process(os.getppid()).environ()
    except psutil.Error:
        variables, changed = dict(os.environ), _CHANGED_BY_RAY
    kept = {name: value for name, value in variables.items() if not name.startswith("RAY_") and name not in changed}
    libraries = [path for path in kept.pop("LD_PRELOAD", "").split(":") if path and _ALLOCATOR_OF_RAY not in path]
    if libraries:
        kept["LD_PRELOAD"] = ":".join(libraries)
    folders = filter(None, (str(PACKAGE_FOLDER.parent), kept.get("PYTHONPATH")))
    return kept | {"PYTHONPATH": os.pathsep.join(folders)}
