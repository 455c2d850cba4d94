"""Commands on a tiny BERT that are disturbed, and what each trial lost and left; see bench_faults.py."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT), str(ROOT / "tests" / "integration")]

import psutil
from tiny import write_checkpoint, write_reviews

from harness.errors import UserError
from harness.store.record_files import decode_record, load_records

REFERENCE = ROOT / "results" / "reference" / "amd-epyc-1c-24g-1d0db1" / "default"
COMMANDS = ("pack", "import", "report", "predict", "run", "train")
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
max_steps = 40
{training}
[limits]
{limits}
[matrix]
seq_len = [24]
threads = [1]
"""
MARK = "HARNESS_FAULTS_TRIAL"
NOBODY = 65534
PATIENCE_S = 10.0
TIMEOUT_S = 600
FILE_ERROR = 74
_UNSAVED = "can't be saved"
_STARTED = re.compile(r"^\[\d+/\d+\] ", re.MULTILINE)


class NotTried(Exception):  # noqa: N818 - a state
    """The fault can't be made here."""


class Missed(Exception):  # noqa: N818 - a state
    """The command had ended before the fault came."""


def nothing(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Let the command run."""


@dataclass(frozen=True)
class Fault:
    """How a trial is disturbed.

    Attributes:
        expected: The exit statuses that are right.
        around: Prepares the trial's folder, for as long as the command runs.
        during: Called once the command has started; raises Missed if it ends too early.
        wrapper: Command in front of the command's own; {folder} is the trial's.
        in_child: Called in the new process, before the command.
        variables: Environment variables.
        study: The command's study instead of the usual one.
    """

    expected: frozenset[int] = frozenset({74})
    around: Callable[[Path], AbstractContextManager[object]] = nullcontext
    during: Callable[[subprocess.Popen[bytes], Path], None] = nothing
    wrapper: tuple[str, ...] = ()
    in_child: Callable[[], None] | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    study: Path | None = None


UNDISTURBED = Fault(frozenset({0}))


@dataclass
class Row:
    """One kind of fault, over its trials."""

    what: str
    trials: int = 0
    lost: int = 0
    processes: int = 0
    files: int = 0
    tracebacks: int = 0
    wrong: int = 0
    not_resumed: int = 0
    seconds: list[float] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)
    said: str = ""

    @property
    def is_bad(self) -> bool:
        return any((self.lost, self.processes, self.files, self.tracebacks, self.wrong, self.not_resumed))


@dataclass(frozen=True)
class Ending:
    """How a command ended; `seconds` since the fault if one came in its midst, else since its start."""

    status: int
    seconds: float
    out: str
    err: str


class Place:
    """Inputs of all trials, and a fresh folder for each."""

    def __init__(self, root: Path) -> None:
        root.chmod(0o755)
        self.root, self.num = root, 0
        self.model = write_checkpoint(root / "bert", "bert")
        self.data = write_reviews(root / "reviews.csv")
        self.study = self.write_study("faults")
        self.archive = root / "records.tar.gz"
        self._undisturbed_s: dict[str, float] = {}
        with self.trial() as folder:
            packed = self.start("pack", folder, UNDISTURBED)
            packed.wait()
            (folder / "out" / "a.tar.gz").rename(self.archive)

    def write_study(self, name: str, training: str = "", limits: str = "") -> Path:
        path = self.root / f"{name}.toml"
        path.write_text(STUDY.format(model=self.model, data=self.data, training=training, limits=limits))
        return path

    @contextmanager
    def trial(self, owner: int = 0) -> Iterator[Path]:
        self.num += 1
        folder = self.root / f"trial{self.num}"
        for path in (folder, folder / "tmp", folder / "out", folder / "r", folder / "c", folder / "home"):
            path.mkdir()
            if owner:
                os.chown(path, owner, owner)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def undisturbed_s(self, command: str) -> float:
        """Return the seconds that a command takes by itself, measured once."""
        if command not in self._undisturbed_s:
            with self.trial() as folder:
                ended = self.finish(self.start(command, folder, UNDISTURBED), folder, UNDISTURBED)
            if ended.status:
                raise RuntimeError(f"{command} fails undisturbed: {ended.err}")
            self._undisturbed_s[command] = ended.seconds
        return self._undisturbed_s[command]

    def note_undisturbed(self, command: str, seconds: float) -> None:
        """Note what a command took this time, when the machine may be less busy."""
        self._undisturbed_s[command] = seconds

    def start(self, command: str, folder: Path, fault: Fault) -> subprocess.Popen[bytes]:
        study = fault.study or self.study
        arguments: dict[str, list[object]] = {
            "run": ["run", study, "--results", folder / "r"],
            "train": ["train", study, "--results", folder / "r", "--checkpoints", folder / "c" / "t"],
            "predict": ["predict", self.model, self.data, "-o", folder / "out" / "p.csv"],
            "report": ["report", REFERENCE, "--out", folder / "out" / "report"],
            "import": ["import", self.archive, "--results", folder / "out" / "r"],
            "pack": ["pack", REFERENCE, "--all", "--out", folder / "out" / "a.tar.gz"],
        }
        environment = os.environ | {
            "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "COLUMNS": "200", MARK: str(folder), "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"), "XDG_STATE_HOME": str(folder / "state"), "HARNESS_CACHE": str(folder / "cache"),
        } | fault.variables  # fmt: skip
        with (folder / "stdout.log").open("wb") as out, (folder / "stderr.log").open("wb") as err:
            return subprocess.Popen(
                [*(part.format(folder=folder) for part in fault.wrapper), sys.executable, "-m", "harness", *map(str, arguments[command])],
                env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err, preexec_fn=fault.in_child,
            )  # fmt: skip

    def finish(self, process: subprocess.Popen[bytes], folder: Path, fault: Fault) -> Ending:
        began = time.perf_counter()
        fault.during(process, folder)
        hit = time.perf_counter() if fault.during is not nothing else began
        try:
            status = process.wait(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        seconds = time.perf_counter() - hit
        out, err = ((folder / name).read_text(errors="replace") for name in ("stdout.log", "stderr.log"))
        return Ending(status, seconds, out, err)


def try_once(place: Place, row: Row, command: str, fault: Fault, owner: int = 0) -> None:
    """Run a command with a fault, then without, and add to the row what is lost, left and wrong."""
    with place.trial(owner) as folder:
        with fault.around(folder):
            ended = place.finish(place.start(command, folder, fault), folder, fault)
            row.processes += processes_left(folder)
            row.lost += num_lost(ended, folder, command)
        row.trials += 1
        row.seconds.append(ended.seconds)
        row.statuses.add(ended.status)
        row.wrong += ended.status not in fault.expected
        row.tracebacks += "Traceback" in ended.err + ended.out
        row.said = (ended.err.strip().splitlines() or [row.said])[-1].replace(str(folder), "...")[:160]
        output = folder / "out" / "p.csv"
        if not output.with_name("p.csv.progress.json").exists():
            output.unlink(missing_ok=True)  # a finished one would be kept
        again = Fault(UNDISTURBED.expected, wrapper=as_nobody() if owner else ())
        resumed = place.finish(place.start(command, folder, again), folder, again)
        if resumed.status:
            sys.stderr.write(f"{row.what}: then status {resumed.status}: {resumed.err}\n")
        row.not_resumed += resumed.status != 0
        row.files += sum(1 for _ in leftovers(folder))


def num_lost(ended: Ending, folder: Path, command: str) -> int:
    """Return how many cells that began have no record.

    After SIGKILL the running one may have none, nor one whose process could not be started for lack of file descriptors.
    A checkpoint that the command says is written, and that isn't there, counts too.
    """
    folders = [path for path in (folder / "r", folder / "state", folder / "tmp") if path.is_dir()]
    records = len(load_records(folders).records)
    for line in (ended.out + ended.err).splitlines():
        with suppress(UserError):
            decode_record(line.encode())
            records += 1
    may_lack_one = ended.status == -signal.SIGKILL or (ended.status == FILE_ERROR and _UNSAVED not in ended.err)
    lost = max(0, len(_STARTED.findall(ended.out)) - may_lack_one - records)
    if command == "train" and "Checkpoint written" in ended.out:
        lost += not list((folder / "c").rglob("update-*"))
    return lost


def leftovers(folder: Path) -> Iterator[Path]:
    """Yield the temporary files of a trial, wherever they are; files that the fault made are named filler."""
    for path in folder.rglob("*"):
        is_temporary = folder / "tmp" in path.parents or ".partial" in path.name or path.name.startswith(".writing-")
        if is_temporary and path.is_file() and path.name != "filler":
            yield path


def processes_left(folder: Path) -> int:
    """Count this trial's processes that are still alive, up to 10 s later."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        alive = 0
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == str(folder):
                    alive += 1
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(0.1)


def as_nobody() -> tuple[str, ...]:
    """Return the wrapper that runs a command as a user who is not root.

    The user may read everything, as a checkout and Python below /root need it, but write only what is theirs.
    """
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        raise NotTried("setpriv and root are needed to become another user")
    capability = "+dac_read_search"
    return (
        "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps", capability,
        "--ambient-caps", capability,
    )  # fmt: skip
