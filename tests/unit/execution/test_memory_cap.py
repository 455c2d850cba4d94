"""Finding and filling control groups, in folders laid out as the kernel documents them.

Version 1 runs for real in tests/integration/test_caps.py; version 2's files are written from
https://docs.kernel.org/admin-guide/cgroup-v2.html, not recorded.
"""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from harness.execution import memory_cap as cage_module
from harness.execution.memory_cap import MemoryCap, MemoryCgroup, OomKillCounter
from harness.machine import describe as machine_module

GIB = 2**30


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Lays out a mount of one version, with this process in `own`; returns the mount."""

    def lay(version, own, proc):
        mount = tmp_path / "mount"
        (mount / own).mkdir(parents=True)
        if version == 2:
            (mount / "cgroup.controllers").write_text("cpu memory")
        monkeypatch.setattr(machine_module, "_GROUP_MOUNTS", {1: mount, 2: mount})
        read = machine_module._read
        monkeypatch.setattr(machine_module, "_read", lambda path: proc if path == "/proc/self/cgroup" else read(path))
        return mount

    return lay


def test_version_2_tries_the_own_group_and_then_its_ancestors(system):
    mount = system(2, "user.slice/a.scope", "0::/user.slice/a.scope\n")
    expected = [mount / "user.slice/a.scope", mount / "user.slice", mount]
    assert list(cage_module._candidates()) == [(path, 2) for path in expected]


def test_version_1_goes_by_the_memory_controllers_line(system):
    mount = system(1, "job/7", "5:devices:/\n4:cpu,memory:/job/7\n1:cpuset:/x\n0::/\n")
    assert next(cage_module._candidates()) == (mount / "job/7", 1)


@pytest.mark.parametrize("line", ["0::/../../host/path", "0::/not/mounted/here"])
def test_a_path_of_the_hosts_means_the_mounts_root(system, line):
    mount = system(2, "", line)
    assert list(cage_module._candidates()) == [(mount, 2)]


def test_where_no_controller_is_there_is_no_group_and_nothing_is_left(system):
    mount = system(2, "user.slice", "0::/user.slice")
    assert cage_module._make_group(GIB, "abc") is None
    assert sorted(path.name for path in mount.rglob("*")) == ["cgroup.controllers", "user.slice"]


def test_version_2_sets_memory_swap_and_all_ranks_or_none(tmp_path):
    for name in ("memory.max", "memory.swap.max", "memory.oom.group"):
        (tmp_path / name).write_text("max")
    (tmp_path / "memory.peak").write_text("12345\n")
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 17\noom 2\noom_kill 2\noom_group_kill 1\n")
    group = MemoryCgroup(tmp_path, 2)
    assert cage_module._set_limit(group, 2 * GIB)
    assert [(tmp_path / name).read_text() for name in ("memory.max", "memory.swap.max", "memory.oom.group")] == [
        str(2 * GIB), "0", "1",
    ]  # fmt: skip
    assert (group.peak_bytes, group.num_oom_kills) == (12345, 2)


def test_version_1_sets_memory_and_swap_together(tmp_path):
    assert cage_module._set_limit(MemoryCgroup(tmp_path, 1), GIB)
    assert (tmp_path / "memory.limit_in_bytes").read_text() == (tmp_path / "memory.memsw.limit_in_bytes").read_text()


def test_what_the_kernel_does_not_tell_is_none(tmp_path):
    group = MemoryCgroup(tmp_path, 2)
    assert (group.peak_bytes, group.num_oom_kills) == (None, None)


@pytest.mark.parametrize(
    ("peak", "kills", "why"),
    [
        (2 * GIB, 1, "the control group's limit of 2 GiB was reached"),
        (GIB, 1, "memory ran out around it, below the control group's limit of 2 GiB"),
        (2 * GIB, 0, None),
        (None, 1, "the control group's limit of 2 GiB was reached"),
    ],
)
def test_why_the_kernel_killed(peak, kills, why, tmp_path, monkeypatch):
    monkeypatch.setattr(cage_module, "_make_group", lambda *_: MemoryCgroup(tmp_path, 2))
    (tmp_path / "memory.events").write_text(f"oom_kill {kills}")
    if peak is not None:
        (tmp_path / "memory.peak").write_text(str(peak))
    cage = MemoryCap(2 * GIB, 1, tmp_path)
    assert cage.oom_reason() == why
    assert (cage.facts().num_oom_kills, cage.facts().peak_bytes, cage.exact) == (kills, peak, True)


def test_without_a_group_each_rank_gets_its_share_and_python_is_put_back(tmp_path, monkeypatch):
    monkeypatch.setattr(cage_module, "_candidates", lambda: iter(()))
    cage = MemoryCap(GIB, 2, tmp_path)
    before = multiprocessing.spawn.get_executable()
    with cage.spawn_inside(tmp_path / "rank0.log"):
        script = Path(multiprocessing.spawn.get_executable().decode()).read_text()
        assert "ulimit -d 524288 && exec " in script and "rank0.log" in script
    assert multiprocessing.spawn.get_executable() == before
    assert (cage.exact, cage.facts().method, cage.oom_reason()) == (False, "rlimit_data", None)


def test_kills_elsewhere_are_seen_by_what_rose_meanwhile(monkeypatch):
    counts = {"own": 3, "machine": 5}
    monkeypatch.setattr(OomKillCounter, "_read", lambda _: (counts["own"], counts["machine"]))
    kills = OomKillCounter()
    assert kills.reason() is None
    counts["machine"] = 6
    assert kills.reason().startswith("the machine was out of memory")
    counts["own"] = 4
    assert kills.reason() == "the control group that the harness itself runs in was out of memory"
    counts["own"] = None
    assert kills.reason().startswith("the machine")
