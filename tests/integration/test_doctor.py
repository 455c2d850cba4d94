"""Real disturbances of the machine, and the findings of `harness doctor`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from harness.errors import Unavailable
from harness.execution.memory_cap import MemoryCap
from harness.machine.calibration import Calibration, CalibrationPlan, calibrate
from harness.machine.describe import package_version
from harness.worker.diagnostics.microbenchmarks import jitter

MIB, GIB = 2**20, 2**30
DOCTOR = [sys.executable, "-m", "harness", "doctor", "--quick", "--json"]
ENTER = 'for group in $GROUPS_TO_ENTER; do echo $$ > "$group/cgroup.procs" || exit 9; done; exec "$@"'
HOLD = "held = b'x' * int(__import__('sys').argv[1]); print('held', flush=True); input()"


def diagnose(*options, group=None, **environment):
    """Run `harness doctor` in a process and return its findings by name."""
    command = [*inside(group), *DOCTOR, *map(str, options)] if group else [*DOCTOR, *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout)
    assert done.returncode == (report["verdict"] == "bad")
    return {finding["name"]: finding for finding in report["findings"]}


def inside(group):
    return ["env", f"GROUPS_TO_ENTER={group}", "/bin/sh", "-c", ENTER, "sh"]


@contextlib.contextmanager
def running(*command):
    """Run a process until the block ends."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def cpu_group():
    """Create a control group with a CPU quota and yield the quota's file."""
    mount = Path("/sys/fs/cgroup")
    new = (mount / "cgroup.controllers").exists()
    path = (mount if new else mount / "cpu") / f"doctor-test-{os.getpid()}"
    file = path / ("cpu.max" if new else "cpu.cfs_quota_us")
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error.strerror}")
    try:
        if not os.access(file, os.W_OK):
            pytest.skip("a control group here has no CPU quota")
        yield file
    finally:
        path.rmdir()


@pytest.fixture
def memory_group(tmp_path):
    """Create a memory control group of 1.5 GiB and yield its path."""
    cap = MemoryCap(1536 * MIB, 1, tmp_path)
    if cap.group is None:
        pytest.skip("no memory control group can be made here (root, or a delegated version 2 group, is needed)")
    yield cap.group.path
    cap.close()


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of 8 MiB and yield its folder."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"nothing may be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.alone
def test_a_busy_loop_in_the_background_is_listed_until_it_ends():
    with running(sys.executable, "-c", "print(1, flush=True)\nwhile True: pass") as loop:
        loop.stdout.readline()
        seen = diagnose()["other load"]
    assert seen["verdict"] == "bad"
    used = re.search(rf"^(\d\.\d\d) .*while True: pass \(pid {loop.pid}, of ", seen["value"], re.MULTILINE)
    assert used, seen
    assert 0.2 < float(used[1]) < 1.1  # of one core, shared with whatever else ran
    assert re.search(rf"^kill [\d ]*\b{loop.pid}\b", seen["mend"])
    assert f"pid {loop.pid}," not in diagnose()["other load"]["value"]


@pytest.mark.parametrize(("cores", "verdict"), [(1.0, "warn"), (0.5, "bad")])
def test_a_cpu_quota_is_reported_and_its_command_removes_it(cpu_group, cores, verdict):
    num_cores = len(os.sched_getaffinity(0))
    if num_cores == 1:
        pytest.skip("a quota of one core is none on one core")
    quota = int(cores * 100_000)
    cpu_group.write_text(f"{quota} 100000" if cpu_group.name == "cpu.max" else f"{quota}")
    assert diagnose()["CPU quota"]["verdict"] == "good"  # the doctor runs outside the group
    seen = diagnose(group=cpu_group.parent)["CPU quota"]
    assert seen["verdict"] == verdict
    assert seen["value"].startswith(f"{cores:g} of {num_cores} cores, 1 threads a cell")
    command = seen["mend"].partition(" (")[0].replace("sudo ", "")
    subprocess.run(["/bin/sh", "-c", command], check=True, capture_output=True)
    assert diagnose(group=cpu_group.parent)["CPU quota"]["verdict"] == "good"


def test_nearly_full_memory_is_reported(memory_group):
    def free_gib(finding):
        found = re.fullmatch(r"(\d+\.\d\d) GiB of the control group's limit", finding["value"])
        assert found, finding
        return float(found[1])

    before = diagnose(group=memory_group)["free memory"]
    held_gib = 700 * MIB / GIB
    with running(*inside(memory_group), sys.executable, "-c", HOLD, str(700 * MIB)) as holder:
        assert holder.stdout.readline() == "held\n"
        during = diagnose(group=memory_group)["free memory"]
    assert (before["verdict"], during["verdict"]) == ("warn", "bad")
    # The interpreter that holds it takes some MiB too.
    assert free_gib(before) - free_gib(during) == pytest.approx(held_gib + 0.01, abs=0.03)
    assert "harness fit" in during["mend"]


def test_a_nearly_full_disk_is_reported(small_disk):
    (small_disk / "filler").write_bytes(b"x" * 6 * MIB)
    seen = diagnose("--results", small_disk / "not yet" / "results", TMPDIR=str(small_disk))
    for name in ("disk of results", "temporary disk"):
        assert (seen[name]["verdict"], seen[name]["value"]) == ("bad", "2.0 MiB free")
        assert str(small_disk) in seen[name]["mend"]
    elsewhere = diagnose("--results", small_disk.parent)["disk of results"]
    assert elsewhere["value"] != "2.0 MiB free"


def test_a_calibration_measures_each_precision():
    found = calibrate(CalibrationPlan(seconds=2.0, num_threads=1, precisions={"cpu": ("fp32", "bf16")}))
    assert isinstance(found, Calibration), found
    (cpu,) = found.devices
    assert found.torch == package_version("torch")
    assert [row.precision for row in cpu.products] == ["fp32", "bf16"]
    assert all(row.size in (512, 1024, 2048, 4096) and row.gflop_per_s > 0.5 for row in cpu.products)
    assert (cpu.device, cpu.num_threads) == ("cpu", 1)
    assert 0.1 < cpu.copy_gb_per_s < 10_000
    assert cpu.step_s_p95_over_median >= 1
    assert cpu.num_steps >= 20


def test_a_failed_calibration_has_a_reason_and_leaves_no_files():
    before = set(Path(tempfile.gettempdir()).glob("harness-calibration-*"))
    found = calibrate(CalibrationPlan(seconds=1.0, num_threads=0, precisions={"cpu": ("fp32",)}))
    reason = "its process ended with status 1 (RuntimeError: set_num_threads expects a positive integer)"
    assert found == Unavailable(reason)
    assert set(Path(tempfile.gettempdir()).glob("harness-calibration-*")) == before


def test_jitter_is_the_95th_percentile_over_the_median():
    assert jitter([1.0] * 99 + [5.0]) == (1.0, 1.0, 100)
    median, ratio, count = jitter([float(second) for second in range(1, 102)])
    assert (median, count) == (51.0, 101)
    assert ratio == pytest.approx(96 / 51)
