"""The share of the CPU that other processes took lately, from counters written by hand and on this machine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from harness.machine.cpu_usage import usable_cores
from harness.machine.other_load import OtherLoad

HZ = os.sysconf("SC_CLK_TCK")


def write_busy(root, busy_s):
    """Let each usable core have been busy this long."""
    (root / "proc").mkdir(exist_ok=True)
    ticks = round(busy_s * HZ)
    lines = [f"cpu{core} {ticks} 0 0 0 0 0 0 0 0 0" for core in sorted(usable_cores())]
    (root / "proc/stat").write_text("\n".join(["cpu 0", *lines, ""]))


def test_the_share_is_that_of_the_last_five_seconds(tmp_path):
    write_busy(tmp_path, 100.0)
    load = OtherLoad((), tmp_path)
    assert load.poll(0.0) is None
    write_busy(tmp_path, 100.5)
    assert load.poll(1.0) is None  # too short a time
    write_busy(tmp_path, 101.0)
    assert load.poll(2.0) == pytest.approx(0.5, abs=0.2)  # this process itself works a little
    assert load.poll(2.1) == pytest.approx(0.5, abs=0.2)  # not read again so soon
    for now in (4.0, 6.0, 8.0):
        write_busy(tmp_path, 101.0)
        share = load.poll(now)
    assert share == pytest.approx(0.0, abs=0.1)


def test_a_process_of_the_cell_is_no_other_load_even_after_its_end(tmp_path):
    code = "import time\nuntil = time.process_time() + 0.5\nwhile time.process_time() < until: pass\ninput()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as child:
        write_busy(tmp_path, 100.0)
        load = OtherLoad([child.pid], tmp_path)
        load.poll(0.0)
        child.communicate(b"\n")
        write_busy(tmp_path, 100.0 + 2.0)
        before = load.poll(2.0)
    write_busy(tmp_path, 100.0 + 4.0)
    assert before is not None and load.poll(4.0) >= before - 0.3


def test_the_share_is_not_known_without_counters(tmp_path):
    assert OtherLoad((), tmp_path).poll(0.0) is None
