"""Control groups of both versions, laid out in a temporary folder."""

from __future__ import annotations

import pytest

from harness.machine.cgroups import ThrottledPeriods, available_memory_bytes, cpu_quota, read_throttled_periods

MIB = 2**20


@pytest.fixture(params=[1, 2])
def version(request):
    return request.param


@pytest.fixture
def root(tmp_path, version):
    """Lay out a machine whose process is in the group /job/7."""
    lines = {1: "5:cpuset:/other\n4:cpu,cpuacct:/job/7\n3:memory:/job/7\n0::/\n", 2: "0::/job/7\n"}
    write(tmp_path / "proc/self/cgroup", lines[version])
    if version == 2:
        write(tmp_path / "sys/fs/cgroup/cgroup.controllers", "cpu memory")
    for controller in ("cpu", "memory"):
        group(tmp_path, version, controller, "job/7").mkdir(parents=True, exist_ok=True)
    return tmp_path


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def group(root, version, controller, name):
    return root / "sys/fs/cgroup" / (controller if version == 1 else "") / name


def limit_cpu(root, version, name, quota):
    folder = group(root, version, "cpu", name)
    if version == 1:
        write(folder / "cpu.cfs_quota_us", f"{quota}\n")
        write(folder / "cpu.cfs_period_us", "100000\n")
    else:
        write(folder / "cpu.max", f"{'max' if quota == -1 else quota} 100000\n")


def test_the_tightest_quota_of_the_group_and_its_ancestors_applies(root, version):
    assert cpu_quota(root) is None
    limit_cpu(root, version, "", -1)
    limit_cpu(root, version, "job/7", 250_000)
    assert cpu_quota(root).cores == 2.5
    limit_cpu(root, version, "job", 150_000)
    quota = cpu_quota(root)
    assert quota.cores == 1.5
    assert quota.file.parent == group(root, version, "cpu", "job")
    assert quota.unlimited == {1: "-1", 2: "max"}[version]


def test_a_path_of_the_host_means_the_mounts_own_quota(root, version):
    write(root / "proc/self/cgroup", {1: "4:cpu:/docker/abc\n", 2: "0::/../docker\n"}[version])
    limit_cpu(root, version, "", 100_000)
    limit_cpu(root, version, "job/7", 50_000)
    assert cpu_quota(root).cores == 1


def test_throttled_periods_are_counted(root, version):
    limit_cpu(root, version, "job/7", 50_000)
    quota = cpu_quota(root)
    assert read_throttled_periods(quota) is None
    assert read_throttled_periods(None) is None
    write(quota.file.parent / "cpu.stat", "nr_periods 40\nnr_throttled 7\nthrottled_time 12345\n")
    assert read_throttled_periods(quota) == ThrottledPeriods(total=40, throttled=7)


def test_inactive_page_cache_counts_as_available_memory(root, version):
    limit, usage, idle = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }[version]
    assert available_memory_bytes(root) is None
    job, own = (group(root, version, "memory", name) for name in ("job", "job/7"))
    write(own / limit, "max" if version == 2 else str(2**63 - 4096))
    write(own / usage, str(500 * MIB))
    assert available_memory_bytes(root) is None
    write(job / limit, str(600 * MIB))
    write(job / usage, str(550 * MIB))
    assert available_memory_bytes(root) == 50 * MIB
    # Version 1 reports the group's own pages and the total with those of its descendants.
    write(job / "memory.stat", f"total_rss 7\n{idle} {30 * MIB}\n" + ("inactive_file 0\n" if version == 1 else ""))
    assert available_memory_bytes(root) == 80 * MIB
    write(own / limit, str(510 * MIB))
    assert available_memory_bytes(root) == 10 * MIB
