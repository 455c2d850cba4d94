"""What this machine's cores did for two seconds: who used them, and what was taken from them."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from harness.machine.cgroups import ROOT, Quota, ThrottledPeriods, cpu_quota, periods
from harness.schema.finding import Finding, Verdict

WATCH_S = 2.0
_LEAST_CORES = 0.1  # ticks are 10 ms: below this, what a process used in 2 s is rounding
_MANY_CORES = 0.5
_MOST_NAMED = 8
_WARN_STEAL, _BAD_STEAL = 0.01, 0.05
_BAD_THROTTLED = 0.05


class CpuTicks(NamedTuple):
    """CPU seconds of the usable cores since the machine started."""

    busy_s: float
    stolen_s: float
    total_s: float


class Snapshot(NamedTuple):
    """Counters of one moment; None: not to be had here."""

    at_s: float
    cores: CpuTicks | None
    processes: dict[tuple[int, float], tuple[str, float]]
    swapped_bytes: int | None
    throttled: ThrottledPeriods | None


class CpuUsage(NamedTuple):
    """What happened between two moments; cores are CPU seconds a second.

    Attributes:
        others: (name, pid, cores) of other processes that used a tenth of a core or more, the busiest first.
        others_cores: What all others used of the usable cores, those that can't be seen from here among them.
        stolen_fraction: Of the cores' time, what the hypervisor gave to others.
        swapped_bytes: What was read from and written to swap.
        throttled_fraction: Of the periods in which the own control group ran, those in which its quota ran out.
    """

    others: tuple[tuple[str, int, float], ...]
    others_cores: float
    stolen_fraction: float | None
    swapped_bytes: int | None
    throttled_fraction: float | None


def measure_cpu_usage(seconds: float = WATCH_S) -> CpuUsage:
    """Look twice, asleep in between."""
    quota = cpu_quota()
    before = _look(quota)
    time.sleep(seconds)
    return diff(before, _look(quota), _own_pids())


def read_ticks(usable: frozenset[int], root: Path = ROOT) -> CpuTicks | None:
    """Counters of some cores alone: what happens on others of a large host is not in this process's way."""
    try:
        text = (root / "proc/stat").read_text()
    except OSError:
        return None
    rows = [
        [int(tick) for tick in ticks.split()][:8]  # user nice system idle iowait irq softirq steal; guest is in user
        for core, ticks in re.findall(r"^cpu(\d+) (.*)$", text, re.MULTILINE)
        if int(core) in usable
    ]
    if not rows or any(len(row) < 8 for row in rows):  # noqa: PLR2004
        return None
    columns = [sum(column) / os.sysconf("SC_CLK_TCK") for column in zip(*rows, strict=True)]
    user, nice, system, _idle, _iowait, irq, softirq, steal = columns
    return CpuTicks(user + nice + system + irq + softirq, steal, sum(columns))


def diff(before: Snapshot, after: Snapshot, own: frozenset[int]) -> CpuUsage:
    """Judge two snapshots.

    Args:
        own: Processes of the harness itself.
    """
    seconds = after.at_s - before.at_s
    used = [
        (name, key[0], (cpu_s - before.processes.get(key, ("", 0.0))[1]) / seconds)
        for key, (name, cpu_s) in after.processes.items()
    ]
    others = sorted((row for row in used if row[1] not in own), key=lambda row: -row[2])
    cores = sum(row[2] for row in others)
    stolen = None
    if before.cores and after.cores:
        own_cores = sum(row[2] for row in used if row[1] in own)
        # Of another container nothing is listed, and of what ended meanwhile; the cores' own counters know both.
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
    return CpuUsage(tuple(row for row in others if row[2] >= _LEAST_CORES), cores, stolen, swapped, throttled)


def load_finding(seen: CpuUsage, num_usable: int, num_cores: int) -> Finding:
    """Other processes' use.

    Args:
        num_usable: Cores that a cell would use.
        num_cores: Cores that this process may run on; more than that under a quota.
    """
    cores = seen.others_cores
    missing = num_usable - (num_cores - cores)  # of a cell's cores, how much is not idle
    verdict: Verdict = "good" if cores < _LEAST_CORES else "warn" if missing < _MANY_CORES else "bad"
    named = [f"{name} (pid {pid}) {used:.2f}" for name, pid, used in seen.others[:_MOST_NAMED]]
    unseen = cores - sum(used for _, _, used in seen.others)
    if unseen >= _LEAST_CORES:
        named.append(f"not to be told apart {unseen:.2f}")
    fix = None
    if verdict != "good":
        pids = " ".join(str(pid) for _, pid, _ in seen.others[:_MOST_NAMED])
        fix = (
            f"kill {pids} (those you can spare), or wait until they are done"
            if pids
            else "none: nobody to be seen from here (see `top`)"
        )
    value = f"{cores:.2f} of {num_cores} cores" + (f": {', '.join(named)}" if named and verdict != "good" else "")
    return Finding(name="other load", value=value, verdict=verdict, why="shares a cell's cores and caches", fix=fix)


def steal_finding(seen: CpuUsage) -> Finding:
    """Time that the hypervisor gave to other virtual machines."""
    stolen, why = seen.stolen_fraction, "cores that the hypervisor lends to other machines meanwhile"
    if stolen is None:
        unknown = "none: this system does not count it"
        return Finding(name="steal time", value="not known", verdict="not known", why=why, fix=unknown)
    verdict: Verdict = "bad" if stolen > _BAD_STEAL else "warn" if stolen > _WARN_STEAL else "good"
    fix = None if verdict == "good" else "none: try another hour, or a machine with cores of its own"
    return Finding(name="steal time", value=f"{stolen:.1%} of the cores' time", verdict=verdict, why=why, fix=fix)


def quota_finding(quota: Quota | None, seen: CpuUsage, num_cores: int, num_threads: int) -> Finding:
    """The control group's quota.

    Args:
        num_cores: Cores that this process may run on.
        num_threads: Threads that a cell would have.
    """
    name, why = "CPU quota", "when it is used up, every thread waits for the next period"
    if not sys.platform.startswith("linux"):
        return Finding(name=name, value="none", verdict="good", why=why)
    if quota is None or quota.cores >= num_cores:
        value = "none" if quota is None else f"{quota.cores:g} cores, no fewer than there are"
        return Finding(name=name, value=value, verdict="good", why=why)
    throttled = seen.throttled_fraction
    bad = num_threads > quota.cores or (throttled or 0) > _BAD_THROTTLED
    seen_words = "" if throttled is None else f", used up in {throttled:.0%} of the periods"
    return Finding(
        name=name,
        value=f"{quota.cores:g} of {num_cores} cores, {num_threads} threads a cell{seen_words}",
        verdict="bad" if bad else "warn",
        why=why,
        fix=f"echo {quota.unlimited} | sudo tee {quota.file} (of a container: start it with more CPUs)",
    )


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _look(quota: Quota | None) -> Snapshot:
    processes = {}
    for process in psutil.process_iter(["pid", "name", "create_time", "cpu_times"]):
        facts = process.info
        if facts["cpu_times"] is not None and facts["create_time"] is not None:
            used_s = facts["cpu_times"].user + facts["cpu_times"].system
            processes[facts["pid"], facts["create_time"]] = (facts["name"] or "unnamed", used_s)
    swap = psutil.swap_memory()
    return Snapshot(time.perf_counter(), read_ticks(usable_cores()), processes, swap.sin + swap.sout, periods(quota))


def usable_cores() -> frozenset[int]:
    """The cores that this process may run on."""
    return frozenset(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def _own_pids() -> frozenset[int]:
    me = psutil.Process()
    return frozenset({me.pid, *(child.pid for child in me.children(recursive=True))})
