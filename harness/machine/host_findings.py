"""Check the machine's settings and free resources: CPU clock, memory, disk, instruction set."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

from harness.machine.cgroups import ROOT, available_memory_bytes
from harness.machine.cpu_usage import CpuUsage
from harness.schema.finding import Finding, Verdict
from harness.schema.host_record import BF16_FLAGS

_GIB, _MIB = 2**30, 2**20
# Thresholds around the peak memory of a cell with the packaged model: 0.7 to 1.6 GiB (table in the README).
_BAD_MEMORY_BYTES, _WARN_MEMORY_BYTES = _GIB, 2 * _GIB
# Thresholds from typical sizes: a record takes 0.1 MiB, token caches and torch.compile's files hundreds of MiB.
_BAD_DISK_BYTES, _WARN_DISK_BYTES = 256 * _MIB, 2 * _GIB
_WARN_SWAP_BYTES = 64 * _MIB
_CPUS = "sys/devices/system/cpu"


def clock_findings(root: Path = ROOT) -> Iterator[Finding]:
    """Check the settings that let the CPU clock change while a cell runs.

    Args:
        root: Folder that contains sys/; tests use their own.
    """
    yield _governor(root)
    yield _turbo(root)
    yield _smt(root)


def memory_findings(usage: CpuUsage, root: Path = ROOT) -> Iterator[Finding]:
    """Check free memory, swap and huge pages.

    Args:
        usage: The measured usage, which contains the swapped bytes.
        root: Folder that contains proc/ and sys/; tests use their own.
    """
    yield judge_memory(psutil.virtual_memory().available, available_memory_bytes(root))
    yield judge_swap(psutil.swap_memory().used, usage.swapped_bytes)
    yield _huge_pages(root)


def judge_memory(machine_bytes: int, group_bytes: int | None) -> Finding:
    """Judge the available memory.

    Args:
        machine_bytes: Available bytes of the machine.
        group_bytes: Bytes that the control group can still allocate; None without a limit.
    """
    free = machine_bytes if group_bytes is None else min(machine_bytes, group_bytes)
    where = "of the control group's limit" if free == group_bytes else "of the machine"
    verdict: Verdict = "bad" if free < _BAD_MEMORY_BYTES else "warn" if free < _WARN_MEMORY_BYTES else "good"
    fix = {
        "bad": "ps -u $(id -u) -o pid,rss,args --sort=-rss | head, and stop what is large; `harness fit` finds what fits",
        "warn": "harness fit STUDY (finds the largest batch for it)",
    }.get(verdict)
    why = "a cell of the packaged model takes 0.7 to 1.6 GiB"
    return Finding(name="free memory", value=f"{free / _GIB:.2f} GiB {where}", verdict=verdict, why=why, fix=fix)


def judge_swap(used_bytes: int, swapped_bytes: int | None) -> Finding:
    """Judge the use of swap.

    Args:
        used_bytes: Bytes of swap in use.
        swapped_bytes: Bytes read from and written to swap during the measurement; None when unknown.
    """
    moved = bool(swapped_bytes)
    verdict: Verdict = "bad" if moved else "warn" if used_bytes > _WARN_SWAP_BYTES else "good"
    moved_text = f", {(swapped_bytes or 0) / _MIB:.1f} MiB moved meanwhile" if moved else ""
    return Finding(
        name="swap in use",
        value=f"{used_bytes / _MIB:.0f} MiB{moved_text}",
        verdict=verdict,
        why="a page that is fetched from disk stops a step for milliseconds",
        fix=None if verdict == "good" else "sudo swapoff -a && sudo swapon -a (needs as much free memory)",
    )


def disk_findings(results: Path, temporary: Path) -> Iterator[Finding]:
    """Check the free space for records and for temporary files."""
    yield _disk(
        "disk of results", results, "a run whose record can't be written is lost", "give another folder: --results DIR"
    )
    yield _disk("temporary disk", temporary, "tokens and compiled code go there", "export TMPDIR=DIR with room")


def instructions_finding(flags: tuple[str, ...]) -> Finding:
    """Check for bf16 instructions.

    Args:
        flags: The CPU's flags, as in `Cpu.flags`; empty when the system does not report them.
    """
    name, why = (
        "bf16 instructions",
        "without them a step in bf16 takes many times one in fp32, and its cells are `unsupported`",
    )
    if not flags:
        fix = "none: this system does not tell them"
        return Finding(name=name, value="not known", verdict="not known", why=why, fix=fix)
    bf16_flags = sorted(BF16_FLAGS & set(flags))
    if bf16_flags:
        return Finding(name=name, value=" ".join(bf16_flags), verdict="good", why=why)
    fix = "none: it needs a CPU with avx512_bf16, amx_bf16 or Arm's bf16; measure fp32 here"
    return Finding(name=name, value=f"none among {' '.join(flags)}", verdict="warn", why=why, fix=fix)


def _governor(root: Path) -> Finding:
    name, why = "clock governor", "any but `performance` lowers the clock between steps and is late to raise it"
    governors = {_read(file) for file in (root / _CPUS).glob("cpu[0-9]*/cpufreq/scaling_governor")} - {""}
    if not governors:
        unknown = "none: the hypervisor or the firmware sets the clock"
        return Finding(name=name, value="not known", verdict="not known", why=why, fix=unknown)
    good = governors == {"performance"}
    fix = None if good else "sudo cpupower frequency-set -g performance"
    return Finding(name=name, value=", ".join(sorted(governors)), verdict="good" if good else "warn", why=why, fix=fix)


def _turbo(root: Path) -> Finding:
    name, why = "turbo", "the clock falls as the machine warms up, so that later cells look slower"
    for file, on in (("intel_pstate/no_turbo", "0"), ("cpufreq/boost", "1")):
        if value := _read(root / _CPUS / file):
            off = "1" if on == "0" else "0"
            fix = f"echo {off} | sudo tee /{_CPUS}/{file} (to compare code; leave it on to cost a machine as it is rented)"
            if value == on:
                return Finding(name=name, value="on", verdict="warn", why=why, fix=fix)
            return Finding(name=name, value="off", verdict="good", why=why)
    fix = "none: the hypervisor or the firmware sets it"
    return Finding(name=name, value="not known", verdict="not known", why=why, fix=fix)


def _smt(root: Path) -> Finding:
    name, why = "SMT", "two threads that share a core slow each other by how the kernel happens to place them"
    active = _read(root / _CPUS / "smt/active")
    if active not in ("0", "1"):
        fix = "none: this system does not tell"
        return Finding(name=name, value="not known", verdict="not known", why=why, fix=fix)
    if active == "0":
        return Finding(name=name, value="off", verdict="good", why=why)
    control = _read(root / _CPUS / "smt/control")
    fix = (
        f"echo off | sudo tee /{_CPUS}/smt/control" if control == "on" else "none: this machine does not let it be set"
    )
    return Finding(name=name, value="on", verdict="warn", why=why, fix=f"{fix}; or matrix.threads = half the CPUs")


def _huge_pages(root: Path) -> Finding:
    name, why = "huge pages", "with `always`, untouched parts of 2 MiB pages count in peaks, and how many varies"
    file = "sys/kernel/mm/transparent_hugepage/enabled"
    chosen = re.search(r"\[(\w+)\]", _read(root / file))
    if chosen is None:
        fix = "none: this system does not tell"
        return Finding(name=name, value="not known", verdict="not known", why=why, fix=fix)
    if chosen[1] != "always":
        return Finding(name=name, value=chosen[1], verdict="good", why=why)
    return Finding(name=name, value="always", verdict="warn", why=why, fix=f"echo madvise | sudo tee /{file}")


def _disk(name: str, folder: Path, why: str, elsewhere: str) -> Finding:
    # The folder may not exist before the first run: check its nearest existing ancestor then.
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return Finding(name=name, value="not known", verdict="not known", why=why, fix=f"none: {error.strerror}")
    if not os.access(existing, os.W_OK):
        return Finding(
            name=name, value="can't be written", verdict="bad", why=why, fix=f"chmod u+w {existing}, or {elsewhere}"
        )
    verdict: Verdict = "bad" if free < _BAD_DISK_BYTES else "warn" if free < _WARN_DISK_BYTES else "good"
    size = f"{free / _GIB:.1f} GiB" if free >= _GIB else f"{free / _MIB:.1f} MiB"
    fix = None if verdict == "good" else f"du -xh {existing} | sort -h | tail, and remove what is large; or {elsewhere}"
    return Finding(name=name, value=f"{size} free", verdict=verdict, why=why, fix=fix)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
