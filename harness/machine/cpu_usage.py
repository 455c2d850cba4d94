"""Measure for two seconds how much CPU time other processes, the hypervisor and the CPU quota take from a cell."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil

from harness.machine.cgroups import ROOT, Quota, ThrottledPeriods, cpu_quota, read_throttled_periods
from harness.machine.processes import ProcessFacts, describe_process, how_to_free
from harness.schema.finding import Finding, Verdict

MEASURE_S = 2.0
_MIN_CORES = 0.1  # the kernel counts CPU time in ticks of 10 ms, so a smaller usage in 2 s is mostly rounding
_BAD_CORES = 0.5
_MAX_NAMED = 8  # most processes that a finding names
_WARN_STEAL, _BAD_STEAL = 0.01, 0.05
_BAD_THROTTLED = 0.05


class CpuTicks(NamedTuple):
    """CPU seconds of the usable cores since the machine started.

    Attributes:
        busy_s: Seconds that processes used.
        stolen_s: Seconds that the hypervisor took.
        total_s: Seconds in total, idle time included.
    """

    busy_s: float
    stolen_s: float
    total_s: float


class Snapshot(NamedTuple):
    """Counters at one moment; a counter that the system does not report is None.

    Attributes:
        at_s: Monotonic time in seconds.
        processes: Name and CPU seconds of each process, by (pid, creation time).
        swapped_bytes: Bytes read from and written to swap since the machine started.
    """

    at_s: float
    cores: CpuTicks | None
    processes: dict[tuple[int, float], tuple[str, float]]
    swapped_bytes: int | None
    throttled: ThrottledPeriods | None


class BusyProcess(NamedTuple):
    """A process and the cores that it used."""

    name: str
    pid: int
    cores: float


class CpuUsage(NamedTuple):
    """CPU usage between two snapshots, in cores: CPU seconds per second.

    Attributes:
        others: Other processes that used at least 0.1 cores, busiest first.
        others_cores: Cores used by all other processes, including processes outside this container.
        stolen_fraction: Share of the cores' time that the hypervisor took; None when unknown.
        swapped_bytes: Bytes read from and written to swap; None when unknown.
        throttled_fraction: Share of scheduling periods in which the CPU quota was used up; None when unknown.
    """

    others: tuple[BusyProcess, ...]
    others_cores: float
    stolen_fraction: float | None
    swapped_bytes: int | None
    throttled_fraction: float | None


def measure_cpu_usage(seconds: float = MEASURE_S) -> CpuUsage:
    """Take two snapshots, `seconds` apart, and return the CPU usage between them."""
    quota = cpu_quota()
    before = _take_snapshot(quota)
    time.sleep(seconds)
    return diff(before, _take_snapshot(quota), _own_pids())


def read_ticks(usable: frozenset[int], root: Path = ROOT) -> CpuTicks | None:
    """Read the counters of the given cores; None when the system does not report them.

    Args:
        usable: Cores to sum; load on other cores of a large host does not affect this process.
        root: Folder that contains proc/; tests use their own.
    """
    try:
        text = (root / "proc/stat").read_text()
    except OSError:
        return None
    rows = [
        # user nice system idle iowait irq softirq steal; leave out guest, which user already contains
        [int(tick) for tick in ticks.split()][:8]
        for core, ticks in re.findall(r"^cpu(\d+) (.*)$", text, re.MULTILINE)
        if int(core) in usable
    ]
    if not rows or any(len(row) < 8 for row in rows):  # noqa: PLR2004
        return None
    columns = [sum(column) / os.sysconf("SC_CLK_TCK") for column in zip(*rows, strict=True)]
    user, nice, system, _idle, _iowait, irq, softirq, steal = columns
    return CpuTicks(user + nice + system + irq + softirq, steal, sum(columns))


def diff(before: Snapshot, after: Snapshot, own: frozenset[int]) -> CpuUsage:
    """Compute the usage between two snapshots.

    Args:
        before: The first snapshot.
        after: The second snapshot.
        own: Ids of the harness's own processes.
    """
    seconds = after.at_s - before.at_s
    used = [
        BusyProcess(name, key[0], (cpu_s - before.processes.get(key, ("", 0.0))[1]) / seconds)
        for key, (name, cpu_s) in after.processes.items()
    ]
    others = sorted((process for process in used if process.pid not in own), key=lambda process: -process.cores)
    cores = sum(process.cores for process in others)
    stolen = None
    if before.cores and after.cores:
        own_cores = sum(process.cores for process in used if process.pid in own)
        # The per-core counters include what the list lacks: other containers' processes, and processes that exited.
        cores = max(cores, (after.cores.busy_s - before.cores.busy_s) / seconds - own_cores)
        stolen = _share(after.cores.stolen_s - before.cores.stolen_s, after.cores.total_s - before.cores.total_s)
    swapped = None
    if before.swapped_bytes is not None and after.swapped_bytes is not None:
        swapped = after.swapped_bytes - before.swapped_bytes
    throttled = None
    if before.throttled and after.throttled:
        throttled = _share(
            after.throttled.throttled - before.throttled.throttled, after.throttled.total - before.throttled.total
        )
    busy = tuple(process for process in others if process.cores >= _MIN_CORES)
    return CpuUsage(busy, cores, stolen, swapped, throttled)


def load_finding(
    usage: CpuUsage,
    num_usable: int,
    num_cores: int,
    describe: Callable[[int, str], ProcessFacts] = describe_process,
) -> Finding:
    """Judge the CPU usage of other processes, and name them with owner and command line.

    Args:
        usage: The measured usage.
        num_usable: Cores that a cell would use.
        num_cores: Cores that this process may run on; more than `num_usable` under a CPU quota.
        describe: Returns what is known of a process, given its id and name.
    """
    cores = usage.others_cores
    missing = num_usable - (num_cores - cores)  # number of the cell's cores that other processes keep busy
    verdict: Verdict = "good" if cores < _MIN_CORES else "warn" if missing < _BAD_CORES else "bad"
    name, why, value = "other load", "shares a cell's cores and caches", f"{cores:.2f} of {num_cores} cores"
    if verdict == "good":
        return Finding(name=name, value=value, verdict=verdict, why=why)
    named = [(describe(process.pid, process.name), process.cores) for process in usage.others[:_MAX_NAMED]]
    lines = [f"{used:.2f} {process.description}" for process, used in named]
    invisible = cores - sum(process.cores for process in usage.others)
    if invisible >= _MIN_CORES:
        lines.append(f"{invisible:.2f} processes that are not visible from here")
    fix = how_to_free(process for process, _ in named) if named else "none: the processes are not visible from here"
    return Finding(name=name, value="\n".join([value, *lines]), verdict=verdict, why=why, fix=fix)


def steal_finding(usage: CpuUsage) -> Finding:
    """Judge the time that the hypervisor gave to other virtual machines."""
    stolen, why = usage.stolen_fraction, "cores that the hypervisor lends to other machines meanwhile"
    if stolen is None:
        unknown = "none: this system does not count it"
        return Finding(name="steal time", value="not known", verdict="not known", why=why, fix=unknown)
    verdict: Verdict = "bad" if stolen > _BAD_STEAL else "warn" if stolen > _WARN_STEAL else "good"
    fix = None if verdict == "good" else "none: try another hour, or a machine with cores of its own"
    return Finding(name="steal time", value=f"{stolen:.1%} of the cores' time", verdict=verdict, why=why, fix=fix)


def quota_finding(quota: Quota | None, usage: CpuUsage, num_cores: int, num_threads: int) -> Finding:
    """Judge the CPU quota.

    Args:
        quota: The smallest CPU quota; None without a quota.
        usage: The measured usage.
        num_cores: Cores that this process may run on.
        num_threads: Threads that a cell would have.
    """
    name, why = "CPU quota", "when it is used up, every thread waits for the next period"
    if not sys.platform.startswith("linux"):
        return Finding(name=name, value="none", verdict="good", why=why)
    if quota is None or quota.cores >= num_cores:
        value = "none" if quota is None else f"{quota.cores:g} cores, no fewer than there are"
        return Finding(name=name, value=value, verdict="good", why=why)
    throttled = usage.throttled_fraction
    bad = num_threads > quota.cores or (throttled or 0) > _BAD_THROTTLED
    throttled_text = "" if throttled is None else f", used up in {throttled:.0%} of the periods"
    return Finding(
        name=name,
        value=f"{quota.cores:g} of {num_cores} cores, {num_threads} threads a cell{throttled_text}",
        verdict="bad" if bad else "warn",
        why=why,
        fix=f"echo {quota.unlimited} | sudo tee {quota.file} (of a container: start it with more CPUs)",
    )


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _take_snapshot(quota: Quota | None) -> Snapshot:
    processes = {}
    for process in psutil.process_iter(["pid", "name", "create_time", "cpu_times"]):
        facts = process.info
        if facts["cpu_times"] is not None and facts["create_time"] is not None:
            used_s = facts["cpu_times"].user + facts["cpu_times"].system
            processes[facts["pid"], facts["create_time"]] = (facts["name"] or "unnamed", used_s)
    swap = psutil.swap_memory()
    return Snapshot(
        time.perf_counter(), read_ticks(usable_cores()), processes, swap.sin + swap.sout, read_throttled_periods(quota)
    )


def usable_cores() -> frozenset[int]:
    """Return the indices of the cores that this process may run on."""
    return frozenset(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU seconds that a process used; 0 when it has ended."""
    with contextlib.suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


def _own_pids() -> frozenset[int]:
    me = psutil.Process()
    return frozenset({me.pid, *(child.pid for child in me.children(recursive=True))})
