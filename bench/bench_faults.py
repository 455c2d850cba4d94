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
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import cycle
from pathlib import Path

from fault_makers import (
    as_file,
    control_group,
    fill,
    fill_later,
    hear_interrupts,
    injected,
    jump,
    limit,
    on_disk,
    other_owner,
    quota,
    taken_root,
)
from fault_trials import COMMANDS, NOBODY, Fault, Missed, NotTried, Place, Row, as_nobody, try_once

OUTPUT = {"run": "r", "train": "c", "predict": "out", "report": "out", "import": "out", "pack": "out"}
ANY_ENDING = frozenset({0, 74})
MAX_TRIES = 4  # of a trial whose command ended before its fault came
# The status of each signal: as shells give it for Ctrl-C, by the signal before the command has begun, and of a stopped training.
STATUS = {"SIGKILL": {-9}, "SIGTERM": {143, -15, 75}, "SIGHUP": {129, -1, 75}, "SIGINT": {130, -2}}


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
            began = time.perf_counter()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=delay_s)
                self.place.note_undisturbed(command, time.perf_counter() - began)
                raise Missed
            process.send_signal(getattr(signal, name))

        return Fault(frozenset(STATUS[name] | {0}), during=send, in_child=hear_interrupts)

    def add_disks(self) -> None:
        for command, where in OUTPUT.items():
            # A training continues without checkpoints, and says so; a checkpoint that it promises is counted as lost.
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
                self.add(f"{error} from {call}", command, lambda c=command, s=call, e=error: injected(c, s, e))

    def add_clocks(self) -> None:
        for what, jump_s in (("clock set back an hour", -3600), ("clock set ahead ten years", 315_000_000)):
            for command in ("run", "train", "predict"):
                self.add(what, command, lambda j=jump_s: jump(self.place.root, j))

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
