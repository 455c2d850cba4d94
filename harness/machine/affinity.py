"""The CPUs on which a process's threads may run."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path


def allowed_cpus() -> frozenset[int] | None:
    """Return the CPUs that the calling thread may use; None where the system does not tell."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def set_allowed_cpus(cpus: frozenset[int] | None) -> None:
    """Let the calling thread, and threads that it starts later, use these CPUs; no-op if they are not known."""
    if cpus and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # a control group may have taken the CPUs meanwhile
            os.sched_setaffinity(0, cpus)


def computing_cpus() -> tuple[int, ...]:
    """Return the CPUs that the main thread and all threads of libraries may use; empty where the system does not tell.

    Other threads of Python are left out: they only watch and send messages.
    """
    tasks = Path("/proc/self/task")
    if not hasattr(os, "sched_getaffinity") or not tasks.exists():
        return ()
    main = threading.main_thread()
    watching = {thread.native_id for thread in threading.enumerate() if thread is not main}
    cpus: set[int] = set()
    for thread_id in (int(task.name) for task in tasks.iterdir()):
        if thread_id not in watching:
            with contextlib.suppress(OSError):  # the thread may have ended meanwhile
                cpus |= os.sched_getaffinity(thread_id)
    return tuple(sorted(cpus))
