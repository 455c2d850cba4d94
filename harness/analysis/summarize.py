"""Records to summaries: every figure of a cell over its runs (pure)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

from harness.analysis import memory_growth as memory_use
from harness.analysis.estimate import MIN_RUNS, Estimate, t_interval, wilson_interval
from harness.analysis.memory_growth import settled_memory_bytes
from harness.analysis.noise import noise_warnings
from harness.analysis.result_warnings import result_warnings
from harness.analysis.summary import Summary
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
    """Group records by machine and configuration, and judge each group; by machine, then first start."""
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record.started_at):
        groups[record.machine.id, hash_config(record.config, ignore=("seed",))].append(record)
    summaries = [_summarise_group(_newest(group)) for group in groups.values()]
    return sorted(summaries, key=lambda summary: (summary.machine_id, summary.records[0].started_at))


def peak_memory(record: Record, source: MemorySource) -> int | None:
    """Sum over ranks of one source's high-water marks, in bytes; None where that source was not read."""
    measured = record.training or record.baseline
    found = [peak.num_bytes for peak in measured.peak_memory if peak.source == source] if measured else []
    return sum(found) if found else None


def _newest(group: Iterable[Record]) -> tuple[Record, ...]:
    """Keep the last of each (host, seed, repeat) in a group that is ordered by time."""
    kept: dict[tuple[str | None, int, int], Record] = {}
    for record in group:
        kept[record.machine.host, _seed(record), record.repeat] = record
    return tuple(sorted(kept.values(), key=lambda record: record.started_at))


def _seed(record: Record) -> int:
    return record.config.seed if isinstance(record.config, FineTuneConfig) else 0


def _summarise_group(records: tuple[Record, ...]) -> Summary:
    newest, runs = records[-1], [record for record in records if record.outcome == "ok"]
    failed = next((record for record in records if record.outcome != "ok"), None)
    facts = next((record.data for record in reversed(records) if record.data is not None), None)
    trainings = [run.training for run in runs if run.training is not None]
    windows = measure_windows(trainings)
    rate = widen_over_hosts(throughput(windows), host_spread(runs))
    tests = [(_seed(run), test) for run in runs if (test := _test(run)) is not None]
    source, peak = _peak(newest.config, runs)
    target = newest.config.training.target_accuracy if isinstance(newest.config, FineTuneConfig) else None
    reached = [found for training in trainings if (found := _reach_target(training, target)) is not None]
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
        real_tokens_per_s=_mean(sum(window.num_real_tokens) / sum(window.seconds) for window in windows),
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
        setup_s=_mean(_setup_s(run) for run in runs),
        train_s=_mean(run.baseline.train_s if run.baseline else run.phases.train_s for run in runs),
        evaluate_s=_mean(_total(run.phases.evaluate_s, run.phases.test_s) for run in runs),
        epoch_s=facts.train.num_rows / rate.value if rate and facts else None,
        evaluation_samples_per_s=_mean(_evaluation_rate(test) for _, test in tests),
        accuracy=_accuracy(tests),
        macro_f1=_mean(test.macro_f1 for _, test in tests),
        majority_accuracy=facts.test.majority_fraction if facts else None,
        target_accuracy=target,
        num_reached_target=len(reached) if target is not None and trainings else None,
        time_to_target_s=median(found.train_s for found in reached) if reached else None,
        evaluate_to_target_s=median(found.evaluate_s for found in reached) if reached else None,
        target_lost=any(found.lost for found in reached),
        mfu=None,
        noise=tuple(noise_warnings(runs, windows)),
        warnings=(),
    )
    return replace(summary, warnings=tuple(result_warnings(summary)))


def _test(record: Record) -> TestEvaluation | None:
    measured = record.training or record.baseline
    return measured.test if measured else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _total(*seconds: float | None) -> float | None:
    """Sum of the phases that there were; None when there was none."""
    known = [value for value in seconds if value is not None]
    return sum(known) if known else None


def _setup_s(run: Record) -> float | None:
    compile_s = run.training.compile_s if run.training else None
    return _total(run.phases.start_s, run.phases.load_s, run.phases.tokenise_s, compile_s)


def seconds_to_target(run: Record) -> float | None:
    """From a cell's order to its target on validation: set-up, training and validations; None where it was not reached."""
    if run.training is None or not isinstance(run.config, FineTuneConfig):
        return None
    reached = _reach_target(run.training, run.config.training.target_accuracy)
    return None if reached is None else _total(_setup_s(run), reached.train_s, reached.evaluate_s)


def _padding_fraction(windows: Sequence[ThroughputWindow]) -> float | None:
    computed = sum(sum(window.num_padded_tokens) for window in windows)
    return 1 - sum(sum(window.num_real_tokens) for window in windows) / computed if computed else None


def _peak(config: FineTuneConfig | BaselineConfig, runs: Sequence[Record]) -> tuple[MemorySource | None, int | None]:
    """The largest of the runs' peaks, and how that one was taken."""
    sources: tuple[MemorySource, ...] = ("cuda_reserved",) if config.on_gpu else ("control_group", "pss", "rss")
    found: tuple[MemorySource | None, int | None] = (None, None)
    for run in runs:
        known = ((source, size) for source in sources if (size := peak_memory(run, source)) is not None)
        best = next(known, None)
        if best is not None and (found[1] is None or best[1] > found[1]):
            found = best
    return found


def _memory_growth(records: Sequence[Record]) -> Estimate | None:
    most = memory_use.largest_growth([settled_memory_bytes(record) for record in records])
    if most is None:
        return None
    return Estimate(most.value, most.low, most.high, "batch means over the steps of one run")


def _evaluation_rate(test: TestEvaluation) -> float | None:
    return len(test.labels) / test.evaluate_s if test.evaluate_s > 0 else None


def _accuracy(tests: Sequence[tuple[int, TestEvaluation]]) -> Estimate | None:
    """Mean over seeds of the test accuracy.

    Repeats of one seed are averaged first, since they say nothing of the seeds' spread. One seed has the
    Wilson interval of its test examples, three or more have Student's between them, two the wider of both.
    """
    by_seed: dict[int, list[float]] = defaultdict(list)
    for seed, test in tests:
        by_seed[seed].append(test.accuracy)
    if not by_seed:
        return None
    shares = [fmean(found) for found in by_seed.values()]
    sampled = wilson_interval(fmean(shares), len(tests[-1][1].labels))
    if len(shares) == 1:
        return sampled
    between = t_interval(shares, f"between {len(shares)} seeds", upper_bound=1.0)
    return between if len(shares) >= MIN_RUNS else max(between, sampled, key=_width)


def _width(estimate: Estimate) -> float:
    return (estimate.high or 0.0) - (estimate.low or 0.0)


@dataclass(frozen=True)
class _Reached:
    """One run's first validation at or above the target."""

    train_s: float
    evaluate_s: float
    lost: bool


def _reach_target(training: Training, target: float | None) -> _Reached | None:
    for index, evaluation in enumerate(training.evaluations):
        if target is not None and evaluation.accuracy >= target:
            seen, later = training.evaluations[: index + 1], training.evaluations[index + 1 :]
            spent_s = sum(one.evaluate_s for one in seen)
            return _Reached(evaluation.train_s, spent_s, any(one.accuracy < target for one in later))
    return None
