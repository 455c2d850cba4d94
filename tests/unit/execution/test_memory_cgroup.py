"""Control groups in folders laid out as the kernel documents them.

Version 1 runs for real in tests/integration/test_caps.py. The files of version 2 follow
https://docs.kernel.org/admin-guide/cgroup-v2.html; they were not recorded.
"""

from __future__ import annotations

import pytest

from harness.execution.memory_cgroup import (
    MemoryCgroup,
    OomKillCounter,
    candidate_parents,
    make_cgroup,
    set_limit,
)
from harness.machine.cgroups import find_cgroup

GIB = 2**30
MOUNTS = {1: "sys/fs/cgroup/memory", 2: "sys/fs/cgroup"}


@pytest.fixture
def own_group(tmp_path):
    """Lay out /proc and /sys of one version and return this process's memory group, as read from `processes`."""

    def lay_out(version, folder, processes):
        mount = tmp_path / MOUNTS[version]
        (mount / folder).mkdir(parents=True)
        if version == 2:
            (mount / "cgroup.controllers").write_text("cpu memory")
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(processes)
        return find_cgroup("memory", tmp_path)

    return lay_out


def test_version_2_offers_the_own_group_and_then_its_ancestors(own_group, tmp_path):
    own, mount = own_group(2, "user.slice/a.scope", "0::/user.slice/a.scope\n"), tmp_path / MOUNTS[2]
    expected = [mount / "user.slice/a.scope", mount / "user.slice", mount]
    assert list(candidate_parents(own)) == [(path, 2) for path in expected]


def test_version_1_reads_the_line_of_the_memory_controller(own_group, tmp_path):
    own = own_group(1, "job/7", "5:devices:/\n4:cpu,memory:/job/7\n1:cpuset:/x\n0::/\n")
    assert next(candidate_parents(own)) == (tmp_path / MOUNTS[1] / "job/7", 1)


@pytest.mark.parametrize("line", ["0::/../../host/path", "0::/not/mounted/here"])
def test_a_path_outside_the_mount_means_its_root(own_group, line, tmp_path):
    assert list(candidate_parents(own_group(2, "", line))) == [(tmp_path / MOUNTS[2], 2)]


def test_without_a_memory_controller_no_group_is_made_and_no_folder_left(own_group, tmp_path):
    own = own_group(2, "user.slice", "0::/user.slice")
    assert make_cgroup(GIB, "abc", own) is None
    assert sorted(path.name for path in (tmp_path / MOUNTS[2]).rglob("*")) == ["cgroup.controllers", "user.slice"]


def test_version_2_limits_memory_and_swap_and_kills_all_ranks_together(tmp_path):
    for name in ("memory.max", "memory.swap.max", "memory.oom.group"):
        (tmp_path / name).write_text("max")
    (tmp_path / "memory.peak").write_text("12345\n")
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 17\noom 2\noom_kill 2\noom_group_kill 1\n")
    group = MemoryCgroup(tmp_path, 2)
    assert set_limit(group, 2 * GIB)
    assert [(tmp_path / name).read_text() for name in ("memory.max", "memory.swap.max", "memory.oom.group")] == [
        str(2 * GIB), "0", "1",
    ]  # fmt: skip
    assert (group.peak_bytes, group.num_oom_kills) == (12345, 2)


def test_version_1_limits_memory_and_swap_together(tmp_path):
    assert set_limit(MemoryCgroup(tmp_path, 1), GIB)
    assert (tmp_path / "memory.limit_in_bytes").read_text() == (tmp_path / "memory.memsw.limit_in_bytes").read_text()


def test_counts_that_the_kernel_lacks_are_none(tmp_path):
    group = MemoryCgroup(tmp_path, 2)
    assert (group.peak_bytes, group.num_oom_kills) == (None, None)


def test_kills_elsewhere_show_as_a_rise_of_their_counts():
    counts = {"own": 3, "machine": 5}
    kills = OomKillCounter(lambda: (counts["own"], counts["machine"]))
    assert kills.reason() is None
    counts["machine"] = 6
    assert kills.reason().startswith("the machine was out of memory")
    counts["own"] = 4
    assert kills.reason() == "the control group that the harness itself runs in was out of memory"
    counts["own"] = None
    assert kills.reason().startswith("the machine")
