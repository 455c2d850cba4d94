"""A cell under instruments that are not the harness's own, beside what the harness says of the same run."""

from __future__ import annotations

import contextlib
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import psutil

from harness.errors import UserError
from harness.execution.jobs import PreparedCell, TrainJob
from harness.execution.messages import FilePages, Message, Progress, RankResult
from harness.machine.describe import num_gpus_used, num_ranks, num_threads, unsupported_reason
from harness.schema.cells import Cell, FineTuneConfig
from harness.schema.host_record import Machine
from harness.schema.training_record import PeakMemory

TOLERANCE = 0.02
_FEWEST_S = 1.0  # between two marks: of less, a late wake-up of the parent could be 2 %
_SMI_EVERY_MS = 200
_KIB, _MIB = 2**10, 2**20
_TIME_LINES = {
    "max_rss_kib": r"Maximum resident set size \(kbytes\): (\d+)",
}
_ELAPSED = re.compile(r"Elapsed \(wall clock\) time \(h:mm:ss or m:ss\): (?:(\d+):)?(\d+):([\d.]+)")
_CHILD = "harness.worker.instrumented"

# A message with this process's monotonic clock at its arrival.
Heard = tuple[float, Message | FilePages]


@dataclass(frozen=True)
class InstrumentReading:
    """One figure, by the harness and by another instrument; either is None where it was not measured, `note` says why."""

    figure: str
    unit: str
    ours: float | None
    theirs: float | None
    instrument: str
    note: str | None = None

    @property
    def difference(self) -> float | None:
        """Of the harness's figure, as a share of the instrument's."""
        return self.ours / self.theirs - 1 if self.ours is not None and self.theirs else None

    @property
    def verdict(self) -> Literal["agrees", "differs", "not measured"]:
        """Whether they are within the tolerance of each other."""
        if self.difference is None:
            return "not measured"
        return "agrees" if abs(self.difference) <= TOLERANCE else "differs"


@dataclass(frozen=True)
class Verified:
    """A cell's readings; none where it was not run, or did not end well: `reason` says why."""

    cell: str
    outcome: str
    reason: str | None
    readings: tuple[InstrumentReading, ...]

    @property
    def agrees(self) -> bool:
        """Whether no instrument contradicts."""
        return all(reading.verdict != "differs" for reading in self.readings)


def verify_cell(cell: Cell, prepare: Callable[[Cell], PreparedCell], machine: Machine) -> Verified:
    """Run a cell in a fresh process under all instruments that are here; nothing of it becomes a record.

    Validations are left to the end, so that nothing but steps lies between the marks. A cap on its memory is left out.

    Raises:
        UserError: When its model or data can't be had, or it did not end within its time-out.
    """
    config = cell.config
    if not isinstance(config, FineTuneConfig):
        return Verified(cell.name, "not run", "a baseline has no steps", ())
    reason = unsupported_reason(config, machine)
    if reason is not None:
        return Verified(cell.name, "unsupported", reason, ())
    if num_ranks(config, machine) > 1:
        return Verified(cell.name, "not run", "these instruments take one process; it has several", ())
    training = config.training.model_copy(update={"eval_every": 1e6, "target_accuracy": None})
    limits = config.limits.model_copy(update={"memory_limit_gib": None})
    config = config.model_copy(update={"training": training, "limits": limits})
    job = prepare(cell.model_copy(update={"config": config})).job
    assert isinstance(job, TrainJob)  # noqa: S101 - of a cell that trains
    # GNU time knows one peak, of the whole process: nothing that takes more than training may follow.
    job = replace(job, num_threads=num_threads(config, machine), run_diagnostics=False)
    on_gpu = bool(num_gpus_used(config, machine))
    with tempfile.TemporaryDirectory(prefix="harness-verify-") as temporary:
        folder = Path(temporary)
        told_by_time = folder / "time.txt"
        timed = [time_command, "-v", "-o", str(told_by_time)] if (time_command := shutil.which("time")) else []
        with _smi(on_gpu=on_gpu) as used_mib:
            began = time.monotonic()
            messages = run_alone(job, folder, timed, timeout_s=config.limits.timeout_s)
            elapsed_s = time.monotonic() - began
        result = next((message for _, message in messages if isinstance(message, RankResult)), None)
        if result is None:
            return Verified(cell.name, "crashed", "its process ended with no word", ())
        if result.training is None or result.outcome != "ok":
            return Verified(cell.name, result.outcome, result.reason, ())
        by_time = read_time(told_by_time.read_text(encoding="utf-8")) if timed else None
    measured = result.training
    readings = [
        stopwatch_reading(messages, measured.step_s),
        *time_readings(measured.peaks, elapsed_s, by_time, on_gpu=on_gpu),
    ]
    if on_gpu:
        readings.append(_smi_reading(measured.peaks, used_mib))
    return Verified(cell.name, "ok", None, tuple(readings))


def run_alone(job: TrainJob, folder: Path, inside: Sequence[str], *, timeout_s: float) -> list[Heard]:
    """Run a job's worker as a command inside another (`time -v`, ...), and give its messages.

    Raises:
        UserError: When it had not ended in time; it is ended then.
    """
    job_file, log = folder / "job.pickle", folder / "child.log"
    receiver, sender = Pipe(duplex=False)
    job_file.write_bytes(
        pickle.dumps(replace(job, submitted_at=time.perf_counter(), heartbeat=str(folder / "heartbeat")))
    )
    command = [*inside, sys.executable, "-m", _CHILD, str(job_file), str(sender.fileno()), str(log)]
    with log.open("ab") as output:
        process = psutil.Popen(command, pass_fds=[sender.fileno()], stdout=output, stderr=output)
    sender.close()
    try:
        messages = list(_hear(receiver, time.monotonic() + timeout_s))
        process.wait()
    finally:
        _end(process)
        receiver.close()
    return messages


def _hear(receiver: Connection, deadline: float) -> Iterator[Heard]:
    """Block for each message until the last holder of the pipe's other end is gone."""
    while True:
        if not receiver.poll(max(0.0, deadline - time.monotonic())):
            raise UserError("--verify: a cell was not done within limits.timeout_s")
        try:
            message = receiver.recv()
        except EOFError:
            return
        yield time.monotonic(), message


def _end(process: psutil.Popen) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        for one in (*process.children(recursive=True), process):
            one.kill()
    process.wait()


def stopwatch_reading(messages: Sequence[Heard], step_s: Sequence[float]) -> InstrumentReading:
    """Samples a second of the steps between the first and the last mark, by the worker's timer and by this process's clock."""
    figure, unit, instrument = "throughput", "samples/s", "a stopwatch in another process"
    marks = [(at_s, message) for at_s, message in messages if isinstance(message, Progress)]
    # The last step's comes after a validation.
    marks = [(at_s, mark) for at_s, mark in marks if mark.evaluate_s == marks[0][1].evaluate_s]
    watched_s = marks[-1][0] - marks[0][0] if marks else 0.0
    if watched_s < _FEWEST_S:
        note = f"only {watched_s:.1f} s of steps lay between marks: raise training.max_steps"
        return InstrumentReading(figure, unit, None, None, instrument, note)
    first, last = marks[0][1], marks[-1][1]
    num_samples = last.num_samples - first.num_samples
    seconds = sum(step_s[first.num_steps : last.num_steps])
    return InstrumentReading(figure, unit, num_samples / seconds, num_samples / watched_s, instrument)


def read_time(text: str) -> dict[str, float]:
    """GNU time's own figures out of what `time -v` writes: `max_rss_kib`, `elapsed_s`."""
    found = {key: float(match[1]) for key, line in _TIME_LINES.items() if (match := re.search(line, text))}
    if elapsed := _ELAPSED.search(text):
        hours, minutes, seconds = elapsed.groups()
        found["elapsed_s"] = 3600 * int(hours or 0) + 60 * int(minutes) + float(seconds)
    return found


def time_readings(
    peaks: Sequence[PeakMemory], elapsed_s: float, by_time: dict[str, float] | None, *, on_gpu: bool
) -> tuple[InstrumentReading, ...]:
    """Peak memory and the process's whole life, against `/usr/bin/time -v`.

    On a GPU the peak that counts is the GPU's; main memory's is held against the same instrument all the same.
    """
    instrument = "/usr/bin/time -v"
    note = None if by_time else f"{instrument} is not installed (Debian: apt install time)"
    told = by_time or {}
    rss = next((peak.num_bytes for peak in peaks if peak.source == "rss"), None)
    name = "peak of main memory" if on_gpu else "peak memory"
    max_rss = told["max_rss_kib"] * _KIB / _MIB if "max_rss_kib" in told else None
    return (
        InstrumentReading(name, "MiB", None if rss is None else rss / _MIB, max_rss, instrument, note),
        InstrumentReading("process, start to end", "s", elapsed_s, told.get("elapsed_s"), instrument, note),
    )


@contextlib.contextmanager
def _smi(*, on_gpu: bool) -> Iterator[list[float]]:
    """MiB more than before that the first GPU had in use, by nvidia-smi five times a second, filled in at the end."""
    readings: list[float] = []
    if not on_gpu or shutil.which("nvidia-smi") is None:
        yield readings
        return
    command = ["nvidia-smi", "-i", "0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    before = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as told:
        process = subprocess.Popen([*command, "-lms", str(_SMI_EVERY_MS)], stdout=told, stderr=subprocess.DEVNULL)
        try:
            yield readings
        finally:
            process.terminate()
            process.wait()
            told.seek(0)
            used = [float(line) for line in (before.stdout + told.read()).split() if line.isdigit()]
            readings += [value - used[0] for value in used[1:]]


def _smi_reading(peaks: Sequence[PeakMemory], more_than_before: Sequence[float]) -> InstrumentReading:
    """What the process held of the GPU: NVML's figure in the record, and how much more nvidia-smi saw used than before."""
    ours = next((peak.num_bytes / _MIB for peak in peaks if peak.source == "nvml_process"), None)
    note = None if more_than_before else "nvidia-smi is not on PATH, or told nothing"
    if ours is None:
        note = "NVML does not tell what a process holds here"
    return InstrumentReading("peak of GPU memory", "MiB", ours, max(more_than_before, default=None), "nvidia-smi", note)
