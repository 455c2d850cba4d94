"""The connection to a Ray cluster: its nodes, the agents on them, and nothing else of Ray.

Imports Ray, which only the extra `cluster` installs, inside functions.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

from harness.cluster.code_package import pack_code, unpack_code
from harness.cluster.messages import Session
from harness.cluster.node_agent import NodeAgent
from harness.cluster.nodes import RESOURCE_PREFIX
from harness.errors import UserError
from harness.machine.private_folders import private_folder
from harness.shipped import how_to_install

_TOKEN_FILE = "RAY_AUTH_TOKEN_PATH"  # noqa: S105 - the name of a variable
_LOW_ON_MEMORY = "running low on memory"  # Ray's words where an agent, which is no task, was ended for it
_AUTOSCALING = "--autoscaling-config="
_AGENT_THREADS = 8
_ASK_S = 20.0
# Asks a cluster for something without a token, in a process of its own because Ray reads the variables once.
_ASK = """
import sys
from ray._raylet import GcsClient
try:
    GcsClient(address=sys.argv[1]).internal_kv_keys(b"", None, timeout=5)
except Exception:
    sys.exit(3)
"""
_REFUSED = 3

Call = Any  # a reference to the result of a remote call; Ray's own type is only there with the extra


@dataclass(frozen=True)
class RayNode:
    """A node that Ray lists as alive.

    Attributes:
        node_id: Ray's random id.
        address: Its address within the cluster.
        cpus: CPUs that Ray may give to tasks there; 0 keeps tasks away.
        labels: Labels that the node was started with.
    """

    node_id: str
    address: str
    cpus: float
    gpus: float
    labels: Mapping[str, str]


class Cluster:
    """A connection to a cluster; see `connect`."""

    def __init__(self, ray: Any) -> None:  # noqa: ANN401 - the module, which is not there without the extra
        self._ray = ray
        self._agent = ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=_AGENT_THREADS)(NodeAgent)

    def nodes(self) -> list[RayNode]:
        """Return the nodes that may run cells: alive, and with CPUs for tasks."""
        listed = [
            RayNode(
                node["NodeID"], node["NodeManagerAddress"], node["Resources"].get("CPU", 0.0),
                node["Resources"].get("GPU", 0.0), dict(node.get("Labels") or {}),
            )
            for node in self._ray.nodes()
            if node["Alive"]
        ]  # fmt: skip
        return [node for node in listed if node.cpus > 0]

    def draining(self) -> frozenset[str]:
        """Return the ids of nodes that Ray was told to empty, because their end was announced."""
        from ray._private.state import state

        return frozenset(state.get_draining_nodes())

    def requestable(self) -> frozenset[str]:
        """Return the kinds of machines that the cluster's autoscaler can start, by the resource that only they have."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                for argument in process.cmdline() if "monitor.py" in " ".join(process.cmdline()) else ():
                    if argument.startswith(_AUTOSCALING):
                        return _requestable_in(Path(argument.removeprefix(_AUTOSCALING)))
        return frozenset()

    def request(self, kinds: Iterable[str]) -> None:
        """Let the autoscaler hold a node of each of these kinds, and let others go once they are idle."""
        from ray.autoscaler.sdk import request_resources

        request_resources(bundles=[{f"{RESOURCE_PREFIX}{kind}": 1} for kind in sorted(kinds)])

    def start_agent(self, node: RayNode, session: Session) -> Any:  # noqa: ANN401 - Ray's handle
        """Start an agent that holds a whole node, so that nothing else of Ray runs there; return its handle."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return self._agent.options(
            num_cpus=node.cpus,
            num_gpus=node.gpus,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False),
        ).remote(session)

    def end_agent(self, agent: Any) -> None:  # noqa: ANN401 - as above
        """End an agent at once; the process that measures ends by itself when its agent is gone."""
        self._ray.kill(agent, no_restart=True)

    def put(self, content: bytes) -> Call:
        """Put bytes into the store of objects, from which each node gets them once."""
        return self._ray.put(content)

    def wait(self, calls: Sequence[Call], timeout_s: float) -> list[Call]:
        """Wait until at least one call has ended, and return those that have."""
        ready, _ = self._ray.wait(list(calls), num_returns=len(calls), timeout=0, fetch_local=False)
        if not ready:
            ready, _ = self._ray.wait(list(calls), num_returns=1, timeout=timeout_s, fetch_local=False)
        return list(ready)

    def result(self, call: Call) -> Any:  # noqa: ANN401 - of any method
        """Return the result of a call that has ended.

        Raises:
            UserError: As the agent's method raised it.
            LostError: The agent or its node is gone or can't be reached.
        """
        try:
            return self._ray.get(call, timeout=_ASK_S)
        except UserError as error:
            raise UserError(str(getattr(error, "cause", error))) from None
        except self._ray.exceptions.RayError as error:
            is_oom = isinstance(error, self._ray.exceptions.OutOfMemoryError) or _LOW_ON_MEMORY in str(error)
            raise LostError(is_preempted=getattr(error, "preempted", False), is_oom=is_oom) from None


class LostError(Exception):
    """An agent or its node is gone or can't be reached.

    Ray's own words are not kept, because they name addresses.

    Attributes:
        is_preempted: Whether its end was announced.
        is_oom: Whether Ray ended it because the node's memory was nearly full.
    """

    def __init__(self, *, is_preempted: bool, is_oom: bool) -> None:
        super().__init__("lost")
        self.is_preempted, self.is_oom = is_preempted, is_oom


@contextlib.contextmanager
def connect(address: str) -> Iterator[Cluster]:
    """Connect to a running cluster that admits only clients with its token.

    Args:
        address: HOST:PORT of the cluster's head, or `auto` for the cluster that this computer is part of.

    Raises:
        UserError: If Ray is not installed, the token is missing or readable by others, the cluster admits clients
            without it, or there is no cluster.
    """
    require_token()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise UserError(f"--cluster needs Ray: {how_to_install('cluster')}") from None

    # Ray prints what happens to its nodes, with their logs, on standard output; what concerns cells, the run says itself.
    worker: Any = import_module("ray._private.worker")
    worker.listen_error_messages = lambda *_: None
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with private_folder("code") as folder:
        package = unpack_code(pack_code(), folder)
        try:
            context: Any = ray.init(
                address, runtime_env={"py_modules": [str(package)]}, log_to_driver=False, logging_level=logging.ERROR
            )
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            first = str(error).strip().splitlines()[:1] or [type(error).__name__]
            raise UserError(f"--cluster {address}: {first[0]}") from None
        finally:
            for number, handler in handlers.items():  # Ray replaces that of SIGTERM
                signal.signal(number, handler)
        try:
            require_closed(context.address_info["gcs_address"])
            yield Cluster(ray)
        finally:
            ray.shutdown()


def require_token() -> None:
    """Turn on Ray's authentication by a token in this process.

    Raises:
        UserError: If it is turned off, or if the token is not in a file that only its user can read.
    """
    mode = os.environ.setdefault("RAY_AUTH_MODE", "token")
    if mode.lower() != "token":
        raise UserError(f"RAY_AUTH_MODE={mode}: --cluster connects to clusters with RAY_AUTH_MODE=token only")
    if "RAY_AUTH_TOKEN" in os.environ:
        raise UserError(
            f"RAY_AUTH_TOKEN: put the token into a file of mode 600, and name the file in {_TOKEN_FILE}; child processes "
            "inherit variables"
        )
    path = Path(os.environ.get(_TOKEN_FILE) or "~/.ray/auth_token").expanduser()
    os.environ[_TOKEN_FILE] = str(path)
    try:
        mode_bits = path.stat().st_mode
    except OSError as error:
        raise UserError(
            f"{path}: the cluster's token is not there ({error.strerror}); copy it from the cluster's head, or name its "
            f"file in {_TOKEN_FILE}"
        ) from None
    if mode_bits & (stat.S_IRWXG | stat.S_IRWXO):
        raise UserError(f"{path}: others can read the cluster's token: chmod 600 {path}")


def require_closed(address: str) -> None:
    """Make sure that a cluster admits no client without the token.

    Raises:
        UserError: If it does: whoever reaches its ports could then run code on its nodes.
    """
    variables = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    asked = subprocess.run(
        [sys.executable, "-c", _ASK, address],
        env=variables | {"RAY_AUTH_MODE": "disabled"}, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    if asked.returncode != _REFUSED:
        raise UserError(
            f"{address}: this cluster admits clients without a token, so that whoever reaches its ports can run code on its "
            "nodes; start Ray with RAY_AUTH_MODE=token on every node"
        )


def _requestable_in(config: Path) -> frozenset[str]:
    """Return the kinds of machines in a file of Ray's cluster launcher."""
    import yaml

    node_types = yaml.safe_load(config.read_text(encoding="utf-8")).get("available_node_types", {})
    names = [name for node_type in node_types.values() for name in node_type.get("resources", {})]
    return frozenset(name.removeprefix(RESOURCE_PREFIX) for name in names if name.startswith(RESOURCE_PREFIX))
