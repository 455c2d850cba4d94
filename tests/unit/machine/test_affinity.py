"""CPUs that threads may use."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from harness.machine.affinity import allowed_cpus

CODE = """
import os, threading
from harness.machine.affinity import allowed_cpus, computing_cpus, set_allowed_cpus
everything = allowed_cpus()
release = threading.Event()
threading.Thread(target=release.wait, daemon=True).start()  # may use all CPUs, and doesn't count
first = frozenset({min(everything)})
set_allowed_cpus(first)
print(allowed_cpus() == first, computing_cpus() == tuple(first))
set_allowed_cpus(everything)
print(computing_cpus() == tuple(sorted(everything)))
set_allowed_cpus(None)
set_allowed_cpus(frozenset({10**4}))  # no such CPU: nothing changes
print(allowed_cpus() == everything)
release.set()
"""


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity masks")
def test_the_cpus_of_computing_threads():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 4
    assert allowed_cpus() == os.sched_getaffinity(0)
