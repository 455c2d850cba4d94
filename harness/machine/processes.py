"""Whose a process is and what it runs, for a person at the terminal; records name no owner and no command line."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

import psutil

from harness.errors import shorten
from harness.machine.scrub import scrub

_MAX_COMMAND = 100


class ProcessFacts(NamedTuple):
    """A process.

    Attributes:
        owner: Name of its user; None if that is not known.
        is_mine: Whether its user is the user of this process.
        command: Its command line without secrets, at most 100 characters; its name if there is none.
    """

    pid: int
    owner: str | None
    is_mine: bool
    command: str

    @property
    def description(self) -> str:
        """The process in words: `python train.py (pid 12, of alice)`."""
        owner = f", of {self.owner}" if self.owner else ", owner not known"
        return f"{self.command} (pid {self.pid}{owner})"


def describe_process(pid: int, name: str = "a process") -> ProcessFacts:
    """Describe a process.

    Args:
        pid: Its id.
        name: Its name, for a process whose command line is not to be seen.
    """
    try:
        process = psutil.Process(pid)
        owner, is_mine = process.username(), process.uids().real == os.getuid()
        command = " ".join(process.cmdline()) or process.name()
    except (psutil.Error, OSError):
        return ProcessFacts(pid, None, is_mine=False, command=name)
    return ProcessFacts(pid, owner, is_mine, shorten(scrub(" ".join(command.split())), _MAX_COMMAND))


def how_to_free(processes: Iterable[ProcessFacts]) -> str:
    """Say how to get rid of processes: only the user's own may be killed, for others their owner is asked."""
    known = list(processes)
    mine = " ".join(str(process.pid) for process in known if process.is_mine)
    owners = ", ".join(dict.fromkeys(process.owner or "its owner" for process in known if not process.is_mine))
    ways = [f"kill {mine} (yours, if you can spare them)"] if mine else []
    ways += [f"ask {owners} to stop the others" if mine else f"ask {owners} to stop them"] if owners else []
    return "; ".join([*ways, "or wait until they are done"])
