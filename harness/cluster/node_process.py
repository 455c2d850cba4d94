"""The process on a node that measures cells as `harness run` does there; started by the node's agent.

Its commands come through one pipe, and its events leave through another. If the pipe of commands closes, because the
agent or the node's connection is gone, the running cell ends, its record is saved on the node, and the process ends.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from filelock import FileLock

from harness.cluster.code_package import code_sha256
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
)
from harness.cluster.waiting_records import keep_waiting
from harness.errors import UserError
from harness.execution.assemble import blank_record
from harness.execution.completed import find_oom_bound
from harness.execution.hidden_paths import hide_homes
from harness.execution.interrupts import hold_interrupts, interrupt
from harness.execution.jobs import Environment, PreparedCell
from harness.execution.messages import Message, PhaseStarted, Progress
from harness.execution.preparation import Preparations, require_meaningful_accuracy
from harness.execution.probing import StudyPrediction, plan_cells
from harness.execution.quiet import wait_for_quiet
from harness.execution.runner import Runner
from harness.execution.sweep import describe_environment, finish_record
from harness.files import read_from_copies
from harness.machine import cloud_metadata
from harness.machine.private_folders import private_folder, remove_abandoned_folders, user_root
from harness.machine.support import unsupported_reason
from harness.schema.cells import Cell
from harness.schema.host_record import ClusterRun, DetectedInstance, Machine
from harness.schema.record import Record, to_json

LOST = "the node lost its connection to the computer that plans the run"
_NOTICE = "the cloud takes this machine back"
_NOTICE_EVERY_S = 5.0  # as often as AWS recommends, see harness.execution.stop_flag
_PATIENCE_S = 12.0  # of an ending that native code holds up; all ends are due within 15 s
_LOCK_POLL_S = 0.5
_WORK = {"load": "loading the model", "train": "training", "test": "testing", "after": "counting memory and FLOPs"}


class NodeProcess:
    """Measures the cells that come as commands, one at a time."""

    def __init__(self, commands: Connection, events: Connection) -> None:
        """Take the ends of the two pipes."""
        self._commands, self._events = commands, events
        self._queue: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._stop: Stop | None = None
        self._records: list[Record] = []

    def run(self) -> None:
        """Serve commands until one says stop, or the pipe closes."""
        session: Session = self._commands.recv()
        signal.signal(signal.SIGINT, lambda *_: interrupt())
        niceness = _restore_priority()
        remove_abandoned_folders()
        environment = replace(describe_environment(None, _detector(session)), git=session.git)
        with private_folder("cluster") as folder:
            os.chdir(folder)  # no path of a study is below it, so that records keep their paths
            try:
                threading.Thread(target=self._read_commands, daemon=True, name="commands").start()
                self._send(Described(environment, code_sha256(), folder, niceness))
                self._watch_notices(environment)
                self._serve(session, environment, folder)
            except UserError as error:
                self._send(Refused(str(error)))
            except KeyboardInterrupt:
                pass  # between two cells
            finally:
                os.chdir("/")

    def _serve(self, session: Session, environment: Environment, folder: Path) -> None:
        begin = self._queue.get()
        if not isinstance(begin, Begin):
            return
        read_from_copies(begin.copies)
        with Runner() as runner:
            self._send(Progressed("reading and tokenizing the data"))
            preparations = Preparations(folder)
            prepared = {_key(cell): preparations.prepare(cell) for cell in begin.cells}
            for cell in begin.cells:
                require_meaningful_accuracy(cell, prepared[_key(cell)])
            planned = plan_cells(begin.cells, [prepared[_key(cell)] for cell in begin.cells], environment.machine)
            study = StudyPrediction(planned, (), environment.machine)
            self._send(Progressed("loading torch and the model classes"))
            runner.wait_until_warm()
            self._send(Ready())
            while self._stop is None and isinstance(command := self._queue.get(), RunCell):
                cluster = ClusterRun(
                    run=session.run, node=session.node, driver_host=session.driver_host,
                    code_sha256=session.code_sha256, attempt=command.attempt,
                )  # fmt: skip
                inputs = prepared[_key(command.cell)]
                bound = self._oom_bound(command, environment.machine) if session.skip else None
                if bound is None:
                    self._run_cell(session, cluster, runner, command.cell, inputs, environment, study)
                else:
                    record = blank_record(command.cell, environment, "skipped", bound)
                    self._save(session, hide_homes(_with(record, cluster, inputs)))

    def _oom_bound(self, command: RunCell, machine: Machine) -> str | None:
        return find_oom_bound(command.cell.config, [*command.oom_records, *self._records], machine)

    def _run_cell(
        self,
        session: Session,
        cluster: ClusterRun,
        runner: Runner,
        cell: Cell,
        prepared: PreparedCell,
        environment: Environment,
        study: StudyPrediction,
    ) -> None:
        """Run a cell, alone on this host, and save its record."""
        limits, is_supported = cell.config.limits, unsupported_reason(cell.config, environment.machine) is None
        self._send(Progressed("waiting for another node of this host"))
        with FileLock(user_root() / "cluster-host.lock").acquire(poll_interval=_LOCK_POLL_S):
            self._send(Progressed("starting"))
            waited_s = wait_for_quiet(limits, lambda *_: None) if is_supported else None
            with hold_interrupts():
                ran = runner.run(cell, prepared, environment, self._on_message)
                record = finish_record(ran, waited_s, study.predict(cell.config_hash))
                if record.outcome == "interrupted" and self._stop is not None and self._stop.reason is not None:
                    record = record.model_copy(update={"outcome": self._stop.outcome, "reason": self._stop.reason})
                study.learn(record)
                self._records.append(record)
                self._save(session, record.model_copy(update={"cluster": cluster}))

    def _save(self, session: Session, record: Record) -> None:
        """Save a record on the node, and send it; what the node can't save is sent all the same."""
        content = to_json(record).encode()
        try:
            self._send(Ended(keep_waiting(record, session.results_key), content))
        except OSError as error:
            name = f"{record.started_at:%Y%m%dT%H%M%SZ}-{os.urandom(2).hex()}.json"
            self._send(Ended(name, content, unsaved=error.strerror or str(error)))

    def _on_message(self, message: Message) -> None:
        if isinstance(message, PhaseStarted):
            self._send(Progressed(_WORK[message.name]))
        elif isinstance(message, Progress) and message.num_steps_planned:
            self._send(Progressed(_WORK["train"], message.num_steps / message.num_steps_planned))

    def _read_commands(self) -> None:
        """Queue commands; interrupt the main thread when the process must stop."""
        while self._stop is None:
            try:
                command: Command = self._commands.recv()
            except (EOFError, OSError):
                command = Stop("interrupted", LOST)
            if isinstance(command, Stop):
                self._stop_now(command)
            else:
                self._queue.put(command)

    def _stop_now(self, stop: Stop) -> None:
        self._stop = self._stop or stop
        os.kill(os.getpid(), signal.SIGINT)
        timer = threading.Timer(_PATIENCE_S, os._exit, [1])
        timer.daemon = True
        timer.start()

    def _watch_notices(self, environment: Environment) -> None:
        """Stop when the cloud announces that it takes the machine back."""
        detected = environment.detected
        if detected is None or detected.is_spot is False:
            return
        has_notice: Callable[[], bool] = partial(cloud_metadata.preemption_notice, detected.vendor)
        done = threading.Event()

        def watch() -> None:
            while not done.wait(_NOTICE_EVERY_S):
                if has_notice():
                    self._stop_now(Stop("preempted", _NOTICE))
                    return

        threading.Thread(target=watch, daemon=True, name="cloud notices").start()

    def _send(self, event: Event) -> None:
        with contextlib.suppress(OSError):  # the agent is gone, which `_read_commands` notices
            self._events.send(event)


def _key(cell: Cell) -> tuple[str, int]:
    return cell.config_hash, cell.repeat


def _with(record: Record, cluster: ClusterRun, prepared: PreparedCell) -> Record:
    return record.model_copy(update={"cluster": cluster, "data": prepared.data})


def _detector(session: Session) -> Callable[[Machine], DetectedInstance | None]:
    if session.detect == "never":
        return lambda _: None
    is_everywhere = session.detect == "everywhere"
    return lambda machine: cloud_metadata.detect(machine.cloud_vendor, everywhere=is_everywhere)


def _restore_priority() -> int:
    """Undo what Ray does to its workers: a lower priority, and the first place when memory runs out.

    Returns:
        The niceness that is left; not 0 if this user may not lower it.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("0")
    return os.getpriority(os.PRIO_PROCESS, 0)


def main() -> None:
    """Serve the pipes whose descriptors the command line names."""
    commands, events = (int(text) for text in sys.argv[1:3])
    NodeProcess(Connection(commands, writable=False), Connection(events, readable=False)).run()


if __name__ == "__main__":
    main()
