"""Summarise records: group them by configuration and machine, and compute every figure over a group's runs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

from harness.analysis.accuracy import estimate_score, scores_by_seed
from harness.analysis.estimate import MIN_RUNS, Estimate
from harness.analysis.memory_growth import largest_growth, settled_memory_bytes
from harness.analysis.noise import noise_warnings
from harness.analysis.result_warnings import result_warnings
from harness.analysis.run_spread import RunSpeed, RunSpread, assumed_spread, measured_spread
from harness.analysis.serial_correlation import RunStart, run_start
from harness.analysis.summary import CellKey, Summary
from harness.analysis.throughput import (
    ThroughputWindow,
    host_spread,
    measure_windows,
    throughput,
    widen_over_hosts,
    within_run_fraction,
)
from harness.analysis.time_to_target import seconds_per_success, setup_seconds, target_run
from harness.schema.cells import BaselineConfig, FineTuneConfig, hash_config
from harness.schema.record import Record
from harness.schema.training_record import MemorySource, TestEvaluation


def summarize(records: Iterable[Record], spread: RunSpread | None = None) -> list[Summary]:
    """Return one summary per machine and configuration, sorted by machine, then by first start.

    Args:
        records: The records.
        spread: Spread between runs, for cells with fewer than 3 runs, such as the user's own; None to measure each
            machine's over its repeats among `records`, or else to assume one.
    """
    groups: dict[CellKey, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record.started_at):
        groups[record.machine.id, hash_config(record.config, ignore=("seed",))].append(record)
    cells = [_measure(group) for group in groups.values()]
    measured = _measured_spreads(cells) if spread is None else {}
    other = spread or assumed_spread()
    summaries = [_summarize_cell(cell, measured.get(cell.machine_id, other)) for cell in cells]
    return sorted(summaries, key=lambda summary: (summary.machine_id, summary.records[0].started_at))


@dataclass(frozen=True)
class _CellRuns:
    """The runs of one cell.

    Attributes:
        records: The newest record of each (host, seed, repeat), oldest first.
        runs: Those that ended well.
        windows: Their measured steps, where they have any; `starts` says where and when each of these began.
        replicates: Comparable runs: on one host with one release of torch, replaced ones included.
    """

    machine_id: str
    records: tuple[Record, ...]
    runs: list[Record]
    windows: list[ThroughputWindow]
    starts: list[RunStart]
    replicates: list[list[RunSpeed]]


def _measure(group: Sequence[Record]) -> _CellRuns:
    """Measure the runs of one cell from its records, sorted by time."""
    records = _newest_repeats(group)
    runs = [record for record in records if record.outcome == "ok"]
    windows = _windows(runs)
    every = windows if len(records) == len(group) else _windows([run for run in group if run.outcome == "ok"])
    replicates: dict[tuple[str | None, str | None], list[RunSpeed]] = defaultdict(list)
    for run, window in every:
        speed = RunSpeed(run_start(run), math.log(window.samples_per_s))
        replicates[run.machine.host, run.packages.get("torch")].append(speed)
    return _CellRuns(
        machine_id=group[0].machine.id,
        records=records,
        runs=runs,
        windows=[window for _, window in windows],
        starts=[run_start(run) for run, _ in windows],
        replicates=list(replicates.values()),
    )


def _windows(runs: Sequence[Record]) -> list[tuple[Record, ThroughputWindow]]:
    timed = [(run, run.training) for run in runs if run.training is not None and run.training.steps.num_samples]
    windows = measure_windows([training for _, training in timed])
    return [(run, window) for (run, _), window in zip(timed, windows, strict=True)]


def _measured_spreads(cells: Sequence[_CellRuns]) -> dict[str, RunSpread]:
    """Return the spread between runs of each machine that has enough repeats."""
    by_machine: dict[str, list[list[RunSpeed]]] = defaultdict(list)
    for cell in cells:
        by_machine[cell.machine_id] += cell.replicates
    spreads = {machine_id: measured_spread(replicates) for machine_id, replicates in by_machine.items()}
    return {machine_id: spread for machine_id, spread in spreads.items() if spread is not None}


def peak_memory(record: Record, source: MemorySource) -> int | None:
    """Return the sum over ranks of one source's peak, in bytes; None if that source was not measured."""
    measured = record.measured
    peaks = [peak.num_bytes for peak in measured.peak_memory if peak.source == source] if measured else []
    return sum(peaks) if peaks else None


def _newest_repeats(group: Iterable[Record]) -> tuple[Record, ...]:
    """Keep the newest record of each (host, seed, repeat), from a group sorted by time."""
    newest: dict[tuple[str | None, int, int], Record] = {}
    for record in group:
        newest[record.machine.host, record.seed, record.repeat] = record
    return tuple(sorted(newest.values(), key=lambda record: record.started_at))


def _summarize_cell(cell: _CellRuns, spread: RunSpread) -> Summary:
    records, runs, windows = cell.records, cell.runs, cell.windows
    newest = records[-1]
    failed = next((record for record in records if record.outcome != "ok"), None)
    facts = next((record.data for record in reversed(records) if record.data is not None), None)
    trainings = [run.training for run in runs if run.training is not None]
    rate = widen_over_hosts(throughput(windows, cell.starts, spread), host_spread(runs))
    tests = [run.test for run in runs if run.test is not None]
    scores = scores_by_seed(runs)
    source, peak = _peak_memory_of_runs(newest.config, runs)
    judged = newest.config if isinstance(newest.config, FineTuneConfig) and newest.config.measure == "all" else None
    target = judged.training.target_accuracy if judged else None
    target_runs = [way for record in records if (way := target_run(record)) is not None]
    summary = Summary(
        machine_id=newest.machine.id,
        study=newest.study,
        cell=newest.cell,
        config=newest.config,
        records=records,
        outcome=failed.outcome if failed else "ok",
        reason=failed.reason if failed else None,
        num_ok=len(runs),
        samples_per_s=rate,
        run_spread=spread if 0 < len(windows) < MIN_RUNS else None,
        real_tokens_per_s=_mean_known(sum(window.num_real_tokens) / sum(window.seconds) for window in windows),
        within_run_fraction=within_run_fraction(windows),
        padding_fraction=_padding_fraction(windows),
        step_s_median=median(step_s for window in windows for step_s in window.seconds) if windows else None,
        num_warmup_steps=min((window.num_warmup for window in windows), default=None),
        num_measured_steps=min((len(window.seconds) for window in windows), default=None),
        num_updates=len(trainings[-1].steps.num_samples) if trainings else None,
        global_batch_size=trainings[-1].global_batch_size if trainings else None,
        peak_memory_bytes=peak,
        peak_memory_source=source,
        memory_growth=_memory_growth(records),
        setup_s=_mean_known(setup_seconds(run) for run in runs),
        train_s=_train_seconds(runs, rate),
        evaluate_s=_mean_known(_sum_known(run.phases.evaluate_s, run.phases.test_s) for run in runs),
        epoch_s=facts.train.num_rows / rate.value if rate and facts else None,
        evaluation_samples_per_s=_mean_known(_evaluation_rate(test) for test in tests),
        accuracy=None if scores is None else estimate_score(scores),
        macro_f1=_mean_known(test.macro_f1 for test in tests),
        majority_accuracy=facts.test.majority_fraction if facts else None,
        target_accuracy=target,
        num_reached_target=sum(way.is_reached for way in target_runs) if target_runs else None,
        num_missed_target=sum(not way.is_reached for way in target_runs) if target_runs else None,
        time_to_target_s=seconds_per_success(target_runs, rate),
        target_lost=any(way.is_lost for way in target_runs),
        mfu=None,
        noise=tuple(noise_warnings(runs, windows)),
        warnings=(),
    )
    return replace(summary, warnings=tuple(result_warnings(summary)))


def _train_seconds(runs: Sequence[Record], rate: Estimate | None) -> float | None:
    """Return the mean seconds of training; of runs that ended once their speed was known, those of the whole training."""
    training = next((run.training for run in reversed(runs) if run.training is not None), None)
    config = runs[-1].config if runs else None
    if rate and training and isinstance(config, FineTuneConfig) and config.limits.until is not None:
        return training.num_updates_planned * training.global_batch_size / rate.value
    return _mean_known(run.baseline.train_s if run.baseline else run.phases.train_s for run in runs)


def _mean_known(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _sum_known(*values: float | None) -> float | None:
    """Return the sum of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _padding_fraction(windows: Sequence[ThroughputWindow]) -> float | None:
    computed = sum(sum(window.num_padded_tokens) for window in windows)
    return 1 - sum(sum(window.num_real_tokens) for window in windows) / computed if computed else None


def _peak_memory_of_runs(
    config: FineTuneConfig | BaselineConfig, runs: Sequence[Record]
) -> tuple[MemorySource | None, int | None]:
    """Return the source and the bytes of the largest peak over runs; each run's peak is from its best source."""
    sources: tuple[MemorySource, ...] = ("cuda_reserved",) if config.on_gpu else ("control_group", "pss", "rss")
    largest: tuple[MemorySource | None, int | None] = (None, None)
    for run in runs:
        available = ((source, size) for source in sources if (size := peak_memory(run, source)) is not None)
        best = next(available, None)
        if best is not None and (largest[1] is None or best[1] > largest[1]):
            largest = best
    return largest


def _memory_growth(records: Sequence[Record]) -> Estimate | None:
    growth = largest_growth([settled_memory_bytes(record) for record in records])
    if growth is None:
        return None
    return Estimate(growth.value, growth.low, growth.high, "batch means over the steps of one run")


def _evaluation_rate(test: TestEvaluation) -> float | None:
    return len(test.labels) / test.evaluate_s if test.evaluate_s > 0 else None
