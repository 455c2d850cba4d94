"""Make real faults, and count what they cost: cells lost, processes and files left, tracebacks, wrong exit statuses.

Run: .venv/bin/python bench/bench_faults.py [--moments 10] [--only kill] [--quick] [--out results/reference/faults.md]

Signals come at random moments of a command's undisturbed time. Disks are tmpfs, which only root can mount; limits are
`ulimit`'s and control groups'; single system calls fail by strace; the clock is set back for one process, by a library
that is compiled here. After each fault the same command runs again, undisturbed: it must succeed, and what lies in TMPDIR
or is unfinished then is "left". Processes are counted until 10 s after the command's end. A fault that can't be made here
counts as not tried. `--quick` makes one trial of each kind that trains nothing. Exit status 1 if anything was lost, left
or wrong.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import cycle
from pathlib import Path

from fault_trials import COMMANDS, NOBODY, Fault, Missed, NotTried, Place, Row, as_nobody, try_once

OUTPUT = {"run": "r", "train": "c", "predict": "out", "report": "out", "import": "out", "pack": "out"}
# The status of each signal: as shells give it for Ctrl-C, by the signal before the command has begun, and of a stopped training.
ANY_ENDING = frozenset({0, 74})
MAX_TRIES = 4  # of a trial whose command ended before its fault came
STATUS = {"SIGKILL": {-9}, "SIGTERM": {143, -15, 75}, "SIGHUP": {129, -1, 75}, "SIGINT": {130, -2}}
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


class Kinds:
    """All kinds of faults by name: each is a function that makes the trials of one row."""

    def __init__(self, place: Place, moments: int, rng: random.Random) -> None:
        self.place, self.moments, self.rng = place, moments, rng
        self.found: dict[str, Callable[[], Row]] = {}
        self.add_disks()
        self.add_limits()
        self.add_system_calls()
        self.add_clocks()
        self.add_other_user()
        self.add_signals()

    def add(self, what: str, command: str, fault: Callable[[], Fault], *, trials: int = 1, owner: int = 0) -> None:
        """Add a kind; `fault` is called before each trial, and raises NotTried if the fault can't be made."""

        def make() -> Row:
            row = Row(f"{what}: `{command}`")
            for _ in range(trials * MAX_TRIES):
                if row.trials < trials:
                    with suppress(Missed):
                        try_once(self.place, row, command, fault(), owner)
            return row

        self.found[f"{what} {command}"] = make

    def add_signals(self) -> None:
        for command in COMMANDS:
            names = cycle(STATUS)
            self.add("signals", command, lambda c=command, n=names: self.signal(c, next(n)), trials=self.moments)

    def signal(self, command: str, name: str) -> Fault:
        delay_s = self.rng.uniform(0.05, self.place.undisturbed_s(command))

        def send(process: subprocess.Popen[bytes], _: Path) -> None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=delay_s)
                raise Missed
            process.send_signal(getattr(signal, name))

        return Fault(frozenset(STATUS[name] | {0}), during=send, in_child=hear_interrupts)

    def add_disks(self) -> None:
        for command, where in OUTPUT.items():
            # A training goes on without checkpoints, and says so; a checkpoint that it promises is counted as lost.
            expected = ANY_ENDING if command == "train" else frozenset({74})
            self.add(
                "full disk", command, lambda w=where, e=expected: replace(on_disk(w, "size=64k", fill), expected=e)
            )
            self.add("read-only disk", command, lambda w=where: on_disk(w, "ro"))
            self.add("no inodes", command, lambda w=where: on_disk(w, "nr_inodes=1"))
            self.add("a file where a folder should be", command, lambda w=where: as_file(w))
        for command in ("run", "train", "predict", "report"):
            # Python then takes /tmp or the current folder, if one of them can be written.
            for what, disk in (
                ("full TMPDIR", on_disk("tmp", "size=64k", fill)),
                ("read-only TMPDIR", on_disk("tmp", "ro")),
            ):
                self.add(what, command, lambda d=disk: replace(d, expected=ANY_ENDING))
        keeping = self.place.write_study("keeping", training="keep_model = true")
        for what, command, make in (
            ("disk of results fills when a cell has begun", "run", lambda: replace(on_disk("r", "size=256k"), during=fill_later("r"))),
            ("TMPDIR fills when a cell has begun", "run", lambda: replace(on_disk("tmp", "size=16m"), during=fill_later("tmp", "[4/", 1.0), expected=ANY_ENDING)),
            ("no room for the kept model in the worker", "run", lambda: replace(on_disk("r", "size=2m"), study=keeping)),
            ("disk of checkpoints too small", "train", lambda: replace(on_disk("c", "size=1m"), expected=ANY_ENDING)),
            ("disk fills in the worker", "predict", lambda: on_disk("out", "size=8k")),
            ("quota exceeded", "report", quota),
        ):  # fmt: skip
            self.add(what, command, make)

    def add_limits(self) -> None:
        for command in COMMANDS:
            self.add("ulimit -f of 2 KiB", command, lambda: Fault(in_child=lambda: limit(resource.RLIMIT_FSIZE, 2048)))
        for command in ("run", "report"):
            self.add(
                "ulimit -n of 16 files",
                command,
                lambda: Fault(ANY_ENDING, in_child=lambda: limit(resource.RLIMIT_NOFILE, 16)),
            )
        capped = self.place.write_study("capped", limits="memory_limit_gib = 0.1")
        self.add("memory cap of 0.1 GiB for each cell", "run", lambda: Fault(frozenset({0}), study=capped))
        self.add(
            "control group of 400 MiB for all",
            "run",
            lambda: control_group("memory", "memory.limit_in_bytes", 400 * 2**20),
        )
        self.add("control group of 6 processes", "run", lambda: control_group("pids", "pids.max", 6))

    def add_system_calls(self) -> None:
        for error in ("ENOSPC", "EDQUOT", "EIO", "EINTR"):
            for command, call in (
                ("report", "fsync"), ("report", "rename"), ("pack", "write"), ("predict", "write"), ("import", "fsync"),
                ("run", "fsync"),
            ):  # fmt: skip
                self.add(f"{error} from {call}", command, lambda c=command, s=call, e=error: self.injected(c, s, e))

    def injected(self, command: str, call: str, error: str) -> Fault:
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

    def add_clocks(self) -> None:
        for what, jump_s in (("clock set back an hour", -3600), ("clock set ahead ten years", 315_000_000)):
            for command in ("run", "train", "predict"):
                self.add(what, command, lambda j=jump_s: self.jump(j))

    def jump(self, jump_s: int) -> Fault:
        library = self.place.root / "clock.so"
        if not library.exists():
            source = library.with_suffix(".c")
            source.write_text(CLOCK)
            if shutil.which("cc") is None:
                raise NotTried("no C compiler for a library that shifts the clock")
            subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        return Fault(frozenset({0}), variables={"LD_PRELOAD": str(library), "JUMP_S": str(jump_s)})

    def add_other_user(self) -> None:
        for command in COMMANDS:
            self.add(
                "another user's folder, not as root", command, lambda c=command: other_owner(OUTPUT[c]), owner=NOBODY
            )
        self.add(
            "another user's folder in TMPDIR, not as root",
            "run",
            lambda: Fault(around=taken_root, wrapper=as_nobody()),
            owner=NOBODY,
        )
        for command in ("run", "train", "predict"):
            names = cycle(STATUS)
            self.add(
                "signals, not as root",
                command,
                lambda c=command, n=names: replace(self.signal(c, next(n)), wrapper=as_nobody()),
                trials=max(1, self.moments // 3),
                owner=NOBODY,
            )
        self.add(
            "full disk, not as root",
            "run",
            lambda: replace(on_disk("r", "size=64k,mode=777", fill), wrapper=as_nobody()),
            owner=NOBODY,
        )


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


def line(row: Row) -> str:
    statuses = ", ".join(map(str, sorted(row.statuses)))
    said = row.said.replace("|", "\\|")
    return (
        f"| {row.what} | {row.trials} | {row.lost} | {row.processes} | {row.files} | {row.tracebacks} | {row.wrong} "
        f"| {row.not_resumed} | {max(row.seconds):.1f} | {statuses} | {said} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=10, help="trials of each kind of signals")
    parser.add_argument("--only", default="", help="kinds whose name has a match of this regular expression")
    parser.add_argument("--quick", action="store_true", help="one trial of each kind that trains nothing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    lines = [
        "| fault | trials | cells lost | processes left | files left | tracebacks | wrong statuses | not resumed "
        "| longest s to the prompt | status | said last |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    num_bad = num_not_tried = 0
    with tempfile.TemporaryDirectory(prefix="harness-faults-") as folder:
        kinds = Kinds(Place(Path(folder)), 1 if asked.quick else asked.moments, random.Random(asked.seed))
        for name, make in kinds.found.items():
            if not re.search(asked.only, name) or (
                asked.quick and name.rpartition(" ")[2] in ("run", "train", "predict")
            ):
                continue
            try:
                row = make()
            except NotTried as reason:
                num_not_tried += 1
                lines.append(f"| {name} | not tried: {reason} | | | | | | | | | |")
            else:
                num_bad += row.is_bad
                lines.append(line(row))
            print(lines[-1], flush=True)
    total = f"{len(lines) - 2} kinds: {num_bad} with something lost, left or wrong, {num_not_tried} not tried."
    print(total)
    if asked.out:
        asked.out.write_text("\n".join(["# Faults", "", *lines, "", total, ""]), encoding="utf-8")
    sys.exit(bool(num_bad))


if __name__ == "__main__":
    main()
