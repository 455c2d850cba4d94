"""Three hosts in network namespaces, each a Ray node: nodes that die or are cut off lose and double no record."""

from __future__ import annotations

import os
import signal
import time

import pytest
from conftest import CPUS, Cluster, measuring_processes, records_of, wait_until, waiting_in

from harness.cluster.local_cluster import LocalNode, local_cluster
from harness.store.record_files import load_record
from tests.network_namespaces import command_line, hosts, processes_in, reason_no_bad_line, reason_not_possible

# Of the head: a node that does not answer for some 10 s is taken for dead, as by default after some 30 s.
FAST = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
}
LONG_CELL = '[matrix]\nseq_len = [24]\nthreads = [1]\nbatch_size = [8, 16]\n"training.max_steps" = [1500]\n'

pytestmark = [pytest.mark.alone, pytest.mark.slow]


@pytest.fixture(scope="module")
def network(state_home):
    """A head, on whose host the study is planned, and two hosts that run cells."""
    if (reason := reason_not_possible()) is not None:
        pytest.skip(reason)
    with hosts(3) as (first, *others):
        variables = FAST | {"XDG_STATE_HOME": str(state_home)}
        head = LocalNode(prefix=first.prefix, address=first.address, num_cpus=0, variables=variables)
        nodes = [
            LocalNode(
                frozenset(CPUS[index % len(CPUS) :][:1]), labels={"machine": "worker"}, prefix=host.prefix, address=host.address,
                variables=variables,
            )
            for index, host in enumerate(others)
        ]  # fmt: skip
        with local_cluster(nodes, head) as local:
            yield Cluster(local), [first, *others], nodes


@pytest.fixture
def two_nodes(network):
    """The cluster with both nodes alive again, whatever the test before did to them."""
    cluster, machines, _ = network
    for started in list(cluster.local.nodes[1:]):
        if started.process.poll() is not None:
            cluster.local.nodes.remove(started)
            cluster.local.add(started.node)
    cluster.local.wait_for(3)
    assert wait_until(lambda: measuring_processes() == [], 20)
    return cluster, machines


def begin(cluster, machines, study, results):
    return cluster.start(
        "run", study, "--cluster", cluster.local.address, "--results", results, prefix=machines[0].prefix
    )


def host_that_measures(machines):
    """Return the host on which a rank runs (it leads a session), and the ids of that host's processes."""
    for host in machines[1:]:
        pids = processes_in(host)
        if any("forkserver" in command_line(pid) and leads_session(pid) for pid in pids):
            return host, pids
    return None


def leads_session(pid):
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:
        return False


def wait_for_measuring(machines):
    found = []
    assert wait_until(lambda: bool(found.append(host_that_measures(machines)) or found[-1]), 90)
    return found[-1]


def assert_every_cell_has_one_ok_record(results, state_home, text):
    records = records_of(results)
    ok = [(record.config_hash, record.repeat) for record in records if record.outcome == "ok"]
    assert len(ok) == len(set(ok)) == 2, text
    attempts = [(record.config_hash, record.repeat, record.cluster) for record in records]
    assert len(attempts) == len({str(attempt) for attempt in attempts})
    for path in waiting_in(state_home):  # on a node that died: the same attempt, which is saved as lost
        waits = load_record(path)
        assert waits.outcome == "interrupted" and waits.cluster in [record.cluster for record in records], text
        path.unlink()
    assert wait_until(lambda: measuring_processes() == [], 15), measuring_processes()
    return records


@pytest.mark.parametrize("victim", ["raylet", "agent"])
def test_a_node_that_dies_has_its_cell_run_elsewhere(two_nodes, study_file, tmp_path, state_home, victim):
    cluster, machines = two_nodes
    study, results = study_file(LONG_CELL, training="eval_every = 1000000"), tmp_path / "r"
    command = begin(cluster, machines, study, results)
    host, pids = wait_for_measuring(machines)
    name = "/raylet " if victim == "raylet" else "ray::NodeAgent"
    (killed, *_) = [pid for pid in pids if name in command_line(pid)]
    os.kill(killed, signal.SIGKILL)
    status, text = command.end()
    assert status == 0, text
    records = assert_every_cell_has_one_ok_record(results, state_home, text)
    (lost,) = [record for record in records if record.outcome == "interrupted"]
    (again,) = [r for r in records if (r.config_hash, r.outcome) == (lost.config_hash, "ok")]
    assert (lost.cluster.attempt, again.cluster.attempt) == (1, 2)
    assert "node" in lost.reason and host.address not in lost.reason


def test_a_cable_that_is_pulled_for_5_s_costs_nothing(two_nodes, study_file, tmp_path, state_home):
    cluster, machines = two_nodes
    study, results = study_file(LONG_CELL, training="eval_every = 1000000"), tmp_path / "r"
    command = begin(cluster, machines, study, results)
    host, _ = wait_for_measuring(machines)
    host.pull_cable()
    time.sleep(5)
    host.plug_cable()
    status, text = command.end()
    assert status == 0, text
    records = assert_every_cell_has_one_ok_record(results, state_home, text)
    assert {record.cluster.attempt for record in records} == {1}, text


def test_a_slow_line_that_loses_packets_loses_no_record(two_nodes, study_file, tmp_path, state_home):
    cluster, machines = two_nodes
    if (reason := reason_no_bad_line(machines[1])) is not None:
        pytest.skip(reason)
    for host in machines[1:]:
        host.disturb("delay", "100ms", "loss", "5%")
    try:
        study, results = study_file(LONG_CELL, training="eval_every = 1000000"), tmp_path / "r"
        status, text = begin(cluster, machines, study, results).end()
    finally:
        for host in machines[1:]:
            host.disturb()
    assert status == 0, text
    assert_every_cell_has_one_ok_record(results, state_home, text)
