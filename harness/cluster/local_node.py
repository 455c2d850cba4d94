"""The process that starts one Ray node on this computer; started by `harness.cluster.local_cluster`.

It ends with its node, and ends its node when the process that started it is gone, however that ended.

It does what `ray start --block` does. That command replaces loopback by another address of the computer, on which Ray would
then listen; and it starts a server for Ray's thin client.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

_LOOK_EVERY_S = 1.0


def main() -> None:
    """Start the node that the command line describes in JSON, and end with one of its processes, or with its own parent."""
    parent = os.getppid()
    spec: dict[str, Any] = json.loads(sys.argv[1])
    if spec["cpus"]:
        os.sched_setaffinity(0, spec["cpus"])  # Ray's processes, and cells, inherit it
    for group in spec["groups"]:
        (Path(group) / "cgroup.procs").write_text(str(os.getpid()))

    node_module, parameters_module = map(import_module, ("ray._private.node", "ray._private.parameter"))
    is_head = spec["gcs_address"] is None
    parameters = parameters_module.RayParams(
        node_ip_address=spec["address"],
        node_name=spec["name"],
        gcs_server_port=spec["port"] if is_head else None,
        gcs_address=spec["gcs_address"],
        num_cpus=spec["num_cpus"],
        num_gpus=0,
        labels=spec["labels"],
        object_store_memory=spec["object_store_bytes"],
        temp_dir=spec["temp_dir"],
        min_worker_port=0,
        max_worker_port=0,
        include_dashboard=False,
        dashboard_host=spec["address"],
        dashboard_agent_listen_port=0,
        include_log_monitor=False,
        no_monitor=True,
    )
    node = node_module.Node(parameters, head=is_head, shutdown_at_exit=True, spawn_reaper=True)
    while not node.dead_processes() and os.getppid() == parent:
        time.sleep(_LOOK_EVERY_S)
    node.kill_all_processes(check_alive=False, allow_graceful=False)
    sys.exit("a process of the node ended, or the process that started it")


if __name__ == "__main__":
    main()
