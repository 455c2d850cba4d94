"""Fixtures: a cluster of two local nodes, and `harness run --cluster` in a process of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from harness.cluster.local_cluster import LocalCluster, LocalNode, local_cluster
from harness.schema.record import Record
from harness.store.record_files import load_records

CPUS = sorted(os.sched_getaffinity(0))
SMALL, LARGE = "small", "large"


def pytest_collection_modifyitems(items):
    if importlib.util.find_spec("ray") is None:
        for item in items:
            if "cluster" in Path(item.path).parent.name:
                item.add_marker(pytest.mark.skip(reason="the extra `cluster` (Ray) is not installed"))


@dataclass
class Command:
    """A `harness` command that runs on a cluster, with what it printed."""

    process: subprocess.Popen
    lines: list[str] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def read(self):
        with self.process.stdout as output:
            for line in output:
                with self._changed:
                    self.lines.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, text, timeout_s=120):
        """Wait until a line has this text."""
        ends_at = time.monotonic() + timeout_s
        with self._changed:
            while not any(text in line for line in self.lines):
                if not self._changed.wait(max(0.0, ends_at - time.monotonic())) or self.process.poll() is not None:
                    if any(text in line for line in self.lines):
                        return
                    pytest.fail(f"{text!r} was not printed: {''.join(self.lines)}")

    def end(self, timeout_s=180):
        """Wait for the end, and return the status and all text."""
        status = self.process.wait(timeout_s)
        self._reader.join(10)
        return status, "".join(self.lines)


@dataclass
class Cluster:
    """A running cluster, and a folder for each test's records."""

    local: LocalCluster

    def start(self, *arguments, prefix=(), **variables) -> Command:
        """Start `harness` with the token of the cluster."""
        environment = os.environ | self.local.variables | {"PYTHONUNBUFFERED": "1", "COLUMNS": "200"} | variables
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "harness", *map(str, arguments)], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        command = Command(process)
        command._reader = threading.Thread(target=command.read, daemon=True)
        command._reader.start()
        return command

    def run(self, study, results, *arguments, **variables) -> str:
        """Run a study to its end, which must succeed, and return what was printed."""
        status, text = self.start(
            "run", study, "--cluster", self.local.address, "--results", results, *arguments, **variables
        ).end()
        assert status == 0, text
        return text


@pytest.fixture(scope="session")
def state_home(tmp_path_factory):
    """Folder in which records wait on nodes, instead of the user's own."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def cluster(state_home):
    """A cluster of a node with one CPU and a node with all, both of them labelled."""
    variables = {"XDG_STATE_HOME": str(state_home)}
    nodes = [
        LocalNode(frozenset(CPUS[:1]), labels={"machine": SMALL}, variables=variables),
        LocalNode(labels={"machine": LARGE}, variables=variables),
    ]
    with local_cluster(nodes) as local:
        yield Cluster(local)


def records_of(results: Path) -> list[Record]:
    loaded = load_records([results])
    assert loaded.unreadable == ()
    return list(loaded.records)


def waiting_in(state_home: Path) -> list[Path]:
    return sorted(state_home.rglob("*.json"))


def measuring_processes() -> list[psutil.Process]:
    """Return the processes that measure cells for agents, and all below them."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if "harness.cluster.node_process" in process.cmdline():
                found += [process, *process.children(recursive=True)]
    return found


def has_rank() -> bool:
    """Return whether a cell is being measured: a rank leads a session of its own, as does the process that starts it."""
    sessions = 0
    for process in measuring_processes():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            sessions += os.getsid(process.pid) == process.pid and "node_process" not in " ".join(process.cmdline())
    return sessions > 0


def wait_until(is_true, timeout_s=30.0) -> bool:
    """Ask several times a second; there is no event to wait for in processes of others."""
    ends_at = time.monotonic() + timeout_s
    while not is_true():
        if time.monotonic() > ends_at:
            return False
        time.sleep(0.05)
    return True


def interrupt(command: Command) -> None:
    command.process.send_signal(signal.SIGINT)
