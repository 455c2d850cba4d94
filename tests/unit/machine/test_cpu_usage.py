"""CPU usage between two snapshots of hand-written counters."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.machine.cgroups import Quota, ThrottledPeriods
from harness.machine.cpu_usage import (
    BusyProcess,
    CpuTicks,
    CpuUsage,
    Snapshot,
    diff,
    load_finding,
    quota_finding,
    read_ticks,
    steal_finding,
)
from harness.machine.processes import ProcessFacts

OWN = frozenset({10, 11})
MINE = ProcessFacts(20, "me", is_mine=True, command="python loop.py")
UNKNOWN = ProcessFacts(22, None, is_mine=False, command="loop")


def snapshot(at_s, busy_s, stolen_s, total_s, swapped=0, throttled=None, **used):
    pids = {"harness": 10, "worker": 11, "loop": 20, "browser": 21, "late": 22}
    processes = {(pids[name], 1.0): (name, cpu_s) for name, cpu_s in used.items()}
    return Snapshot(at_s, CpuTicks(busy_s, stolen_s, total_s), processes, swapped, throttled)


BEFORE = snapshot(
    100.0, 50.0, 1.0, 200.0, harness=1.0, worker=0.0, loop=7.0, browser=3.0, throttled=ThrottledPeriods(10, 2)
)


def usage(others=(), cores=0.0, stolen=0.0, throttled=None):
    return CpuUsage(tuple(others), cores, stolen, 0, throttled)


def test_usage_of_other_processes_excludes_the_harness():
    after = snapshot(
        102.0,
        53.2,
        1.2,
        204.0,
        4096,
        ThrottledPeriods(30, 12),
        harness=1.4,
        worker=0.1,
        loop=9.0,
        browser=3.1,
        late=0.5,
    )
    found = diff(BEFORE, after, OWN)
    assert found.others == (("loop", 20, pytest.approx(1.0)), ("late", 22, pytest.approx(0.25)))
    # The cores were busy for 3.2 s in 2 s, 0.5 s of it by the harness: 1.35 cores, more than the listed 1.3.
    assert found.others_cores == pytest.approx(1.35)
    assert found.stolen_fraction == pytest.approx(0.05)
    assert found.swapped_bytes == 4096
    assert found.throttled_fraction == pytest.approx(0.5)


def test_without_per_core_counters_usage_comes_from_processes():
    after = snapshot(102.0, 0, 0, 0, loop=8.0, browser=3.0)._replace(cores=None)
    found = diff(BEFORE._replace(cores=None), after, OWN)
    assert found.others_cores == pytest.approx(0.5)
    assert found.stolen_fraction is None
    assert found.throttled_fraction is None


def test_ticks_cover_only_the_given_cores(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text(
        "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 100 10 50 800 30 4 6 20 70 7\ncpu1 1 1 1 1 1 1 1 1 1 1\nintr 5\n"
    )
    hz = os.sysconf("SC_CLK_TCK")
    found = read_ticks(frozenset({0}), tmp_path)
    assert (found.busy_s, found.stolen_s, found.total_s) == pytest.approx((170 / hz, 20 / hz, 1020 / hz))
    assert read_ticks(frozenset({7}), tmp_path) is None
    assert read_ticks(frozenset({0}), tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("cores", "usable", "num_cores", "verdict"),
    [
        (0.09, 2, 2, "good"),
        (0.2, 2, 2, "warn"),
        (0.5, 2, 2, "bad"),
        (1.0, 1, 2, "warn"),  # under a quota of one core, the other core is free for the cell
        (1.0, 64, 64, "bad"),  # all threads wait for the one whose core is shared
    ],
)
def test_load_is_judged_against_the_cores_of_a_cell(cores, usable, num_cores, verdict):
    assert load_finding(usage(cores=cores), usable, num_cores).verdict == verdict


def test_usage_of_invisible_processes_is_listed():
    found = load_finding(
        usage([BusyProcess("loop", 20, 0.75)], cores=1.25), 2, 2, lambda pid, _: MINE._replace(pid=pid)
    )
    assert found.value.splitlines() == [
        "1.25 of 2 cores", "0.75 python loop.py (pid 20, of me)", "0.50 processes that are not visible from here",
    ]  # fmt: skip
    assert found.fix == "kill 20 (yours, if you can spare them); or wait until they are done"
    assert load_finding(usage(cores=1.25), 2, 2).fix == "none: the processes are not visible from here"


def test_nobody_is_told_to_kill_a_process_of_another_user():
    owners = {20: MINE, 21: MINE._replace(pid=21, owner="alice", is_mine=False), 22: UNKNOWN._replace(pid=22)}
    busy = [BusyProcess("loop", pid, 0.5) for pid in owners]
    found = load_finding(usage(busy, cores=1.5), 2, 2, lambda pid, _: owners[pid])
    assert found.fix == (
        "kill 20 (yours, if you can spare them); ask alice, its owner to stop the others; or wait until they are done"
    )
    theirs = load_finding(usage(busy[1:], cores=1.0), 2, 2, lambda pid, _: owners[pid])
    assert theirs.fix == "ask alice, its owner to stop them; or wait until they are done"
    assert "kill" not in theirs.fix


@pytest.mark.parametrize(
    ("stolen", "verdict", "value"),
    [
        (0.004, "good", "0.4% of the cores' time"),
        (0.02, "warn", "2.0% of the cores' time"),
        (0.06, "bad", "6.0% of the cores' time"),
        (None, "not known", "not known"),
    ],
)
def test_steal_time(stolen, verdict, value):
    found = steal_finding(usage(stolen=stolen))
    assert (found.verdict, found.value) == (verdict, value)


@pytest.mark.parametrize(
    ("quota", "threads", "throttled", "verdict"),
    [
        (None, 4, None, "good"),
        (4.0, 4, None, "good"),
        (2.0, 2, None, "warn"),
        (2.0, 2, 0.05, "warn"),
        (2.0, 2, 0.06, "bad"),
        (1.5, 2, None, "bad"),
        (0.5, 1, None, "bad"),
    ],
)
def test_a_quota_is_bad_with_more_threads_or_when_used_up(monkeypatch, quota, threads, throttled, verdict):
    monkeypatch.setattr("sys.platform", "linux")
    cpu_quota = None if quota is None else Quota(quota, Path("/g/cpu.max"), "max")
    found = quota_finding(cpu_quota, usage(throttled=throttled), 4, threads)
    assert found.verdict == verdict
    assert (found.fix is None) == (verdict == "good")
    if found.fix:
        assert found.fix.startswith("echo max | sudo tee /g/cpu.max ")
