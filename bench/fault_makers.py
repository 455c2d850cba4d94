"""Make the faults of bench_faults.py: disks, limits, failing system calls, a wrong clock, another owner."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fault_trials import NOBODY, Fault, NotTried, as_nobody

CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
static int (*real)(clockid_t, struct timespec *);
/* The wall clock alone is shifted by JUMP_S seconds, from two seconds after the first reading on. */
int clock_gettime(clockid_t id, struct timespec *now) {
  static time_t began;
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int status = real(id, now);
  if (id == CLOCK_REALTIME && !status) {
    if (!began) began = now->tv_sec;
    if (now->tv_sec > began + 2) now->tv_sec += atol(getenv("JUMP_S"));
  }
  return status;
}
"""


def hear_interrupts() -> None:
    """Undo what a shell does to commands in the background: they ignore SIGINT, and this bench's own commands with them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def limit(kind: int, value: int) -> None:
    resource.setrlimit(kind, (value, value))


def on_disk(where: str, options: str, prepare: Callable[[Path], None] = lambda _: None) -> Fault:
    """Put a trial's folder `where` on a tmpfs of its own."""

    @contextmanager
    def around(folder: Path) -> Iterator[None]:
        with mounted(folder / where, ["-t", "tmpfs", "-o", options, "tmpfs"]):
            prepare(folder / where)
            yield

    return Fault(around=around)


@contextmanager
def mounted(folder: Path, arguments: list[str]) -> Iterator[None]:
    done = subprocess.run(["mount", *arguments, folder], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotTried(f"nothing can be mounted: {done.stderr.strip().splitlines()[0]}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> None:
    """Write until the disk has no byte left."""
    with (folder / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


def fill_later(where: str, cell: str = "[1/", delay_s: float = 0.0) -> Callable[[subprocess.Popen[bytes], Path], None]:
    """Fill a disk as soon as the command says that a cell has begun."""

    def wait_and_fill(process: subprocess.Popen[bytes], folder: Path) -> None:
        while cell not in (folder / "stdout.log").read_text(errors="replace"):
            if process.poll() is not None:
                return
            time.sleep(0.05)
        time.sleep(delay_s)
        fill(folder / where)

    return wait_and_fill


def as_file(where: str) -> Fault:
    """Put an empty file where the command's folder should be."""

    @contextmanager
    def around(folder: Path) -> Iterator[None]:
        path = folder / where
        path.rmdir()
        path.touch()
        yield
        path.unlink()
        path.mkdir()

    return Fault(frozenset({2, 74}), around=around)


def quota() -> Fault:
    """Say why no real quota is exceeded."""
    raise NotTried("a quota needs a file system and a kernel that have them; EDQUOT is injected instead")


def control_group(controller: str, file: str, value: int) -> Fault:
    """Run the command in a control group (version 1) of its own."""
    group = Path("/sys/fs/cgroup") / controller / "harness-faults"

    @contextmanager
    def around(_: Path) -> Iterator[None]:
        try:
            group.mkdir(exist_ok=True)
            (group / file).write_text(str(value))
        except OSError as error:
            raise NotTried(f"no control group: {error.strerror}") from None
        try:
            yield
        finally:
            with suppress(OSError):
                group.rmdir()

    return Fault(
        frozenset({0, 2, 74, -9}), around=around, in_child=lambda: (group / "cgroup.procs").write_text(str(os.getpid()))
    )


def other_owner(where: str) -> Fault:
    """Let root own the folder that the command, as another user, writes to."""

    @contextmanager
    def around(folder: Path) -> Iterator[None]:
        os.chown(folder / where, 0, 0)
        yield
        os.chown(folder / where, NOBODY, NOBODY)

    return Fault(around=around, wrapper=as_nobody())


@contextmanager
def taken_root(folder: Path) -> Iterator[None]:
    """Let root own the folder of temporary files that is named after the other user."""
    taken = folder / "tmp" / f"harness-{NOBODY}"
    taken.mkdir()
    yield
    taken.rmdir()


def injected(command: str, call: str, error: str) -> Fault:
    """Let a system call fail: each one, or an interrupted one twice; writes only to the command's output."""
    if shutil.which("strace") is None:
        raise NotTried("strace is not installed")
    calls = {"rename": "?rename,?renameat,?renameat2"}.get(call, call)
    only = {"pack": "out/a.tar.gz.partial", "predict": "out/p.csv.partial"}.get(command)
    times = ":when=1..2" if error == "EINTR" else ""
    inject = ("-e", f"trace={calls}", "-e", f"inject={calls}:error={error}{times}")
    wrapper = (
        "strace",
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-o",
        "/dev/null",
        *inject,
        *(("-P", f"{{folder}}/{only}") if only else ()),
    )
    # Python repeats an interrupted write or fsync; a rename is never interrupted by Linux itself.
    return Fault(frozenset({0} if error == "EINTR" and call != "rename" else {74}), wrapper=wrapper)


def jump(folder: Path, jump_s: int) -> Fault:
    """Shift the wall clock of a command; the library that does it is compiled into `folder`."""
    library = folder / "clock.so"
    if not library.exists():
        source = library.with_suffix(".c")
        source.write_text(CLOCK)
        if shutil.which("cc") is None:
            raise NotTried("no C compiler for a library that shifts the clock")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return Fault(frozenset({0}), variables={"LD_PRELOAD": str(library), "JUMP_S": str(jump_s)})
