"""A memory cap on a cell's processes: a control group, or a limit on each process (Linux)."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker, spawn
from pathlib import Path

import psutil

from harness.errors import UserError
from harness.execution.memory_cgroup import MemoryCgroup, make_cgroup, read_file, remove_left_over
from harness.schema.host_record import CapMethod, MemoryCapFacts

GIB = 2**30
_METHODS: dict[int, CapMethod] = {1: "control_group_v1", 2: "control_group_v2"}
# A peak of this fraction of the limit counts as the limit, because the kernel charges memory in batches of pages.
_REACHED_FRACTION = 0.98
_KILL_TIMEOUT_S = 3.0


class MemoryCap:
    """A memory cap for one cell: a control group, or a limit on each process if no control group can be created.

    The cell's processes are spawned inside the cap, not forked, so that all their pages count: pages that a process
    inherits from the forkserver are charged to the forkserver's group.

    Attributes:
        group: The cell's control group; None if it could not be created.
    """

    def __init__(
        self,
        limit_bytes: int,
        num_ranks: int,
        folder: Path,
        make_group: Callable[[int, str], MemoryCgroup | None] = make_cgroup,
    ) -> None:
        """Create the control group.

        Args:
            limit_bytes: Limit for all ranks together.
            num_ranks: Number of ranks that share the group; without a group, each gets an equal share of the limit.
            folder: Folder for the scripts by which processes enter the cap.
            make_group: Creates a control group from its limit in bytes and a part of its name.
        """
        self._limit_bytes, self._num_ranks, self._folder = limit_bytes, num_ranks, folder
        self._token = f"{time.monotonic_ns():x}"
        self.group = make_group(limit_bytes, self._token)

    @contextlib.contextmanager
    def spawn_inside(self, log: Path) -> Iterator[None]:
        """Make multiprocessing spawn its next process inside the cap, with the process's output in `log`.

        Raises:
            UserError: The temporary folder is on a file system that does not allow programs to run.
        """
        script = self._folder / f"{self._token}-{log.stem}.sh"
        enter = (
            f'echo $$ > "{self.group.path}/cgroup.procs"'
            if self.group
            else f"ulimit -d {self._limit_bytes // self._num_ranks // 1024}"
        )
        python = shlex.quote(sys.executable)
        script.write_text(f'#!/bin/sh\nexec >> {shlex.quote(str(log))} 2>&1\n{enter} && exec {python} "$@"\n')
        script.chmod(0o700)
        if not os.access(script, os.X_OK):
            raise UserError(
                f"limits.memory_limit_gib: no program may start from {self._folder.parent} (mounted noexec); "
                "set TMPDIR to a folder where one may"
            )
        # Start multiprocessing's resource tracker now: otherwise the next process would start it inside the cap, where
        # it would outlive the cell.
        resource_tracker.ensure_running()
        before = spawn.get_executable()
        multiprocessing.set_executable(str(script))
        try:
            yield
        finally:
            multiprocessing.set_executable(before)

    @property
    def exact(self) -> bool:
        """True if the cap counts exactly the pages that a machine with less memory would have to hold."""
        return self.group is not None

    @property
    def description(self) -> str:
        """A phrase that describes the cap, for a record's reason."""
        size = f"{self._limit_bytes / GIB:g} GiB"
        if self.group is not None:
            return f"the control group's limit of {size}"
        shared = f", {self._num_ranks} ranks with an equal share each" if self._num_ranks > 1 else ""
        return f"an approximate cap of {size}: RLIMIT_DATA{shared}, as no control group could be made"

    def facts(self) -> MemoryCapFacts:
        """Return the cap, and the kernel's counters of its control group, for the record."""
        group = self.group
        return MemoryCapFacts(
            limit_bytes=self._limit_bytes,
            method=_METHODS[group.version] if group else "rlimit_data",
            exact=self.exact,
            peak_bytes=group.peak_bytes if group else None,
            num_oom_kills=group.num_oom_kills if group else None,
        )

    def oom_reason(self) -> str | None:
        """Return why the kernel killed a process inside the cap, for the record's reason; None if it killed none."""
        if self.group is None or not self.group.num_oom_kills:
            return None
        peak = self.group.peak_bytes
        if peak is not None and peak < _REACHED_FRACTION * self._limit_bytes:
            return f"memory ran out around it, below {self.description}"
        return f"{self.description} was reached"

    def close(self) -> None:
        """Kill the processes that are left in the control group, and remove the group."""
        if self.group is None:
            return
        processes = []
        for pid in read_file(self.group.path / "cgroup.procs").split():
            with contextlib.suppress(psutil.NoSuchProcess):
                processes.append(psutil.Process(int(pid)))
                processes[-1].kill()
        psutil.wait_procs(processes, timeout=_KILL_TIMEOUT_S)
        remove_left_over(self.group.path.parent)
        self.group = None
