"""Two network namespaces that only a cable joins, each with the parent process of one node (node_parent.py)."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from harness.execution.jobs import NodePart

HERE = Path(__file__).resolve().parent
ADDRESSES = ("10.213.77.1", "10.213.77.2")
PORT = 29_400  # free, since nothing else runs in the namespaces
DEADLINE_S = 120.0


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=30)


def why_no_namespaces():
    """Return why this machine can't make network namespaces; None if it can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if shutil.which("ip") is None:
        return "needs the command ip (Debian: apt install iproute2)"
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    name = f"harness-try-{os.getpid()}"
    try:
        ip("netns", "add", name)
        ip("netns", "delete", name)
    except subprocess.CalledProcessError as error:
        return f"no network namespace can be made here: {error.stderr.strip()}"
    return None


def delete_abandoned_namespaces():
    """Delete the namespaces of tests that were killed."""
    listed = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True, timeout=30).stdout
    for name in (line.split()[0] for line in listed.splitlines()):
        if (found := re.fullmatch(r"harness-(\d+)-[01]", name)) and not psutil.pid_exists(int(found[1])):
            ip("netns", "delete", name)


@dataclass
class Parent:
    """The parent process of one node, and what it said."""

    namespace: str
    interface: str
    process: subprocess.Popen
    lines: queue.Queue = field(default_factory=queue.Queue)

    def __post_init__(self):
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.split())
        self.lines.put(["ended"])

    def wait_for(self, word, timeout_s=DEADLINE_S):
        """Wait until the parent says a word, and return what it says with it."""
        while True:
            said, *rest = self.lines.get(timeout=timeout_s)
            if said == word:
                return rest
            assert said != "ended", f"{self.namespace} ended before it said {word}"

    def request(self, path):
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()

    def stop(self):
        self.process.stdin.close()
        self.process.wait(30)
        self._reader.join(10)
        self.process.stdout.close()


@contextlib.contextmanager
def two_machines():
    """Make two namespaces with a cable between them, and yield the parents that run in them."""
    delete_abandoned_namespaces()
    parents = []
    names = [f"harness-{os.getpid()}-{index}" for index in (0, 1)]
    cables = [f"hv{os.getpid()}n{index}" for index in (0, 1)]  # at most 15 characters
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", cables[0], "netns", names[0], "type", "veth", "peer", "name", cables[1], "netns", names[1])
        for name, cable, address in zip(names, cables, ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", cable)
            ip("-n", name, "link", "set", cable, "up")
            ip("-n", name, "link", "set", "lo", "up")  # by which a machine reaches its own address
        for name, cable in zip(names, cables, strict=True):
            process = subprocess.Popen(
                ["ip", "netns", "exec", name, sys.executable, str(HERE / "node_parent.py")],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent.parent), *sys.path])},
            )  # fmt: skip
            parents.append(Parent(name, cable, process))
        for parent in parents:
            parent.wait_for("ready")
        yield tuple(parents)
    finally:
        for parent in parents:
            parent.stop()
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def part_of(parent, index, token):
    """Return the part of one of the two parents."""
    return NodePart(index, 2, ADDRESSES[0], PORT, token, parent.interface, 60.0)


def send_requests(parents, requests, folder):
    """Ask each parent to run its part."""
    for index, (parent, request) in enumerate(zip(parents, requests, strict=True)):
        path = folder / f"{index}.request"
        path.write_bytes(pickle.dumps(request))
        parent.request(path)


def read_results(parents, folder):
    """Wait until all parents are done, and return their parts' results."""
    for parent in parents:
        parent.wait_for("done")
    return [pickle.loads((folder / f"{index}.result").read_bytes()) for index in range(len(parents))]
