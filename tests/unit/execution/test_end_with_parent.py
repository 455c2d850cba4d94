"""A process that is busy loading torch ends with its parent at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

# The parent starts a child that never looks whether its parent is there, and waits.
PARENT = """
import subprocess, sys, time
child = "import harness.execution.end_with_parent; print('busy', flush=True)\\nwhile True: pass"
subprocess.Popen([sys.executable, "-c", child]).wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_busy_process_ends_when_its_parent_is_killed():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "busy\n"
    parent.kill()
    assert parent.stdout.read() == ""  # ends when the child has closed it, too; the child ran on
    parent.wait()
    parent.stdout.close()
