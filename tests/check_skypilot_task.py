"""Read the task that `harness cluster template --on skypilot` writes by SkyPilot's own parser: `make skypilot-check`.

Run by the Python of SkyPilot's environment, which has no harness: python tests/check_skypilot_task.py TASK.yaml
Whether the instance type exists is not checked: SkyPilot fetches its catalog of them from GitHub.
"""

from __future__ import annotations

import sys

import sky


def main(path: str) -> None:
    """Print what SkyPilot understood; fail if it is not what the file should say."""
    task = sky.Task.from_yaml(path)
    (resources,) = task.resources
    place = f"{resources.cloud}/{resources.region}"
    print(f"{task.name}: {resources.instance_type} on {place}, {resources.autostop_config}, {sorted(task.envs)}")
    assert task.num_nodes == 1
    assert resources.instance_type and resources.region
    assert not resources.use_spot  # of the head
    assert resources.autostop_config.enabled and resources.autostop_config.down
    assert resources.ports is None
    assert set(task.envs) == {"HEAD", "MACHINE", "MAX_HOURS"}
    assert task.file_mounts["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "ray start --block" in task.run


if __name__ == "__main__":
    main(sys.argv[1])
