"""Findings about settings and free resources, read from a temporary folder."""

from __future__ import annotations

import errno
from collections import namedtuple

import pytest

from harness.machine import host_findings as checks
from harness.machine.cpu_usage import CpuUsage
from harness.machine.host_findings import (
    clock_findings,
    disk_findings,
    instructions_finding,
    judge_memory,
    judge_swap,
    memory_findings,
)
from harness.schema.finding import Finding, worst

MIB, GIB = 2**20, 2**30
CPUS = "sys/devices/system/cpu"
QUIET = CpuUsage((), 0.0, 0.0, 0, None)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def clock(root):
    return {finding.name: finding for finding in clock_findings(root)}


def pages(root):
    return next(finding for finding in memory_findings(QUIET, root) if finding.name == "huge pages")


def test_settings_that_a_virtual_machine_hides_are_not_known(tmp_path):
    found = [*clock(tmp_path).values(), pages(tmp_path)]
    assert [finding.verdict for finding in found] == ["not known"] * 4
    assert all(finding.fix.startswith("none: ") for finding in found)


def test_one_core_with_another_governor_is_a_warning(tmp_path):
    for core in range(12):
        write(tmp_path / CPUS / f"cpu{core}/cpufreq/scaling_governor", "performance")
    assert clock(tmp_path)["clock governor"].verdict == "good"
    write(tmp_path / CPUS / "cpu11/cpufreq/scaling_governor", "powersave")
    found = clock(tmp_path)["clock governor"]
    assert (found.verdict, found.value) == ("warn", "performance, powersave")
    assert found.fix == "sudo cpupower frequency-set -g performance"


@pytest.mark.parametrize(
    ("file", "text", "verdict", "fix"),
    [
        ("intel_pstate/no_turbo", "0", "warn", f"echo 1 | sudo tee /{CPUS}/intel_pstate/no_turbo "),
        ("intel_pstate/no_turbo", "1", "good", None),
        ("cpufreq/boost", "1", "warn", f"echo 0 | sudo tee /{CPUS}/cpufreq/boost "),
        ("cpufreq/boost", "0", "good", None),
    ],
)
def test_turbo_on_intel_and_other_cpus(tmp_path, file, text, verdict, fix):
    write(tmp_path / CPUS / file, text)
    found = clock(tmp_path)["turbo"]
    assert found.verdict == verdict
    assert found.fix is fix or found.fix.startswith(fix)


@pytest.mark.parametrize(
    ("active", "control", "verdict", "fix"),
    [
        ("0", "notsupported", "good", None),
        ("1", "on", "warn", f"echo off | sudo tee /{CPUS}/smt/control; or matrix.threads = half the CPUs"),
        (
            "1",
            "notimplemented",
            "warn",
            "none: this machine does not let it be set; or matrix.threads = half the CPUs",
        ),
    ],
)
def test_smt(tmp_path, active, control, verdict, fix):
    write(tmp_path / CPUS / "smt/active", active)
    write(tmp_path / CPUS / "smt/control", control)
    found = clock(tmp_path)["SMT"]
    assert (found.verdict, found.fix) == (verdict, fix)


@pytest.mark.parametrize(
    ("text", "value", "verdict"),
    [
        ("[always] madvise never", "always", "warn"),
        ("always [madvise] never", "madvise", "good"),
        ("always madvise [never]", "never", "good"),
    ],
)
def test_huge_pages(tmp_path, text, value, verdict):
    write(tmp_path / "sys/kernel/mm/transparent_hugepage/enabled", text)
    found = pages(tmp_path)
    assert (found.value, found.verdict) == (value, verdict)


@pytest.mark.parametrize(
    ("machine", "group", "verdict", "value"),
    [
        (8 * GIB, None, "good", "8.00 GiB of the machine"),
        (2 * GIB - 1, None, "warn", "2.00 GiB of the machine"),
        (8 * GIB, 1536 * MIB, "warn", "1.50 GiB of the control group's limit"),
        (8 * GIB, 512 * MIB, "bad", "0.50 GiB of the control group's limit"),
        (512 * MIB, 4 * GIB, "bad", "0.50 GiB of the machine"),
    ],
)
def test_the_smaller_of_machine_and_group_memory_is_judged(machine, group, verdict, value):
    found = judge_memory(machine, group)
    assert (found.verdict, found.value) == (verdict, value)


@pytest.mark.parametrize(
    ("used", "moved", "verdict", "value"),
    [
        (0, 0, "good", "0 MiB"),
        (64 * MIB, None, "good", "64 MiB"),
        (65 * MIB, 0, "warn", "65 MiB"),
        (0, 3 * MIB // 2, "bad", "0 MiB, 1.5 MiB moved meanwhile"),
    ],
)
def test_swap(used, moved, verdict, value):
    found = judge_swap(used, moved)
    assert (found.verdict, found.value) == (verdict, value)


@pytest.mark.parametrize(
    ("free", "verdict", "value"),
    [
        (255 * MIB, "bad", "255.0 MiB free"),
        (1536 * MIB, "warn", "1.5 GiB free"),
        (2 * GIB, "good", "2.0 GiB free"),
    ],
)
def test_a_disk_is_judged_by_the_free_space_for_results(tmp_path, monkeypatch, free, verdict, value):
    checked_folders = []
    usage = namedtuple("usage", "total used free")(100 * GIB, 0, free)
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda folder: checked_folders.append(folder) or usage)
    found = next(disk_findings(tmp_path / "a" / "b", tmp_path))
    assert (found.verdict, found.value) == (verdict, value)
    assert checked_folders == [tmp_path]  # the folders below it don't exist yet


def test_a_read_only_folder_and_a_disk_error(tmp_path, monkeypatch):
    monkeypatch.setattr(checks.os, "access", lambda *_: False)
    found, _ = disk_findings(tmp_path, tmp_path)
    assert (found.verdict, found.value) == ("bad", "can't be written")

    def fail(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(checks.shutil, "disk_usage", fail)
    found, _ = disk_findings(tmp_path, tmp_path)
    assert (found.verdict, found.fix) == ("not known", "none: Input/output error")


@pytest.mark.parametrize(
    ("flags", "verdict", "value"),
    [
        (("avx2", "avx512f"), "warn", "none among avx2 avx512f"),
        (("avx2", "avx512_bf16", "amx_bf16"), "good", "amx_bf16 avx512_bf16"),
        ((), "not known", "not known"),
    ],
)
def test_bf16_is_judged_by_cpu_flags(flags, verdict, value):
    found = instructions_finding(flags)
    assert (found.verdict, found.value) == (verdict, value)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], "good"),
        (["good", "not known"], "good"),
        (["good", "warn", "not known"], "warn"),
        (["warn", "bad", "good"], "bad"),
    ],
)
def test_the_worst_verdict_ignores_not_known(verdicts, expected):
    assert worst(Finding(name="x", value="", verdict=verdict, why="") for verdict in verdicts) == expected
