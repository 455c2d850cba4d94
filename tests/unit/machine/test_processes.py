"""What doctor says of a process: its owner and its command line without secrets."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil

from harness.machine.processes import ProcessFacts, describe_process, how_to_free

TOKEN = "hf_" + "aB3" * 12


def test_a_process_is_described_by_owner_and_command_line_without_secrets():
    code = "import sys; sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code, f"--token={TOKEN}"], stdin=subprocess.PIPE) as child:
        found = describe_process(child.pid)
        child.stdin.close()
    assert (found.pid, found.owner, found.is_mine) == (child.pid, psutil.Process().username(), True)
    assert "sys.stdin.read()" in found.command
    assert TOKEN not in found.command
    assert len(found.command) <= 100


def test_a_process_that_is_gone_keeps_its_name():
    found = describe_process(2**22 + 1, "loop")
    assert found.description == f"loop (pid {2**22 + 1}, owner not known)"
    assert not found.is_mine


def test_only_own_processes_are_proposed_to_be_killed():
    mine = ProcessFacts(os.getpid(), "me", is_mine=True, command="x")
    theirs = ProcessFacts(7, "alice", is_mine=False, command="y")
    assert how_to_free([mine]) == f"kill {os.getpid()} (yours, if you can spare them); or wait until they are done"
    assert how_to_free([theirs, theirs]) == "ask alice to stop them; or wait until they are done"
