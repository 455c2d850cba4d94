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
# A limit counts as reached at this fraction: the kernel charges memory in batches of pages.
_REACHED_FRACTION = 0.98
_KILL_TIMEOUT_S = 3.0


class MemoryCap:
    """A memory cap for one cell: a control group of its own, or a limit on each process if none can be made.

    The cell's processes are spawned inside it, so that every page they touch counts: pages that a process inherits
    from the warm forkserver are charged to the forkserver's group.

    Attributes:
        group: The control group; None if none could be made.
    """

    def __init__(
        self,
        limit_bytes: int,
        num_ranks: int,
        folder: Path,
        make_group: Callable[[int, str], MemoryCgroup | None] = make_cgroup,
    ) -> None:
        """Make the group.

        Args:
            limit_bytes: Limit for all ranks together.
            num_ranks: Ranks that share the group; without a group each gets an equal share of the limit.
            folder: For the scripts through which processes enter the cap.
            make_group: Makes a group with a limit and a name.
        """
        self._limit_bytes, self._num_ranks, self._folder = limit_bytes, num_ranks, folder
        self._token = f"{time.monotonic_ns():x}"
        self.group = make_group(limit_bytes, self._token)

    @contextlib.contextmanager
    def spawn_inside(self, log: Path) -> Iterator[None]:
        """Make multiprocessing's spawn start its next process inside the cap, with its output written to `log`.

        Raises:
            UserError: The temporary folder is on a file system without permission to execute.
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
        # Started by the next process otherwise, and then it would be inside the cap and outlive the cell.
        resource_tracker.ensure_running()
        before = spawn.get_executable()
        multiprocessing.set_executable(str(script))
        try:
            yield
        finally:
            multiprocessing.set_executable(before)

    @property
    def exact(self) -> bool:
        """True if the cap counts exactly the pages that a smaller machine would have to hold."""
        return self.group is not None

    @property
    def description(self) -> str:
        """The cap as a phrase for a record's reason."""
        size = f"{self._limit_bytes / GIB:g} GiB"
        if self.group is not None:
            return f"the control group's limit of {size}"
        shared = f", {self._num_ranks} ranks with an equal share each" if self._num_ranks > 1 else ""
        return f"an approximate cap of {size}: RLIMIT_DATA{shared}, as no control group could be made"

    def facts(self) -> MemoryCapFacts:
        """Return the cap and the kernel's counts for the record."""
        group = self.group
        return MemoryCapFacts(
            limit_bytes=self._limit_bytes,
            method=_METHODS[group.version] if group else "rlimit_data",
            exact=self.exact,
            peak_bytes=group.peak_bytes if group else None,
            num_oom_kills=group.num_oom_kills if group else None,
        )

    def oom_reason(self) -> str | None:
        """Return why the kernel killed a process inside, for the record's reason; None if it killed none."""
        if self.group is None or not self.group.num_oom_kills:
            return None
        peak = self.group.peak_bytes
        if peak is not None and peak < _REACHED_FRACTION * self._limit_bytes:
            return f"memory ran out around it, below {self.description}"
        return f"{self.description} was reached"

    def close(self) -> None:
        """Kill what is left inside and remove the group."""
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
