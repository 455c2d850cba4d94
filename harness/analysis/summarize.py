"""Summarise records: group them by configuration and machine, and compute every figure over a group's runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

from harness.analysis.accuracy import estimate_score, scores_by_seed
from harness.analysis.estimate import Estimate
from harness.analysis.memory_growth import largest_growth, settled_memory_bytes
from harness.analysis.noise import noise_warnings
from harness.analysis.result_warnings import result_warnings
from harness.analysis.summary import CellKey, Summary
from harness.analysis.throughput import (
    ThroughputWindow,
    host_spread,
    measure_windows,
    throughput,
    widen_over_hosts,
    within_run_fraction,
)
from harness.schema.cells import BaselineConfig, FineTuneConfig, hash_config
from harness.schema.record import Record
from harness.schema.training_record import MemorySource, TestEvaluation, Training


def summarize(records: Iterable[Record]) -> list[Summary]:
    """Return one summary per machine and configuration, sorted by machine, then by first start."""
    groups: dict[CellKey, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record.started_at):
        groups[record.machine.id, hash_config(record.config, ignore=("seed",))].append(record)
    summaries = [_summarize_group(_newest_repeats(group)) for group in groups.values()]
    return sorted(summaries, key=lambda summary: (summary.machine_id, summary.records[0].started_at))


def peak_memory(record: Record, source: MemorySource) -> int | None:
    """Return the sum over ranks of one source's peak, in bytes; None if that source was not measured."""
    result = record.training or record.baseline
    peaks = [peak.num_bytes for peak in result.peak_memory if peak.source == source] if result else []
    return sum(peaks) if peaks else None


def seconds_to_target(run: Record) -> float | None:
    """Return the seconds from a cell's start to its target validation accuracy; None if not reached.

    The seconds include set-up, training and all validations up to the one that reached the target.
    """
    if run.training is None or not isinstance(run.config, FineTuneConfig):
        return None
    reached = _reach_target(run.training, run.config.training.target_accuracy)
    return None if reached is None else _sum_known(_setup_s(run), reached.train_s, reached.evaluate_s)


def _newest_repeats(group: Iterable[Record]) -> tuple[Record, ...]:
    """Keep the newest record of each (host, seed, repeat), from a group sorted by time."""
    newest: dict[tuple[str | None, int, int], Record] = {}
    for record in group:
        newest[record.machine.host, _seed(record), record.repeat] = record
    return tuple(sorted(newest.values(), key=lambda record: record.started_at))


def _seed(record: Record) -> int:
    return record.config.seed if isinstance(record.config, FineTuneConfig) else 0


def _summarize_group(records: tuple[Record, ...]) -> Summary:
    newest, runs = records[-1], [record for record in records if record.outcome == "ok"]
    failed = next((record for record in records if record.outcome != "ok"), None)
    facts = next((record.data for record in reversed(records) if record.data is not None), None)
    trainings = [run.training for run in runs if run.training is not None]
    windows = measure_windows(trainings)
    rate = widen_over_hosts(throughput(windows), host_spread(runs))
    tests = [(_seed(run), test) for run in runs if (test := _test_evaluation(run)) is not None]
    scores = scores_by_seed(runs)
    source, peak = _peak_memory_of_runs(newest.config, runs)
    target = newest.config.training.target_accuracy if isinstance(newest.config, FineTuneConfig) else None
    reached = [point for training in trainings if (point := _reach_target(training, target)) is not None]
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
        setup_s=_mean_known(_setup_s(run) for run in runs),
        train_s=_mean_known(run.baseline.train_s if run.baseline else run.phases.train_s for run in runs),
        evaluate_s=_mean_known(_sum_known(run.phases.evaluate_s, run.phases.test_s) for run in runs),
        epoch_s=facts.train.num_rows / rate.value if rate and facts else None,
        evaluation_samples_per_s=_mean_known(_evaluation_rate(test) for _, test in tests),
        accuracy=None if scores is None else estimate_score(scores),
        macro_f1=_mean_known(test.macro_f1 for _, test in tests),
        majority_accuracy=facts.test.majority_fraction if facts else None,
        target_accuracy=target,
        num_reached_target=len(reached) if target is not None and trainings else None,
        time_to_target_s=median(point.train_s for point in reached) if reached else None,
        evaluate_to_target_s=median(point.evaluate_s for point in reached) if reached else None,
        target_lost=any(point.lost_later for point in reached),
        mfu=None,
        noise=tuple(noise_warnings(runs, windows)),
        warnings=(),
    )
    return replace(summary, warnings=tuple(result_warnings(summary)))


def _test_evaluation(record: Record) -> TestEvaluation | None:
    result = record.training or record.baseline
    return result.test if result else None


def _mean_known(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _sum_known(*values: float | None) -> float | None:
    """Return the sum of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _setup_s(run: Record) -> float | None:
    """Return the seconds of starting, loading, tokenising and compiling."""
    compile_s = run.training.compile_s if run.training else None
    return _sum_known(run.phases.start_s, run.phases.load_s, run.phases.tokenise_s, compile_s)


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


@dataclass(frozen=True)
class _TargetReached:
    """The first validation of a run that reached the target accuracy.

    Attributes:
        train_s: Training seconds before this validation.
        evaluate_s: Seconds of all validations so far, this one included.
        lost_later: Whether a later validation was below the target.
    """

    train_s: float
    evaluate_s: float
    lost_later: bool


def _reach_target(training: Training, target: float | None) -> _TargetReached | None:
    for index, evaluation in enumerate(training.evaluations):
        if target is not None and evaluation.accuracy >= target:
            until, after = training.evaluations[: index + 1], training.evaluations[index + 1 :]
            evaluate_s = sum(validation.evaluate_s for validation in until)
            lost_later = any(validation.accuracy < target for validation in after)
            return _TargetReached(evaluation.train_s, evaluate_s, lost_later)
    return None
