"""Load counters and clock samples, from files laid out as the kernel documents them."""

from __future__ import annotations

import pytest

from harness.machine.cpu_usage import usable_cores
from harness.machine.load_monitor import LoadMonitor

CORES = sorted(usable_cores())


def write(root, path, text):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(f"{text}\n")


@pytest.fixture
def root(tmp_path):
    write(tmp_path, "proc/self/cgroup", "0::/cell")
    write(tmp_path, "proc/vmstat", "pgfault 9\npgmajfault 100")
    write(tmp_path, "sys/fs/cgroup/cgroup.controllers", "cpu memory")
    write(tmp_path, "sys/fs/cgroup/cell/cpu.max", "100000 100000")
    write(tmp_path, "sys/fs/cgroup/cell/cpu.stat", "usage_usec 1\nnr_periods 50\nnr_throttled 5")
    for core in CORES:
        cpu = f"sys/devices/system/cpu/cpu{core}"
        write(tmp_path, f"{cpu}/cpufreq/scaling_cur_freq", 3_500_000)
        write(tmp_path, f"{cpu}/thermal_throttle/core_throttle_count", 2)
        write(tmp_path, f"{cpu}/thermal_throttle/package_throttle_count", 10)
    return tmp_path


def test_the_load_is_the_increase_of_the_counters(root):
    monitor = LoadMonitor(0, root)
    monitor.poll(0.0)
    write(root, "proc/vmstat", "pgfault 9\npgmajfault 130")
    write(root, "sys/fs/cgroup/cell/cpu.stat", "usage_usec 1\nnr_periods 250\nnr_throttled 45")
    cpu = f"sys/devices/system/cpu/cpu{CORES[0]}"
    write(root, f"{cpu}/thermal_throttle/core_throttle_count", 3)
    for core in CORES:
        write(root, f"sys/devices/system/cpu/cpu{core}/thermal_throttle/package_throttle_count", 14)
        write(root, f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq", 2_800_000)
    monitor.poll(1.0)  # too early for another clock sample
    monitor.poll(5.0)
    load = monitor.snapshot(1.5)
    assert (load.major_faults, load.quota_periods, load.throttled_periods) == (30, 200, 40)
    assert load.thermal_throttles == 1 + 4  # the core's count, and the package's, which every core's folder repeats
    assert load.clock_mhz == (3500.0, 2800.0)
    assert load.cell_s == 1.5 and load.swapped_bytes >= 0


def test_missing_counters_are_none(tmp_path):
    monitor = LoadMonitor(0, tmp_path)
    monitor.poll(0.0)
    load = monitor.snapshot(None)
    unknown = (load.major_faults, load.quota_periods, load.throttled_periods, load.thermal_throttles, load.clock_mhz)
    assert unknown == (None,) * 5
