"""Only clients with the token reach a cluster, and nothing of it is left: each promise of SECURITY.md by a test."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from conftest import CPUS, Cluster, wait_until

from harness.cluster import connection
from harness.cluster.local_cluster import LOOPBACK, LocalCluster, LocalNode, local_cluster
from harness.errors import UserError

# Tries to run a function on the cluster, and says how far it came.
INTRUDER = """
import sys
import ray
try:
    ray.init(sys.argv[1], log_to_driver=False, logging_level="CRITICAL")
    @ray.remote(num_cpus=0)
    def leave_mark(path):
        open(path, "w").close()
    ray.get(leave_mark.remote(sys.argv[2]), timeout=20)
except Exception as error:
    print(type(error).__name__, error)
    sys.exit(7)
"""
NODES = [LocalNode(frozenset(CPUS[:1]))]

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def closed():
    with local_cluster(NODES) as local:
        yield Cluster(local)


def intrude(local: LocalCluster, mark: Path, **variables: str) -> tuple[int, str]:
    """Return the status and the words of a client that reaches the cluster; it knows all but the token."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    reach = {name: value for name, value in local.variables.items() if "AUTH" not in name}
    done = subprocess.run(
        [sys.executable, "-c", INTRUDER, local.address, str(mark)], env=clean | reach | {"HOME": str(mark.parent)} | variables,
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("how", ["without a token", "with another token", "with the token"])
def test_only_a_client_with_the_token_can_start_anything(closed, tmp_path, how):
    mark, other = tmp_path / "mark", tmp_path / "other"
    other.write_text("0" * 64)
    other.chmod(0o600)
    variables = {
        "without a token": {"RAY_AUTH_MODE": "disabled"},
        "with another token": {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(other)},
        "with the token": closed.local.variables,
    }[how]
    status, words = intrude(closed.local, mark, **variables)
    assert mark.exists() == (how == "with the token"), words
    assert status == (0 if how == "with the token" else 7), words
    assert how == "with the token" or "uthenticat" in words


def test_a_cluster_that_admits_everybody_is_refused(tmp_path, study_file):
    """Nothing runs there: whoever reaches its ports could change what is measured, and more."""
    with local_cluster([], LocalNode(variables={"RAY_AUTH_MODE": "disabled"}, num_cpus=1)) as opened:
        command = Cluster(opened).start("run", study_file(), "--cluster", opened.address, "--results", tmp_path / "r")
        status, text = command.end()
    assert status == 2, text
    assert "this cluster admits clients without a token" in text
    assert not list((tmp_path / "r").rglob("*.json"))


def test_nothing_listens_on_another_interface(closed):
    listening = {
        connection.laddr.ip
        for started in closed.local.nodes
        for process in started.processes()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening <= {LOOPBACK, "::1", "::ffff:127.0.0.1"}


def test_there_is_no_dashboard_and_no_statistics_are_sent(closed):
    processes = [process for started in closed.local.nodes for process in started.processes()]
    # Ray's process of this name is there in any case; without the frontend it serves no page and no interface for jobs.
    servers = [process.cmdline() for process in processes if "dashboard.py" in " ".join(process.cmdline())]
    assert all("--disable-frontend" in command for command in servers)
    variables = [process.environ() for process in processes]  # empty where a process wrote its title over them
    assert {each.get("RAY_USAGE_STATS_ENABLED") for each in variables if each} == {"0"}


def test_the_token_is_in_no_command_line_log_or_record(closed, study_file, tmp_path):
    token_file = Path(closed.local.variables["RAY_AUTH_TOKEN_PATH"])
    token = token_file.read_text()
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
    text = closed.run(study_file("[matrix]\nseq_len = [24]\nthreads = [1]\n"), tmp_path / "r")
    assert token not in text
    for started in closed.local.nodes:
        assert all(token not in " ".join(process.cmdline()) for process in started.processes())
    for folder in (tmp_path / "r", token_file.parent):
        for path in folder.rglob("*"):
            if path.is_file() and path != token_file:
                assert token.encode() not in path.read_bytes(), path


def test_texts_that_ray_holds_are_removed_at_the_end(study_file, tmp_path):
    """Nor is a process left: neither Ray's nor that of a cell."""
    with local_cluster(NODES) as local:
        folder = Path(local.variables["RAY_AUTH_TOKEN_PATH"]).parent
        assert (folder / "ray").is_dir() and stat.S_IMODE(folder.stat().st_mode) == 0o700
        processes = [process for started in local.nodes for process in started.processes()]
    assert not folder.exists()
    assert wait_until(lambda: not any(process.is_running() for process in processes), 10)
    assert not [path for path in Path("/dev/shm").glob("plasma*") if path.stat().st_uid == os.getuid()]


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"RAY_AUTH_MODE": "disabled"}, "RAY_AUTH_MODE=token only"),
        ({"RAY_AUTH_TOKEN": "0" * 64}, "put the token into a file of mode 600"),
        ({"RAY_AUTH_TOKEN_PATH": "no-such-file"}, "the cluster's token is not there"),
        ({"RAY_AUTH_TOKEN_PATH": "open-file"}, "chmod 600"),
    ],
)
def test_a_token_that_is_no_secret_is_refused(monkeypatch, tmp_path, variables, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "open-file").write_text("0" * 64)
    (tmp_path / "open-file").chmod(0o644)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # so that what the function sets is undone too
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=reason):
        connection.require_token()
