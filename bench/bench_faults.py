"""Make real faults, and count what they cost: cells lost, processes and files left, tracebacks.

Run: .venv/bin/python bench/bench_faults.py [--moments 10] [--only kill] [--quick] [--out results/reference/faults.md]
Signals come at random moments of a command's undisturbed time. Disks are tmpfs that only root can mount; limits are
`ulimit`'s; single system calls fail by strace. A fault that can't be made here counts as not tried. The commands work on
a tiny BERT; their temporary files lie in a folder of each trial. "Left" is counted after the next command, processes 10 s
after the fault. `--quick` makes one trial of each kind that doesn't train. Exit status 1 if anything was lost or left.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT), str(ROOT / "tests" / "integration")]

import psutil
from tiny import write_checkpoint, write_reviews

from harness.store.record_files import load_records

REFERENCE = ROOT / "results" / "reference" / "amd-epyc-1c-24g-1d0db1" / "default"
STUDY = """name = "faults"
baselines = true
[model]
name = "{model}"
[data]
source = "{data}"
num_train = 256
num_val = 64
num_test = 64
[training]
checkpoint_every_s = 1
max_steps = 200
[matrix]
seq_len = [24]
threads = [1]
"""
MARK = "HARNESS_FAULTS_TRIAL"
SIGNALS = {name: getattr(signal, name) for name in ("SIGKILL", "SIGTERM", "SIGHUP", "SIGINT")}


class NotTried(Exception):  # noqa: N818 - a state
    """The fault can't be made here."""


@dataclass
class Row:
    """One kind of fault, over its trials."""

    what: str
    trials: int = 0
    lost: int = 0
    processes: int = 0
    files: int = 0
    tracebacks: int = 0
    seconds: list[float] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)
    said: str = ""


class Place:
    """Inputs of all trials, and a fresh folder for each."""

    def __init__(self, root: Path) -> None:
        self.root, self.num = root, 0
        self.model = write_checkpoint(root / "bert", "bert")
        data = write_reviews(root / "reviews.csv")
        self.study = root / "faults.toml"
        self.study.write_text(STUDY.format(model=self.model, data=data))
        self.data = data
        self.archive = root / "records.tar.gz"
        self.saved: Path | None = None
        self.undisturbed: dict[str, float] = {}

    @contextmanager
    def trial(self) -> Iterator[Path]:
        self.num += 1
        folder = self.root / f"trial{self.num}"
        (folder / "tmp").mkdir(parents=True)
        yield folder
        shutil.rmtree(folder, ignore_errors=True)

    def arguments(self, command: str, folder: Path) -> list[str]:
        results = folder / "r"
        arguments: dict[str, list[object]] = {
            "run": ["run", self.study, "--results", results],
            "train": ["train", self.study, "--results", results, "--checkpoints", folder / "c" / "t"],
            "predict": ["predict", self.saved or self.model, self.data, "-o", folder / "out" / "p.csv"],
            "report": ["report", REFERENCE, "--out", folder / "out" / "report"],
            "import": ["import", self.archive, "--results", folder / "out" / "r"],
            "pack": ["pack", REFERENCE, "--all", "--out", folder / "out" / "a.tar.gz"],
        }
        return [sys.executable, "-m", "harness", *map(str, arguments[command])]

    def environment(self, folder: Path) -> dict[str, str]:
        return os.environ | {
            "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "COLUMNS": "200", MARK: str(folder),
            "TMPDIR": str(folder / "tmp"), "XDG_STATE_HOME": str(folder / "state"), "HARNESS_CACHE": str(folder / "cache"),
        }  # fmt: skip


def one_trial(
    place: Place, row: Row, command: str, folder: Path, fault: Callable[[subprocess.Popen[bytes]], None],
    wrapper: list[str], limit_bytes: int | None,
) -> None:  # fmt: skip
    """Run a command with a fault, then the next command, and add what is lost and left to the row."""
    (folder / "out").mkdir(exist_ok=True)
    printed, errors = folder / "stdout.log", folder / "stderr.log"

    def limit() -> None:
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    with printed.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(
            [*wrapper, *place.arguments(command, folder)], env=place.environment(folder), stdout=out, stderr=err,
            preexec_fn=limit,
        )  # fmt: skip
        began = time.perf_counter()
        fault(process)
        hit = time.perf_counter()
        process.wait(timeout=300)
        row.seconds.append(time.perf_counter() - (hit if hit - began > 0.01 else began))
    row.trials += 1
    row.statuses.add(process.returncode)
    said = errors.read_text(errors="replace")
    row.tracebacks += "Traceback" in said
    row.said = (said.strip().splitlines() or [row.said])[-1][:160]
    row.processes += processes_left(folder)
    finished = printed.read_text(errors="replace").count("    ok  ")
    results = folder / "r"
    records = [
        record for place_ in (results, folder / "state") if place_.is_dir() for record in load_records([place_]).records
    ]
    row.lost += max(0, finished - sum(record.outcome == "ok" for record in records))
    subprocess.run(
        [sys.executable, "-m", "harness", "--version"], env=place.environment(folder), capture_output=True, check=False
    )
    row.files += sum(path.is_file() for path in (folder / "tmp").rglob("*"))


def processes_left(folder: Path, patience_s: float = 10.0) -> int:
    """Count this trial's processes that are still alive, up to 10 s later."""
    deadline = time.monotonic() + patience_s
    while True:
        alive = 0
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == str(folder):
                    alive += 1
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(0.2)


def disturb(place: Place, command: str, number: int, moments: int, rng: random.Random) -> Row:
    """Send a signal at random moments of a command."""
    row = Row(f"{signal.Signals(number).name} of `{command}`")
    if command not in place.undisturbed:
        with place.trial() as folder:
            began = time.perf_counter()
            one_trial(place, Row(""), command, folder, lambda _: None, [], None)
            place.undisturbed[command] = time.perf_counter() - began
    for _ in range(moments):
        delay_s = rng.uniform(0.05, place.undisturbed[command])

        def send(process: subprocess.Popen[bytes], delay_s: float = delay_s) -> None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=delay_s)
            process.send_signal(number)

        with place.trial() as folder:
            one_trial(place, row, command, folder, send, [], None)
    return row


@contextmanager
def disk(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise NotTried(f"no tmpfs can be mounted: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def on_disk(place: Place, command: str, where: str, options: str, what: str) -> Row:
    """Run a command whose folder `where` is on a disk of its own."""
    row = Row(f"{what}: `{command}`")
    with place.trial() as folder, disk(folder / where, options):
        if options == "size=4k":
            with (folder / where / "filler").open("wb", buffering=0) as file, suppress(OSError):
                file.write(bytes(4096))
        one_trial(place, row, command, folder, lambda _: None, [], None)
    return row


def blocked(place: Place, command: str, where: str) -> Row:
    row = Row(f"a file where a folder should be: `{command}`")
    with place.trial() as folder:
        (folder / where).parent.mkdir(exist_ok=True)
        (folder / where).touch()
        one_trial(place, row, command, folder, lambda _: None, [], None)
    return row


def limited(place: Place, command: str) -> Row:
    row = Row(f"`ulimit -f` of 2 KiB: `{command}`")
    with place.trial() as folder:
        one_trial(place, row, command, folder, lambda _: None, [], 2048)
    return row


def injected(place: Place, command: str, call: str, error: str) -> Row:
    """Let a system call of the command fail, on files whose names end in .partial."""
    row = Row(f"{error} from {call}: `{command}`")
    if shutil.which("strace") is None:
        raise NotTried("strace is not installed")
    with place.trial() as folder:
        wrapper = ["strace", "-qq", "-o", "/dev/null", "-e", f"inject={call}:error={error}"]
        one_trial(place, row, command, folder, lambda _: None, wrapper, None)
    return row


def kinds(place: Place, moments: int, rng: random.Random) -> dict[str, Callable[[], Row]]:
    """Return every kind by its name; those of `run` and `train` train a model."""
    found: dict[str, Callable[[], Row]] = {}
    commands = ("pack", "import", "report", "predict", "run", "train")
    for command in commands:
        for name in SIGNALS if command in ("run", "train") else ("SIGKILL",):
            found[f"kill {name} {command}"] = lambda c=command, n=name: disturb(place, c, SIGNALS[n], moments, rng)  # type: ignore[misc]
    for command, where in (
        ("pack", "out"),
        ("import", "out"),
        ("report", "out"),
        ("predict", "out"),
        ("run", "r"),
        ("train", "c"),
    ):
        found[f"full {command}"] = lambda c=command, w=where: on_disk(place, c, w, "size=4k", "full disk")  # type: ignore[misc]
        found[f"read-only {command}"] = lambda c=command, w=where: on_disk(place, c, w, "ro", "read-only disk")  # type: ignore[misc]
    for command in ("run", "report"):
        where = {"run": "r", "report": "out"}[command]
        found[f"inodes {command}"] = lambda c=command, w=where: on_disk(place, c, w, "nr_inodes=3", "no inodes")  # type: ignore[misc]
        found[f"file {command}"] = lambda c=command: blocked(place, c, {"run": "r", "report": "out/report"}[c])  # type: ignore[misc]
        found[f"ulimit {command}"] = lambda c=command: limited(place, c)  # type: ignore[misc]
    found["TMPDIR run"] = lambda: on_disk(place, "run", "tmp", "size=64k", "full TMPDIR")
    for call, error in (("fsync", "EIO"), ("rename", "EIO"), ("fsync", "ENOSPC")):
        found[f"strace {call} {error} report"] = lambda c=call, e=error: injected(place, "report", c, e)  # type: ignore[misc]
    return found


def line(row: Row) -> str:
    seconds = f"{max(row.seconds):.1f}" if row.seconds else ""
    statuses = ", ".join(map(str, sorted(row.statuses)))
    said = row.said.replace("|", "\\|").replace(row.what, "")
    return (
        f"| {row.what} | {row.trials} | {row.lost} | {row.processes} | {row.files} | {row.tracebacks} | {seconds} "
        f"| {statuses} | {said} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=10)
    parser.add_argument("--only", default="")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    lines = [
        "| fault | trials | cells lost | processes left | files left | tracebacks | longest s to the prompt | status | said last |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    failed = not_tried = 0
    with tempfile.TemporaryDirectory(prefix="harness-faults-") as folder:
        place = Place(Path(folder))
        subprocess.run(
            [sys.executable, "-m", "harness", "pack", REFERENCE, "--all", "--out", place.archive],
            env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True,
        )  # fmt: skip
        for name, make in kinds(place, 1 if asked.quick else asked.moments, random.Random(asked.seed)).items():
            if asked.only not in name or (asked.quick and name.rpartition(" ")[2] in ("run", "train", "predict")):
                continue
            try:
                row = make()
            except NotTried as reason:
                not_tried += 1
                lines.append(f"| {name} | not tried: {reason} | | | | | | | |")
            else:
                failed += any((row.lost, row.processes, row.files, row.tracebacks))
                lines.append(line(row).replace(folder, "..."))
            print(lines[-1], flush=True)
    total = f"{len(lines) - 2} kinds: {failed} with something lost or left, {not_tried} not tried."
    print(total)
    if asked.out:
        asked.out.write_text("\n".join(["# Faults", "", *lines, "", total, ""]), encoding="utf-8")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
