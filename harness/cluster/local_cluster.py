"""A Ray cluster of several nodes on this computer, for the demonstration and for tests.

Its nodes may use different CPUs and amounts of memory, so that they are different machines to the harness. Only clients with
its token are admitted, nothing listens on another interface than its own, there is no dashboard, and no statistics are sent.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from harness.errors import UserError
from harness.machine.network import free_port
from harness.machine.private_folders import private_folder

LOOPBACK = "127.0.0.1"
_MIB = 2**20
_STORE_BYTES = 300 * _MIB  # of a node's store of objects: the embedded model and the packaged data fit
_NODE = "harness.cluster.local_node"
_START_S = 90.0
_STOP_S = 8.0
# Waits until a cluster lists enough nodes; in a process of its own, because Ray reads the token once a process.
_WAIT = """
import sys, time
from ray._raylet import GcsClient
ends_at = time.monotonic() + float(sys.argv[3])
while time.monotonic() < ends_at:
    try:
        nodes = GcsClient(address=sys.argv[1]).get_all_node_info(timeout=5).values()
        if sum(node.state == 0 for node in nodes) >= int(sys.argv[2]):
            sys.exit(0)
    except Exception as error:
        last = error
    time.sleep(0.2)
sys.exit("the nodes did not come")
"""


@dataclass(frozen=True)
class LocalNode:
    """A node to start.

    Attributes:
        cpus: CPUs that it may use; empty: all.
        groups: Folders of control groups that it is put into.
        labels: Labels for Ray, e.g. `machine`.
        prefix: Command that is put before, e.g. `ip netns exec NAME`.
        address: Its address; nothing of it listens elsewhere if this is loopback.
        num_cpus: CPUs that Ray may give to tasks; 0 for a head that runs no cells.
        variables: Environment variables of its processes.
    """

    cpus: frozenset[int] = frozenset()
    groups: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    address: str = LOOPBACK
    num_cpus: int = 1
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass
class StartedNode:
    """A node that was started; the first of its processes is `harness.cluster.local_node`."""

    node: LocalNode
    process: subprocess.Popen[bytes]

    def processes(self) -> list[psutil.Process]:
        """Return its processes that run: the first and all below it."""
        try:
            leader = psutil.Process(self.process.pid)
            return [leader, *leader.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


class LocalCluster:
    """A cluster whose nodes were started by this process.

    Attributes:
        address: HOST:PORT of its head.
        nodes: Its nodes, the head first.
        variables: Environment variables that a client needs; the token is in the file that one of them names.
    """

    def __init__(self, folder: Path, head: LocalNode) -> None:
        """Choose the address and write the token.

        Args:
            folder: Private folder for the token and for Ray's own files.
            head: The head.
        """
        self._folder, self._head, self._num_started = folder, head, 0
        self._token = folder / "token"
        descriptor = os.open(self._token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123 - of a descriptor
            file.write(secrets.token_hex(32))
        self.address = f"{head.address}:{free_port(LOOPBACK)}"
        self.nodes: list[StartedNode] = []
        self.variables = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._token),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        if head.address == LOOPBACK:
            self.variables["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # off, Ray does not look for another address

    def start(self, nodes: Sequence[LocalNode]) -> None:
        """Start the head and the nodes, and wait for them.

        Raises:
            UserError: If they don't come.
        """
        self._start(self._head, None)
        self.wait_for(1)
        for count, node in enumerate(nodes, start=2):
            self.add(node)  # one by one: two that start at once in one folder miss each other's sockets
            self.wait_for(count)

    def add(self, node: LocalNode) -> StartedNode:
        """Start one more node, without waiting for it."""
        return self._start(node, self.address)

    def wait_for(self, num_nodes: int) -> None:
        """Wait until the cluster lists this many nodes, the head included.

        Raises:
            UserError: If it does not within a minute and a half.
        """
        done = subprocess.run(
            [*self._head.prefix, sys.executable, "-c", _WAIT, self.address, str(num_nodes), str(_START_S)],
            env=self._environment({}), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            words = [line for log in sorted(self._folder.glob("*.log")) for line in log.read_text().splitlines()[-1:]]
            raise UserError(f"Ray's nodes did not start on this computer: {'; '.join(words)}")

    def stop(self) -> None:
        """End all nodes; what does not end in some seconds is killed."""
        processes = [process for started in self.nodes for process in started.processes()]
        for started in self.nodes:
            with contextlib.suppress(ProcessLookupError):
                started.process.terminate()
        _, alive = psutil.wait_procs(processes, timeout=_STOP_S)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=_STOP_S)
        for started in self.nodes:
            started.process.wait()

    def _start(self, node: LocalNode, gcs_address: str | None) -> StartedNode:
        """Start a node: the head if there is no address to connect to."""
        name = f"node{self._num_started}"
        self._num_started += 1
        spec = {
            "cpus": sorted(node.cpus),
            "groups": node.groups,
            "address": node.address,
            "name": name,
            "port": int(self.address.rpartition(":")[2]),
            "gcs_address": gcs_address,
            "num_cpus": node.num_cpus,
            "labels": dict(node.labels),
            "object_store_bytes": _STORE_BYTES,
            "temp_dir": str(self._folder / "ray"),
        }
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*node.prefix, sys.executable, "-m", _NODE, json.dumps(spec)], env=self._environment(node.variables),
                start_new_session=True, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self.nodes.append(StartedNode(node, process))
        return self.nodes[-1]

    def _environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of Ray's processes: those that cells share the CPU with stay out of their way."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        own = {
            "RAY_worker_niceness": "0",
            "RAY_memory_monitor_refresh_ms": "0",
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        }
        return inherited | self.variables | own | dict(variables)


@contextlib.contextmanager
def local_cluster(nodes: Sequence[LocalNode], head: LocalNode | None = None) -> Iterator[LocalCluster]:
    """Start a cluster on this computer, and remove it with all of its files at the end.

    Args:
        nodes: Nodes that run cells.
        head: The head; None: one on loopback that runs no cells.

    Raises:
        UserError: If the nodes don't come.
    """
    with private_folder("ray") as folder:
        cluster = LocalCluster(folder, head or LocalNode(num_cpus=0))
        try:
            cluster.start(nodes)
            yield cluster
        finally:
            cluster.stop()
