"""`harness run --verify`: compare the harness's figures of a run with independent instruments."""

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
from harness.machine.private_folders import private_folder
from harness.machine.support import num_gpus_used, num_ranks, num_threads, unsupported_reason
from harness.schema.cells import Cell, FineTuneConfig
from harness.schema.host_record import Machine
from harness.schema.training_record import PeakMemory

TOLERANCE = 0.02
_MIN_WINDOW_S = 1.0  # in a shorter window, a late wake-up of the parent could cause an error of 2 %
_SMI_INTERVAL_MS = 200
_KIB, _MIB = 2**10, 2**20
_MAX_RSS = re.compile(r"Maximum resident set size \(kbytes\): (\d+)")
_ELAPSED = re.compile(r"Elapsed \(wall clock\) time \(h:mm:ss or m:ss\): (?:(\d+):)?(\d+):([\d.]+)")
_CHILD = "harness.worker.instrumented"

# Arrival time on this process's monotonic clock, and the message.
TimedMessage = tuple[float, Message | FilePages]


@dataclass(frozen=True)
class InstrumentReading:
    """One figure by the harness and by another instrument; a value is None if not measured, and `note` says why."""

    figure: str
    unit: str
    ours: float | None
    theirs: float | None
    instrument: str
    note: str | None = None

    @property
    def difference(self) -> float | None:
        """Relative difference of the harness's figure from the instrument's."""
        return self.ours / self.theirs - 1 if self.ours is not None and self.theirs else None

    @property
    def verdict(self) -> Literal["agrees", "differs", "not measured"]:
        """Whether the figures agree within the tolerance."""
        if self.difference is None:
            return "not measured"
        return "agrees" if abs(self.difference) <= TOLERANCE else "differs"


@dataclass(frozen=True)
class VerifiedCell:
    """A cell's readings; there are none if the cell was not run or failed, and `reason` says why."""

    cell: str
    outcome: str
    reason: str | None
    readings: tuple[InstrumentReading, ...]

    @property
    def agrees(self) -> bool:
        """Whether no reading differs."""
        return all(reading.verdict != "differs" for reading in self.readings)


def verify_cell(cell: Cell, prepare: Callable[[Cell], PreparedCell], machine: Machine) -> VerifiedCell:
    """Run a cell in a fresh process under all available instruments; no record is saved.

    Validation runs only at the end, so that only training steps lie between the progress messages. A memory cap of the
    cell is ignored.

    Raises:
        UserError: If model or data is not available, or the cell exceeds its time-out.
    """
    config = cell.config
    if not isinstance(config, FineTuneConfig):
        return VerifiedCell(cell.name, "not run", "a baseline has no steps", ())
    reason = unsupported_reason(config, machine)
    if reason is not None:
        return VerifiedCell(cell.name, "unsupported", reason, ())
    if num_ranks(config, machine) > 1:
        return VerifiedCell(cell.name, "not run", "these instruments take one process; it has several", ())
    job = _verification_job(cell, config, prepare, machine)
    on_gpu = bool(num_gpus_used(config, machine))
    with private_folder("verify") as folder:
        time_output = folder / "time.txt"
        wrapper = [time_command, "-v", "-o", str(time_output)] if (time_command := shutil.which("time")) else []
        with _sample_smi(on_gpu=on_gpu) as added_mib:
            began = time.monotonic()
            messages = run_wrapped(job, folder, wrapper, timeout_s=config.limits.timeout_s)
            elapsed_s = time.monotonic() - began
        result = next((message for _, message in messages if isinstance(message, RankResult)), None)
        if result is None:
            return VerifiedCell(cell.name, "crashed", "its process ended with no word", ())
        if result.training is None or result.outcome != "ok":
            return VerifiedCell(cell.name, result.outcome, result.reason, ())
        gnu_time = read_time(time_output.read_text(encoding="utf-8")) if wrapper else None
    measured = result.training
    readings = [
        stopwatch_reading(messages, measured.step_s),
        *time_readings(measured.peaks, elapsed_s, gnu_time, on_gpu=on_gpu),
    ]
    if on_gpu:
        readings.append(_smi_reading(measured.peaks, added_mib))
    return VerifiedCell(cell.name, "ok", None, tuple(readings))


def _verification_job(
    cell: Cell, config: FineTuneConfig, prepare: Callable[[Cell], PreparedCell], machine: Machine
) -> TrainJob:
    """Prepare the cell's job without choice of attention, mid-training validation, memory cap and diagnostics."""
    training = config.training.model_copy(update={"eval_every": 1e6, "target_accuracy": None})
    limits = config.limits.model_copy(update={"memory_limit_gib": None})
    # GNU time measures the whole process's peak: no timed steps of `auto` may need more memory than training.
    model = config.model.model_copy(update={"attention": None}) if config.model.attention == "auto" else config.model
    config = config.model_copy(update={"model": model, "training": training, "limits": limits})
    job = prepare(cell.model_copy(update={"config": config})).job
    assert isinstance(job, TrainJob)  # noqa: S101 - the cell trains
    # Nor may anything after training: no diagnostics.
    return replace(job, num_threads=num_threads(config, machine), run_diagnostics=False)


def run_wrapped(job: TrainJob, folder: Path, wrapper: Sequence[str], *, timeout_s: float) -> list[TimedMessage]:
    """Run a job's worker as the child of another command such as `time -v`, and return its messages.

    Args:
        job: The worker's job.
        folder: Folder for temporary files.
        wrapper: The words to put before the worker's command, such as `time -v`; may be empty.
        timeout_s: Seconds after which the worker is killed.

    Raises:
        UserError: If the worker exceeded its time-out.
    """
    job_file, log = folder / "job.pickle", folder / "child.log"
    receiver, sender = Pipe(duplex=False)
    job_file.write_bytes(
        pickle.dumps(replace(job, submitted_at=time.perf_counter(), heartbeat=str(folder / "heartbeat")))
    )
    command = [*wrapper, sys.executable, "-m", _CHILD, str(job_file), str(sender.fileno()), str(log)]
    with log.open("ab") as output:
        process = psutil.Popen(command, pass_fds=[sender.fileno()], stdout=output, stderr=output)
    sender.close()
    try:
        messages = list(_receive(receiver, time.monotonic() + timeout_s))
        process.wait()
    finally:
        _kill(process)
        receiver.close()
    return messages


def _receive(receiver: Connection, deadline: float) -> Iterator[TimedMessage]:
    """Yield messages until the other end of the pipe is closed."""
    while True:
        if not receiver.poll(max(0.0, deadline - time.monotonic())):
            raise UserError("--verify: the cell exceeded limits.timeout_s")
        try:
            message = receiver.recv()
        except EOFError:
            return
        yield time.monotonic(), message


def _kill(process: psutil.Popen) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        for member in (*process.children(recursive=True), process):
            member.kill()
    process.wait()


def stopwatch_reading(messages: Sequence[TimedMessage], step_s: Sequence[float]) -> InstrumentReading:
    """Compare samples per second by the worker's timer and by this process's clock, over the same steps.

    Args:
        messages: The worker's messages with their arrival times.
        step_s: Seconds of each step by the worker's timer.
    """
    figure, unit, instrument = "throughput", "samples/s", "a stopwatch in another process"
    marks = [(at_s, message) for at_s, message in messages if isinstance(message, Progress)]
    # The last step's message comes after a validation, whose time must not count: drop such messages.
    marks = [(at_s, mark) for at_s, mark in marks if mark.evaluate_s == marks[0][1].evaluate_s]
    window_s = marks[-1][0] - marks[0][0] if marks else 0.0
    if window_s < _MIN_WINDOW_S:
        note = f"only {window_s:.1f} s of steps lay between marks: raise training.max_steps"
        return InstrumentReading(figure, unit, None, None, instrument, note)
    first, last = marks[0][1], marks[-1][1]
    num_samples = last.num_samples - first.num_samples
    seconds = sum(step_s[first.num_steps : last.num_steps])
    return InstrumentReading(figure, unit, num_samples / seconds, num_samples / window_s, instrument)


def read_time(text: str) -> dict[str, float]:
    """Parse `max_rss_kib` and `elapsed_s` from the output of `time -v`."""
    figures = {"max_rss_kib": float(match[1])} if (match := _MAX_RSS.search(text)) else {}
    if elapsed := _ELAPSED.search(text):
        hours, minutes, seconds = elapsed.groups()
        figures["elapsed_s"] = 3600 * int(hours or 0) + 60 * int(minutes) + float(seconds)
    return figures


def time_readings(
    peaks: Sequence[PeakMemory], elapsed_s: float, gnu_time: dict[str, float] | None, *, on_gpu: bool
) -> tuple[InstrumentReading, ...]:
    """Compare peak main memory and the process's elapsed time with `/usr/bin/time -v`.

    Args:
        peaks: Peak memory in the harness's result.
        elapsed_s: Elapsed time of the process by this process's clock.
        gnu_time: Parsed output of `time -v`; None if `time` is not installed.
        on_gpu: Whether the cell runs on a GPU; its `peak memory` is then GPU memory, and main memory has another name.
    """
    instrument = "/usr/bin/time -v"
    note = None if gnu_time else f"{instrument} is not installed (Debian: apt install time)"
    figures = gnu_time or {}
    rss = next((peak.num_bytes for peak in peaks if peak.source == "rss"), None)
    name = "peak of main memory" if on_gpu else "peak memory"
    max_rss = figures["max_rss_kib"] * _KIB / _MIB if "max_rss_kib" in figures else None
    return (
        InstrumentReading(name, "MiB", None if rss is None else rss / _MIB, max_rss, instrument, note),
        InstrumentReading("process, start to end", "s", elapsed_s, figures.get("elapsed_s"), instrument, note),
    )


@contextlib.contextmanager
def _sample_smi(*, on_gpu: bool) -> Iterator[list[float]]:
    """Sample the first GPU's used memory with nvidia-smi; on exit, the yielded list is filled with the added MiB."""
    readings: list[float] = []
    if not on_gpu or shutil.which("nvidia-smi") is None:
        yield readings
        return
    command = ["nvidia-smi", "-i", "0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    before = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        process = subprocess.Popen([*command, "-lms", str(_SMI_INTERVAL_MS)], stdout=output, stderr=subprocess.DEVNULL)
        try:
            yield readings
        finally:
            process.terminate()
            process.wait()
            output.seek(0)
            used = [float(line) for line in (before.stdout + output.read()).split() if line.isdigit()]
            readings += [value - used[0] for value in used[1:]]


def _smi_reading(peaks: Sequence[PeakMemory], added_mib: Sequence[float]) -> InstrumentReading:
    """Compare the process's GPU memory as NVML reports it with the memory that nvidia-smi saw added."""
    ours = next((peak.num_bytes / _MIB for peak in peaks if peak.source == "nvml_process"), None)
    note = None if added_mib else "nvidia-smi is not on PATH, or printed nothing"
    if ours is None:
        note = "NVML reports no memory by process on this machine"
    return InstrumentReading("peak of GPU memory", "MiB", ours, max(added_mib, default=None), "nvidia-smi", note)
