"""Cells to records: start, wait, time out, reap every descendant, classify."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import import_module
from multiprocessing import connection
from pathlib import Path
from typing import Any, Literal

import psutil

from harness import __version__
from harness.cage import Cage, KernelKills
from harness.census import Census
from harness.checkpoint_folder import Pieces
from harness.energy import EnergyMeter
from harness.gpu_watch import GpuWatch
from harness.load_watch import LoadWatch
from harness.machine import num_gpus_used, num_ranks, num_threads, unsupported_reason
from harness.matrix import BaselineConfig, Cell, FineTuneConfig
from harness.mistakes import ReadTexts, most_confident
from harness.pulse import HangWatch, Pulse
from harness.record import (
    Baseline,
    CalibratedPeak,
    Cap,
    DataFacts,
    Detected,
    Example,
    FlopCount,
    Git,
    Machine,
    Mark,
    PeakMemory,
    Phases,
    Record,
    Stated,
    Steps,
    Training,
)
from harness.scrub import scrub, scrubbed_tail
from harness.shortage import find_sign
from harness.sources import ModelFiles

StartMethod = Literal["forkserver", "spawn"]
Progress = Callable[[dict[str, Any]], None]

_WORKER = "harness.worker"
_TERMINATE_S = 3.0
_LAST_NEWS_S = 0.5
_TICK_S = 1.0
_TAIL_BYTES = 20_000
_GIB = 2**30
# Endings that a rank tells of when it is done, and that end no other rank.
_PLANNED = ("ok", "diverged", "interrupted", "preempted")


@dataclass(frozen=True)
class FineTuneJob:
    """What one rank is told.

    Attributes:
        rendezvous: A file that no other cell uses, and that is not there yet.
        pulse: A file of counters that the parent watches; empty: nobody does.
        ordered_at: On perf_counter's clock.
        shares_gpu: All ranks compute on the first GPU, by gloo: right losses and no speed, for a check alone.
        looks_closer: Whether memory and arithmetic are taken apart when all is measured, which can take more memory than training did.
        pieces: Of a training that may stop and go on later; None: it is done at one go.
        keep_to: A folder for the weights of the best validation; empty: none are kept.
        profile_to: Files' beginning, where all steps from the plan's `profile_first` on are trained again under the profiler
            when all is measured; empty: they are not.
    """

    config: FineTuneConfig
    model: ModelFiles
    tokens_folder: Path
    num_labels: int
    rank: int = 0
    world_size: int = 1
    num_threads: int = 1
    rendezvous: str = ""
    pulse: str = ""
    ordered_at: float = 0.0
    shares_gpu: bool = False
    looks_closer: bool = True
    pieces: Pieces | None = None
    profile_to: str = ""
    profile_first: int = 0
    keep_to: str = ""


@dataclass(frozen=True)
class BaselineJob:
    """What a baseline's process is told."""

    config: BaselineConfig
    texts_folder: Path
    ordered_at: float = 0.0


Job = FineTuneJob | BaselineJob


@dataclass(frozen=True)
class Prepared:
    """What a cell needs that was made before the first one; tokenise_s is None for a baseline.

    Attributes:
        read_texts: Gives texts of the test split by their rows; None where a record may hold none.
    """

    job: Job
    data: DataFacts
    example: Example | None
    tokenise_s: float | None
    read_texts: ReadTexts | None = None


@dataclass(frozen=True)
class Surroundings:
    """What is the same for all cells of a run."""

    machine: Machine
    stated: Stated | None
    git: Git | None
    packages: dict[str, str]
    detected: Detected | None = None


@dataclass
class _Rank:
    """One process of a cell, and what it told so far."""

    process: Any
    pipe: connection.Connection
    stderr: Path
    messages: list[dict[str, Any]] = field(default_factory=list)
    ended_at: float | None = None

    @property
    def end(self) -> dict[str, Any] | None:
        return next((message for message in self.messages if message["kind"] == "end"), None)


class Runner:
    """Starts cells, one at a time, from a warm process that has torch and the model classes loaded.

    A context: nothing that it started is left when it is left.
    """

    def __init__(self, start_method: StartMethod | None = None, preload: tuple[str, ...] = ()) -> None:
        self._preload = (_WORKER, *preload)
        # macOS's system libraries do not survive a fork.
        self.start_method: StartMethod = start_method or ("forkserver" if sys.platform == "linux" else "spawn")
        self._context: Any = multiprocessing.get_context(self.start_method)
        self._ranks: list[_Rank] = []
        self._watch: HangWatch | None = None
        self._cage: Cage | None = None
        self._census: Census | None = None
        self._load: LoadWatch | None = None
        self._gpus, self._energy = GpuWatch(0), EnergyMeter(0)
        self._folder = tempfile.TemporaryDirectory(prefix="harness-")

    def __enter__(self) -> Runner:
        """Begin to load torch in the forkserver; returns at once."""
        if self.start_method == "forkserver":
            self._context.set_forkserver_preload(list(self._preload))
            with _without_main():
                multiprocessing.forkserver.ensure_running()
        return self

    def __exit__(self, *exception: object) -> None:
        """End what still runs."""
        self._end_ranks()
        self._folder.cleanup()

    def wait_until_warm(self) -> None:
        """Return when the forkserver has loaded all: the first cell then starts as quickly as the others."""
        if self.start_method == "forkserver":
            with _without_main():
                process = self._context.Process(target=_nothing)
                process.start()
            process.join()

    def run(
        self, cell: Cell, prepared: Prepared, around: Surroundings, on_progress: Progress = lambda _: None
    ) -> Record:
        """Run one cell alone and return its record, whatever becomes of it; Ctrl-C makes it `interrupted`."""
        reason = unsupported_reason(cell.config, around.machine)
        if reason is not None:
            return blank_record(cell, around, "unsupported", reason).model_copy(update={"data": prepared.data})
        num_gpus = num_gpus_used(cell.config, around.machine)
        kills = KernelKills()
        load = self._load = LoadWatch(num_gpus)
        self._gpus, self._energy = GpuWatch(num_gpus), EnergyMeter(num_gpus)
        started_at, ordered_at = datetime.now(UTC), time.perf_counter()
        self._energy.begin(0.0)
        try:
            self._start(cell, prepared.job, around.machine, ordered_at)
            outcome, reason = self._wait(ordered_at, _timeout_s(cell, prepared.job), on_progress, kills)
        except KeyboardInterrupt:
            outcome, reason = "interrupted", "stopped by the user"
        duration_s = time.perf_counter() - ordered_at
        self._energy.end(duration_s)
        ranks, start_method = self._ranks, "fresh" if self._cage else self.start_method
        cap = self._cage.cap() if self._cage else _cuda_cap(cell) if num_gpus else None
        peaks = self._census.peaks() if self._census else ()
        self._end_ranks()
        ends = [rank.end or {} for rank in ranks]
        training = _merge(ranks, prepared, cell, peaks)
        record = blank_record(cell, around, outcome, reason).model_copy(
            update={
                "started_at": started_at,
                "duration_s": duration_s,
                "stderr_tail": tuple(scrubbed_tail(rank.stderr) for rank in ranks),
                "phases": _phases(ranks, prepared),
                "load": load.until_now(_cpu_s(ends)),
                "start_method": start_method,
                "cap": cap,
                "data": prepared.data,
                "model": ends[0].get("model") if ends else None,
                "baseline": _baseline(ends[0], peaks) if ends else None,
                "marks": _marks(ranks),
                "held_bytes": () if training else _held_bytes(ranks),
                "gpu_readings": tuple(self._gpus.readings),
                "energy": self._energy.energy(),
                "training": training,
            }
        )
        mismatch = _checksum_mismatch(ends)
        if mismatch:
            record = record.model_copy(update={"outcome": "crashed", "reason": mismatch})
        # Checked as a whole once more: model_copy trusts what it is given.
        return Record.model_validate(record.model_dump())

    def _start(self, cell: Cell, job: Job, machine: Machine, ordered_at: float) -> None:
        # Resolved here so that the child finds the module in the forkserver's memory, and the parent never imports it.
        world_size = num_ranks(cell.config, machine) if isinstance(cell.config, FineTuneConfig) else 1
        token = f"{time.monotonic_ns():x}"
        pulse = Path(self._folder.name) / f"{token}-pulse"
        Pulse(pulse, world_size).close()
        context, limit = self._context, cell.config.limits.memory_limit_gib
        if limit is not None and not num_gpus_used(cell.config, machine):
            self._cage = Cage(int(limit * _GIB), world_size, Path(self._folder.name))
            context = multiprocessing.get_context("spawn")
        for rank in range(world_size):
            told: Job = replace(job, ordered_at=ordered_at)
            if isinstance(told, FineTuneJob):
                told = replace(
                    told, rank=rank, world_size=world_size, num_threads=num_threads(told.config, machine),
                    rendezvous=f"{self._folder.name}/{token}-rendezvous", pulse=str(pulse),
                )  # fmt: skip
            receiver, sender = context.Pipe(duplex=False)
            stderr = Path(self._folder.name) / f"{token}-rank{rank}.log"
            with _without_main(), self._cage.python_inside(stderr) if self._cage else contextlib.nullcontext():
                process = context.Process(target=_enter_worker, args=(told, sender, str(stderr)))
                process.start()
            sender.close()
            self._ranks.append(_Rank(process, receiver, stderr))
        pids = [rank.process.pid for rank in self._ranks]
        self._watch = HangWatch(pulse, pids) if world_size > 1 else None
        self._census = None if num_gpus_used(cell.config, machine) else Census(pids, self._cage)

    def _wait(
        self, ordered_at: float, timeout_s: float, on_progress: Progress, kills: KernelKills
    ) -> tuple[str, str | None]:
        """Block until every rank ended, one failed, or time is up; wakes on messages and on one timer."""
        while True:
            waiting = [rank for rank in self._ranks if rank.ended_at is None]
            if not waiting:
                return _verdict(self._ranks, self._cage, kills)
            left = ordered_at + timeout_s - time.perf_counter()
            if left <= 0:
                return "timeout", f"not done after limits.timeout_s = {timeout_s:g} s"
            ready = connection.wait(
                [item for rank in waiting for item in (rank.pipe, rank.process.sentinel)], min(left, _TICK_S)
            )
            now = time.perf_counter() - ordered_at
            self._look(now)
            if self._watch is not None and (hung := self._watch.look(now)):
                return "timeout", hung
            for rank in waiting:
                if rank.pipe in ready or rank.process.sentinel in ready:
                    _receive(rank, now, self._first_ranks(on_progress, now) if rank is self._ranks[0] else _ignore)
                if rank.process.sentinel in ready or rank.end is not None:
                    rank.process.join(_TERMINATE_S if rank.end is not None else None)
                    rank.ended_at = now
            if any(rank.ended_at is not None and (rank.end or {}).get("outcome") not in _PLANNED for rank in waiting):
                self._hear_the_dead(ordered_at)
                return _verdict(self._ranks, self._cage, kills)

    def _look(self, now: float) -> None:
        """Read the instruments that stand outside the measured processes; each reads only when it is due."""
        self._gpus.look(now)
        self._energy.look(now)
        if self._load is not None:
            self._load.look(now)
        if self._census is not None:
            self._census.look(now)

    def _first_ranks(self, on_progress: Progress, now: float) -> Progress:
        """What rank 0 tells goes to the screen, to the count of all ranks' memory, and ends that of energy."""

        def hear(message: dict[str, Any]) -> None:
            if self._census is not None:
                self._census.hear(message, now)
            if message["kind"] == "phase" and message["name"] == "after":
                self._energy.end(now)
            on_progress(message)

        return hear

    def _hear_the_dead(self, ordered_at: float) -> None:
        """A rank that complains of a lost neighbour may be heard before the news that the neighbour died."""
        running = {rank.process.sentinel: rank for rank in self._ranks if rank.ended_at is None}
        for sentinel in connection.wait(list(running), _LAST_NEWS_S) if running else ():
            rank = running[sentinel]
            _receive(rank, now := time.perf_counter() - ordered_at, _ignore)
            rank.process.join()
            rank.ended_at = now

    def _end_ranks(self) -> None:
        """End every process of the cell and all they started; SIGTERM, then SIGKILL, until none is left."""
        victims: list[psutil.Process] = []
        for rank in self._ranks:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(rank.process.pid)
                victims += [process, *process.children(recursive=True)]
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.terminate()
        _, alive = psutil.wait_procs(victims, timeout=_TERMINATE_S)
        for victim in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        psutil.wait_procs(alive, timeout=_TERMINATE_S)
        for rank in self._ranks:
            # Orphans of a rank that died keep its process group.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(rank.process.pid, signal.SIGKILL)
            rank.process.join()
            rank.pipe.close()
        self._ranks, self._census = [], None
        self._gpus.close()
        self._energy.close()
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if self._cage is not None:
            self._cage.close()
            self._cage = None


def _ignore(message: dict[str, Any]) -> None:
    """Hear a rank whose progress is not shown."""


def _nothing() -> None:
    """Run in a child that proves the forkserver ready."""


def _enter_worker(job: Job, pipe: connection.Connection, stderr: str) -> None:
    import_module(_WORKER).run(job, pipe, stderr)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Keep multiprocessing from running the parent's main script in every child, which would import the whole CLI."""
    main = sys.modules["__main__"]
    hidden = {name: getattr(main, name) for name in ("__file__", "__spec__") if hasattr(main, name)}
    main.__spec__ = None
    main.__dict__.pop("__file__", None)
    try:
        yield
    finally:
        main.__dict__.update(hidden)


def _receive(rank: _Rank, now: float, on_progress: Progress) -> None:
    with contextlib.suppress(EOFError, OSError):
        while rank.pipe.poll():
            message = rank.pipe.recv() | {"at_s": now}
            rank.messages.append(message)
            on_progress(message)


def _verdict(ranks: list[_Rank], cage: Cage | None, kills: KernelKills) -> tuple[str, str | None]:
    """The ending of the rank that failed first; another's "connection reset by peer" only follows from it."""
    failed = [rank for rank in ranks if rank.ended_at is not None and (rank.end or {}).get("outcome") != "ok"]
    if not failed:
        return "ok", None
    # A rank that died without a word is nearer to the cause than one that lived to complain of it.
    first = min(failed, key=lambda rank: (rank.end is not None, rank.ended_at))
    told = (first.end or {}).get("outcome") in ("interrupted", "preempted")  # all ranks stop together
    prefix = f"rank {ranks.index(first)}: " if len(ranks) > 1 and not told else ""
    capped = f" (under {cage.words})" if cage is not None and not cage.exact else ""
    if first.end is not None:
        outcome = first.end["outcome"]
        return outcome, f"{prefix}{first.end['reason']}{capped if outcome == 'oom' else ''}"
    code = first.process.exitcode
    if code == -signal.SIGKILL:
        why = (cage.why_killed() if cage is not None else None) or kills.why()
        if why is not None:
            return "oom", f"the kernel killed rank {ranks.index(first)}: {why}"
        hint = "; the kernel kills so when memory is out, but its count of such kills did not rise"
        return "crashed", f"{prefix}the process was ended by SIGKILL{hint}"
    # A library that gets no memory in a thread of its own, or before Python runs, ends the process with these words.
    sign = find_sign(_tail(first.stderr))
    if sign is not None:
        return "oom", f"{prefix}{sign}{capped}"
    if code is not None and code < 0:
        return "crashed", f"{prefix}the process was ended by {signal.Signals(-code).name}"
    return "crashed", f"{prefix}the process ended with status {code} and no word"


def _timeout_s(cell: Cell, job: Job) -> float:
    """When a cell is ended; a training in pieces stops by itself before that."""
    pieces = job.pieces if isinstance(job, FineTuneJob) else None
    return cell.config.limits.timeout_s if pieces is None else pieces.timeout_s


def _tail(path: Path) -> str:
    return path.read_bytes()[-_TAIL_BYTES:].decode(errors="replace") if path.exists() else ""


def _cuda_cap(cell: Cell) -> Cap | None:
    """The cap that a GPU cell's worker sets: torch's allocator holds to it, the CUDA context comes on top."""
    limit = cell.config.limits.memory_limit_gib
    if limit is None:
        return None
    return Cap(limit_bytes=int(limit * _GIB), method="cuda_fraction", exact=False, peak_bytes=None, num_oom_kills=None)


def blank_record(cell: Cell, around: Surroundings, outcome: str, reason: str | None) -> Record:
    """A record of a cell for which no process was started."""
    return Record.model_validate(
        {
            "harness_version": __version__,
            "study": cell.study,
            "cell": cell.name,
            "repeat": cell.repeat,
            "rung": cell.rung,
            "config": cell.config,
            "config_hash": cell.config_hash,
            "outcome": outcome,
            "reason": scrub(reason) if reason else None,
            "started_at": datetime.now(UTC),
            "duration_s": 0.0,
            "phases": Phases(),
            "git": around.git,
            "packages": around.packages,
            "machine": around.machine,
            "stated": around.stated,
            "detected": around.detected,
            "load": None,
            "start_method": None,
        }
    )


def _phases(ranks: list[_Rank], prepared: Prepared) -> Phases:
    told: dict[str, Any] = {}
    for message in ranks[0].messages if ranks else []:
        told |= message
    trace, test = told.get("trace") or {}, told.get("test")
    return Phases(
        start_s=told.get("start_s"),
        load_s=told.get("load_s"),
        first_step_s=told.get("first_step_s"),
        train_s=trace.get("train_s"),
        evaluate_s=trace.get("evaluate_s"),
        test_s=test.evaluate_s if test else None,
        tokenise_s=prepared.tokenise_s,
    )


def _marks(ranks: list[_Rank]) -> tuple[Mark, ...]:
    told = [message for message in ranks[0].messages if message["kind"] == "mark"] if ranks else []
    return tuple(
        Mark(**{key: message[key] for key in Mark.model_fields} | {"loss": _finite(message["loss"])})
        for message in told
    )


def _held_bytes(ranks: list[_Rank]) -> tuple[int, ...]:
    told = [message for message in ranks[0].messages if message["kind"] == "mark"] if ranks else []
    return tuple(num_bytes for message in told for num_bytes in message["held_bytes"])


def _baseline(end: dict[str, Any], peaks: tuple[PeakMemory, ...]) -> Baseline | None:
    found: Baseline | None = end.get("baseline")
    return found.model_copy(update={"peak_memory": found.peak_memory + peaks}) if found else None


def _finite(loss: float | None) -> float | None:
    return loss if loss is not None and math.isfinite(loss) else None


def _merge(ranks: list[_Rank], prepared: Prepared, cell: Cell, together: tuple[PeakMemory, ...]) -> Training | None:
    """Put the ranks' traces together: counts and losses summed, seconds kept by rank."""
    ends = [rank.end for rank in ranks]
    if not isinstance(cell.config, FineTuneConfig) or not ends or not all(end and "trace" in end for end in ends):
        return None
    config, told = cell.config, [end for end in ends if end]
    traces, first = [end["trace"] for end in told], told[0]
    num_samples = [sum(counts) for counts in zip(*(trace["num_samples"] for trace in traces), strict=True)]
    sums = [sum(parts) for parts in zip(*(trace["loss_sums"] for trace in traces), strict=True)]
    losses = [total / count for total, count in zip(sums, num_samples, strict=True)]
    return Training(
        world_size=len(ranks),
        threads_per_rank=first["num_threads"],
        global_batch_size=config.global_batch(len(ranks)),
        lr_peak=first["lr_peak"],
        num_updates_planned=first["num_updates_planned"],
        stopped_early=traces[0]["stopped_early"],
        steps=Steps(
            seconds=tuple(end["seconds"] for end in told),
            num_samples=tuple(num_samples),
            num_real_tokens=_summed(traces, "num_real_tokens"),
            num_padded_tokens=_summed(traces, "num_padded_tokens"),
            loss=tuple(_finite(loss) for loss in losses),
            clock=first["clock"],
            num_skipped=traces[0]["num_skipped"],
            num_token_pairs=_summed(traces, "num_token_pairs"),
        ),
        evaluations=tuple(traces[0]["evaluations"]),
        test=first["test"],
        peak_memory=(*(peak for end in told for peak in end["peaks"]), *together),
        example=prepared.example or Example(label=None, text=None, tokens=None, input_ids=None, attention_mask=()),
        torch_build=first["torch_build"],
        held_bytes=tuple(tuple(trace["held_bytes"]) for trace in traces),
        communication=first["communication"],
        compile_s=first["compile_s"],
        memory_parts=first.get("memory_parts"),
        attention_kernels=first.get("attention_kernels", ()),
        flops=_all_flops([end.get("flops") for end in told]),
        peak=_all_peaks([end.get("peak") for end in told]),
        pieces=first["pieces"],
        mistakes=most_confident(first["test"], prepared.read_texts),
        kept=first.get("kept"),
    )


def _all_flops(counts: list[FlopCount | None]) -> FlopCount | None:
    """Of all ranks together; None where one did not count."""
    known = [one for one in counts if one is not None]
    if len(known) < len(counts):
        return None
    by_operator: Counter[str] = Counter()
    for one in known:
        by_operator.update(one.by_operator)
    return FlopCount(
        by_operator=dict(by_operator),
        num_samples=sum(one.num_samples for one in known),
        num_padded_tokens=sum(one.num_padded_tokens for one in known),
        num_token_pairs=sum(one.num_token_pairs for one in known),
    )


def _all_peaks(peaks: list[CalibratedPeak | None]) -> CalibratedPeak | None:
    """Of all ranks, which multiplied at once; None where one did not."""
    known = [one for one in peaks if one is not None]
    if len(known) < len(peaks):
        return None
    copied = [one.copy_bytes_per_s for one in known if one.copy_bytes_per_s is not None]
    return known[0].model_copy(
        update={
            "flop_per_s": sum(one.flop_per_s for one in known),
            "copy_bytes_per_s": sum(copied) if len(copied) == len(known) else None,
        }
    )


def _summed(traces: list[dict[str, Any]], key: str) -> tuple[int, ...]:
    return tuple(sum(counts) for counts in zip(*(trace[key] for trace in traces), strict=True))


def _cpu_s(ends: list[dict[str, Any]]) -> float | None:
    """CPU seconds of all ranks; None when one did not live to tell."""
    told = [end["cpu_s"] for end in ends if "cpu_s" in end]
    return sum(told) if told and len(told) == len(ends) else None


def _checksum_mismatch(ends: list[dict[str, Any]]) -> str | None:
    sums = {end["checksum"] for end in ends if "checksum" in end}
    return f"the ranks' parameters differ at the end: checksums {sorted(sums)}" if len(sums) > 1 else None
