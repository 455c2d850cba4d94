"""Raw steps to throughput, intervals and warnings (pure)."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean, median, stdev
from typing import Literal

from harness import memory_use
from harness.matrix import BaselineConfig, FineTuneConfig, hash_config, parse_device
from harness.record import (
    MemorySource,
    ModelFacts,
    Outcome,
    Record,
    TestEvaluation,
    Training,
)
from harness.settings import Precision, Trainable
from harness.throttle import throttle_warnings

# A GPU's dense peak in FLOP/s, by NVML's name and precision; None where it is not known.
PeakFlops = Callable[[str, Precision], float | None]

WARMUP_STEPS = 3
FEWEST_STEPS_WITH_WARMUP = 10
FEWEST_STEPS = 30
FEWEST_RUNS = 3  # from here on the spread between runs is known well enough to be the interval
MOST_BATCHES = 20
BASIS_ONE_RUN = "within one run: spread between runs unknown"
BASIS_TWO_RUNS = "within 2 runs, reaching over both: spread between runs hardly known"
LOW_MFU = 0.1
MOST_OTHERS_FRACTION = 0.05
MOST_STEAL_FRACTION = 0.01


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; low and high are None where one run gives no spread.

    Attributes:
        basis: What the interval covers, in words: "between 3 runs", "Wilson, 1,000 examples", ...
    """

    value: float
    low: float | None
    high: float | None
    basis: str


def value_of(estimate: Estimate | None) -> float | None:
    """The figure alone; None where there is none."""
    return None if estimate is None else estimate.value


def through(estimate: Estimate, value: Callable[[float], float]) -> Estimate:
    """An estimate through a function that grows with it."""
    low, high = (None if end is None else value(end) for end in (estimate.low, estimate.high))
    return Estimate(value(estimate.value), low, high, estimate.basis)


def map_estimate(estimate: Estimate | None, value: Callable[[float], float | None]) -> Estimate | None:
    """An estimate through a monotonic function, value and both ends in their order; None where the value has none."""
    if estimate is None or (middle := value(estimate.value)) is None:
        return None
    low, high = (None if end is None else value(end) for end in (estimate.low, estimate.high))
    if (low is not None and low > middle) or (high is not None and high < middle):
        low, high = high, low
    return Estimate(middle, low, high, estimate.basis)


@dataclass(frozen=True)
class Summary:
    """One configuration on one machine: all its runs (seeds and repeats), judged.

    Figures come from the runs that ended `ok`; each is None where not measured.

    Attributes:
        records: The newest record of each (host, seed, repeat), oldest first.
        outcome: `ok` when every run was; otherwise the first run's that was not.
        samples_per_s: Samples over the slowest rank's seconds, warm-up left out; of several hosts the interval reaches
            over all of them.
        padding_fraction: Share of computed tokens that was padding, warm-up left out.
        num_warmup_steps, num_measured_steps: Fewest of a run.
        num_updates, global_batch_size: Of the newest run.
        peak_memory_bytes: Largest over runs, of all ranks together.
        memory_growth: Bytes a step, after warm-up, of the run that grew most; of failed runs too, as far as they came.
        setup_s: Start, load, tokenising and compiling, which each run is charged in full, as if it ran alone.
        train_s, evaluate_s: Mean over runs; evaluate_s covers validation and test.
        epoch_s: Training seconds of one pass over the training rows, at the measured throughput.
        evaluation_samples_per_s: Mean over runs, of the test evaluation.
        majority_accuracy: What always answering the test set's commonest label would score.
        time_to_target_s: Training clock of the first validation to reach the target; median of runs that did.
        evaluate_to_target_s: Seconds of the validations up to and with that one; median of the same runs.
        target_lost: A later validation fell below the target again.
        mfu: Share of the GPU's dense peak at the cell's precision (filled by `with_mfu`), None on a CPU.
        warnings: One sentence each.
    """

    machine_id: str
    study: str
    cell: str
    config: FineTuneConfig | BaselineConfig
    records: tuple[Record, ...]
    outcome: Outcome
    reason: str | None
    num_ok: int
    samples_per_s: Estimate | None
    real_tokens_per_s: float | None
    padding_fraction: float | None
    step_s_median: float | None
    num_warmup_steps: int | None
    num_measured_steps: int | None
    num_updates: int | None
    global_batch_size: int | None
    peak_memory_bytes: int | None
    peak_memory_source: str | None
    memory_growth: Estimate | None
    setup_s: float | None
    train_s: float | None
    evaluate_s: float | None
    epoch_s: float | None
    evaluation_samples_per_s: float | None
    accuracy: Estimate | None
    macro_f1: float | None
    majority_accuracy: float | None
    target_accuracy: float | None
    num_reached_target: int | None
    time_to_target_s: float | None
    evaluate_to_target_s: float | None
    target_lost: bool
    mfu: float | None
    warnings: tuple[str, ...]

    @property
    def kind(self) -> Literal["fine_tune", "baseline"]:
        """What was run."""
        return self.config.kind

    @property
    def ok_records(self) -> tuple[Record, ...]:
        """The runs that the figures come from."""
        return tuple(record for record in self.records if record.outcome == "ok")


@dataclass(frozen=True)
class HostSpread:
    """What several hosts of one kind of machine show on one cell.

    Attributes:
        samples_per_s: Mean of the hosts' own means; Student's interval between them from 3 hosts on, None of 2.
        least, most: The slowest and the fastest host's mean.
    """

    num_hosts: int
    samples_per_s: Estimate
    least: float
    most: float


@dataclass(frozen=True)
class Window:
    """One run's measured steps: what is left after warm-up, on the clock of its slowest rank.

    Attributes:
        seconds: Of that rank, by step.
    """

    num_warmup: int
    seconds: tuple[float, ...]
    num_samples: tuple[int, ...]
    num_real_tokens: tuple[int, ...]
    num_padded_tokens: tuple[int, ...]

    @property
    def samples_per_s(self) -> float:
        """All samples over all seconds; the mean of the steps' rates would weigh fast steps too much."""
        return sum(self.num_samples) / sum(self.seconds)


def summarise(records: Iterable[Record]) -> list[Summary]:
    """Group records by machine and configuration, and judge each group; by machine, then first start."""
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record.started_at):
        groups[record.machine.id, hash_config(record.config, ignore=("seed",))].append(record)
    summaries = [_summarise_group(_newest(group)) for group in groups.values()]
    return sorted(summaries, key=lambda summary: (summary.machine_id, summary.records[0].started_at))


def with_mfu(summaries: Iterable[Summary], peak_flops: PeakFlops) -> list[Summary]:
    """Fill in `mfu` of cells on a GPU, and warn of those that do not load it."""
    filled = []
    for summary in summaries:
        mfu = _mean(measure_mfu(record, peak_flops) for record in summary.ok_records)
        warnings = summary.warnings
        if mfu is not None and mfu < LOW_MFU:
            share = f"At {mfu:.3f} of its peak the cell"
            warnings += (f"{share} does not load this GPU: do not choose hardware by it.",)
        filled.append(replace(summary, mfu=mfu, warnings=warnings))
    return filled


def warmup_steps(seconds: Sequence[float]) -> int:
    """Count the steps to leave out at a run's beginning: 3, but none of fewer than 10.

    Meanwhile caches fill, kernels are chosen and the allocator grows.

    Args:
        seconds: By step, the slowest rank's of each.
    """
    return WARMUP_STEPS if len(seconds) >= FEWEST_STEPS_WITH_WARMUP else 0


def measure_window(training: Training) -> Window | None:
    """Leave out the warm-up and take the slowest rank's clock; None without a step.

    Evaluations apart, each rank's steps tile its own clock, and its waiting for the others' gradients lies inside
    them. So the run lasted as long as the longest sum over one rank's steps. The sum of each step's longest rank
    would count again what one rank was late in a step and made up for in the next.
    """
    steps = training.steps
    if not steps.num_samples:
        return None
    first = warmup_steps([max(ranks) for ranks in zip(*steps.seconds, strict=True)])
    return Window(
        num_warmup=first,
        seconds=max((rank[first:] for rank in steps.seconds), key=sum),
        num_samples=steps.num_samples[first:],
        num_real_tokens=steps.num_real_tokens[first:],
        num_padded_tokens=steps.num_padded_tokens[first:],
    )


def throughput(windows: Sequence[Window]) -> Estimate | None:
    """Samples a second: the mean of the runs' own ratios; None without a run.

    Its interval is Student's between 3 runs or more. With fewer it is that of the batch means within each
    run; of two runs it is widened to reach over both.
    """
    if not windows:
        return None
    rates = [window.samples_per_s for window in windows]
    if len(rates) >= FEWEST_RUNS:
        return t_interval(rates, f"between {len(rates)} runs")
    spreads = [_ratio_variance(window) for window in windows]
    value, basis = fmean(rates), BASIS_ONE_RUN if len(rates) == 1 else BASIS_TWO_RUNS
    known = [spread for spread in spreads if spread is not None]
    if len(known) < len(spreads):
        return Estimate(value, None, None, basis)
    freedom = sum(num_batches - 1 for _, num_batches in known)
    half = _t_quantile(freedom) * math.sqrt(sum(squared for squared, _ in known)) / len(known)
    low, high = min(value - half, *rates, value), max(value + half, *rates, value)
    return Estimate(value, max(0.0, low), high, basis)


def host_spread(records: Iterable[Record]) -> HostSpread | None:
    """How far hosts of one kind differ; None unless two hosts or more ran well and are told apart."""
    rates: dict[str, list[float]] = defaultdict(list)
    for record in records:
        window = measure_window(record.training) if record.outcome == "ok" and record.training is not None else None
        if window is not None and record.machine.host is not None:
            rates[record.machine.host].append(window.samples_per_s)
    means = [fmean(found) for found in rates.values()]
    if len(means) < 2:  # noqa: PLR2004 - a spread needs two
        return None
    basis = f"between {len(means)} hosts"
    mean = t_interval(means, basis) if len(means) >= FEWEST_RUNS else Estimate(fmean(means), None, None, basis)
    return HostSpread(len(means), mean, min(means), max(means))


def over_hosts(rate: Estimate | None, spread: HostSpread | None) -> Estimate | None:
    """A speed whose interval holds what its hosts show: a type of machine is not ranked within their spread.

    Runs of one host say little of the next one, however many there are.
    """
    if rate is None or spread is None:
        return rate
    between = spread.samples_per_s
    ends = (rate.low, rate.high, between.low, between.high, spread.least, spread.most)
    known = [end for end in ends if end is not None]
    return Estimate(rate.value, min(known), max(known), f"{rate.basis}, reaching over {spread.num_hosts} hosts")


def t_interval(values: Sequence[float], basis: str, *, most: float = math.inf) -> Estimate:
    """Mean of two values or more and its 95 % interval by Student's t, cut off at 0 and at `most`."""
    value = fmean(values)
    half = _t_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Estimate(value, max(0.0, value - half), min(most, value + half), basis)


def wilson(share: float, num_examples: int) -> Estimate:
    """95 % Wilson interval of a share of examples that were right."""
    from scipy import stats

    interval = stats.binomtest(round(share * num_examples), num_examples).proportion_ci(method="wilson")
    return Estimate(share, float(interval.low), float(interval.high), f"Wilson, {num_examples:,} examples")


def ratio(one: Estimate, other: Estimate) -> Estimate:
    """`one` / `other` with a 95 % interval by first-order propagation, the two taken as independent.

    For q = a / b, Var(q) / q^2 = Var(a) / a^2 + Var(b) / b^2: relative half-widths add as squares. Low, a's low side
    meets b's high one; high, the other two. Without both intervals it has none, and none reaches below 0.
    """
    quotient, basis = one.value / other.value, "ratio of two figures taken as independent"
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return Estimate(quotient, None, None, "ratio of two figures, one of them without an interval")
    below = math.hypot((one.value - one.low) / one.value, (other.high - other.value) / other.value)
    above = math.hypot((one.high - one.value) / one.value, (other.value - other.low) / other.value)
    return Estimate(quotient, quotient * max(0.0, 1 - below), quotient * (1 + above), basis)


def clear(one: Estimate, other: Estimate) -> bool:
    """Whether two figures can be ranked: both have an interval, and these share no point."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return False
    return one.high < other.low or other.high < one.low


def peak_memory(record: Record, source: MemorySource) -> int | None:
    """Sum over ranks of one source's high-water marks, in bytes; None where that source was not read."""
    measured = record.training or record.baseline
    found = [peak.num_bytes for peak in measured.peak_memory if peak.source == source] if measured else []
    return sum(found) if found else None


def training_flops(
    model: ModelFacts, num_labels: int, num_samples: int, num_padded_tokens: int, *, trainable: Trainable
) -> float:
    """FLOPs of the matrix products of one training step; a multiply-add is two, a backward is two forwards.

    With hidden size h, feed-forward size i and n samples padded to L tokens, a layer's forward takes
    n L (8 h^2 + 4 h i + 4 h L): four projections, two feed-forward products, scores and their weighted sum.
    The head (pooler and classifier) takes n (2 h^2 + 2 h labels). A frozen encoder has no backward. Where the
    micro-batches of a step differ in length, L is their mean, which undercounts the squared term.
    """
    hidden, length = model.hidden_size, num_padded_tokens / num_samples
    per_token = 8 * hidden**2 + 4 * hidden * model.intermediate_size + 4 * hidden * length
    encoder = model.num_layers * num_padded_tokens * per_token
    head = num_samples * (2 * hidden**2 + 2 * hidden * num_labels)
    return (3 if trainable == "all" else 1) * encoder + 3 * head


def measure_mfu(record: Record, peak_flops: PeakFlops) -> float | None:
    """One run's FLOPs over what all its GPUs could have done in the same seconds; None on a CPU."""
    config, training, model = record.config, record.training, record.model
    if not isinstance(config, FineTuneConfig) or not _on_gpu(config) or not record.machine.gpus:
        return None
    window = measure_window(training) if training else None
    peak = peak_flops(record.machine.gpus[0].name, config.precision)
    if training is None or window is None or model is None or record.data is None or peak is None:
        return None
    num_labels = len(record.data.labels)
    flops = sum(
        training_flops(model, num_labels, samples, tokens, trainable=config.trainable)
        for samples, tokens in zip(window.num_samples, window.num_padded_tokens, strict=True)
    )
    return flops / (sum(window.seconds) * training.world_size * peak)


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
    windows = [window for window in map(measure_window, trainings) if window is not None]
    rate = over_hosts(throughput(windows), host_spread(runs))
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
        warnings=(),
    )
    return replace(summary, warnings=tuple(_warnings(summary)))


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


@functools.cache
def _t_quantile(freedom: int) -> float:
    from scipy import stats  # here, so that what asks for no interval runs where scipy is not installed

    return float(stats.t.ppf(0.975, freedom))


def _ratio_variance(window: Window) -> tuple[float, int] | None:
    """Variance of a run's ratio from batch means, and their number; None with fewer than two steps.

    Neighbouring steps are alike (turbo, other processes, lengths), so single steps would promise too much;
    contiguous batches of them hardly are.
    Var(R) = k / (k - 1) sum((samples_j - R seconds_j)^2) / (sum seconds)^2.
    """
    num_steps = len(window.seconds)
    if num_steps < 2:  # noqa: PLR2004
        return None
    num_batches = min(MOST_BATCHES, num_steps)
    ends = [num_steps * index // num_batches for index in range(num_batches + 1)]
    squared = 0.0
    for first, end in pairwise(ends):
        expected = window.samples_per_s * sum(window.seconds[first:end])
        squared += (sum(window.num_samples[first:end]) - expected) ** 2
    return num_batches / (num_batches - 1) * squared / sum(window.seconds) ** 2, num_batches


def _padding_fraction(windows: Sequence[Window]) -> float | None:
    computed = sum(sum(window.num_padded_tokens) for window in windows)
    return 1 - sum(sum(window.num_real_tokens) for window in windows) / computed if computed else None


def _peak(config: FineTuneConfig | BaselineConfig, runs: Sequence[Record]) -> tuple[MemorySource | None, int | None]:
    """The largest of the runs' peaks, and how that one was taken."""
    sources: tuple[MemorySource, ...] = ("cuda_reserved",) if _on_gpu(config) else ("control_group", "pss", "rss")
    found: tuple[MemorySource | None, int | None] = (None, None)
    for run in runs:
        known = ((source, size) for source in sources if (size := peak_memory(run, source)) is not None)
        best = next(known, None)
        if best is not None and (found[1] is None or best[1] > found[1]):
            found = best
    return found


def _held(record: Record) -> tuple[int, ...]:
    """Bytes that all ranks held after every step, warm-up left out; of a killed cell those of rank 0."""
    ranks = record.training.held_bytes if record.training else (record.held_bytes,)
    together = tuple(map(sum, zip(*ranks, strict=True)))
    return together[warmup_steps(together) :]


def _memory_growth(records: Sequence[Record]) -> Estimate | None:
    most = memory_use.most_growth([_held(record) for record in records])
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
    sampled = wilson(fmean(shares), len(tests[-1][1].labels))
    if len(shares) == 1:
        return sampled
    between = t_interval(shares, f"between {len(shares)} seeds", most=1.0)
    return between if len(shares) >= FEWEST_RUNS else max(between, sampled, key=_width)


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


def _on_gpu(config: FineTuneConfig | BaselineConfig) -> bool:
    return isinstance(config, FineTuneConfig) and parse_device(config.device)[0] == "gpu"


def _warnings(summary: Summary) -> Iterator[str]:
    yield from _speed_warnings(summary)
    yield from _learning_warnings(summary)
    yield from _load_warnings(summary)
    yield from memory_use.memory_warnings(summary.records, [_held(record) for record in summary.records])
    yield from throttle_warnings(summary.ok_records)


def _speed_warnings(summary: Summary) -> Iterator[str]:
    num_steps = summary.num_measured_steps
    if num_steps is not None and num_steps < FEWEST_STEPS_WITH_WARMUP and summary.num_warmup_steps == 0:
        yield (
            f"Only {num_steps} steps ran, too few to leave warm-up out, so that throughput is understated: "
            f"raise training.max_steps or data.num_train until {FEWEST_STEPS} or more are measured."
        )
    elif num_steps is not None and num_steps < FEWEST_STEPS:
        yield (
            f"Only {num_steps} steps were measured after warm-up: raise training.max_steps or data.num_train "
            f"until {FEWEST_STEPS} or more are."
        )


def _learning_warnings(summary: Summary) -> Iterator[str]:
    accuracy, majority, config = summary.accuracy, summary.majority_accuracy, summary.config
    if not isinstance(config, FineTuneConfig):
        return
    if accuracy is not None and majority is not None and accuracy.value <= majority:
        yield (
            f"Test accuracy {accuracy.value:.3f} is not above the {majority:.3f} of always answering the "
            "commonest label: train longer, or try another training.lr."
        )
    trainings = [record.training for record in summary.ok_records if record.training is not None]
    # Random weights are there to measure speed: nobody asks whether they learn.
    if config.model.init == "pretrained" and any(_loss_stays(training.steps.loss) for training in trainings):
        yield (
            "The training loss did not fall from its first quarter to its last: "
            "try another training.lr, or train longer."
        )
    stopped = next((training for training in trainings if training.stopped_early), None)
    if stopped is not None:
        yield (
            f"Training stopped after {len(stopped.steps.num_samples)} of {stopped.num_updates_planned} "
            f"updates ({stopped.stopped_early}): raise limits.max_train_s before comparing its accuracy."
        )
    if summary.target_lost:
        yield (
            f"Validation reached the target {summary.target_accuracy:g} and later fell below it: "
            "confirm its time with more training.seeds."
        )


def _loss_stays(losses: Sequence[float | None]) -> bool:
    known = [loss for loss in losses if loss is not None]
    quarter = len(known) // 4
    return quarter > 0 and fmean(known[-quarter:]) >= fmean(known[:quarter])


def _load_warnings(summary: Summary) -> Iterator[str]:
    others = max((_others_fraction(record) for record in summary.ok_records), default=0.0)
    if others > MOST_OTHERS_FRACTION:
        yield f"Other processes used {others:.0%} of the usable CPU time: stop them, and run it with --force."
    steal = max((_steal_fraction(record) for record in summary.ok_records), default=0.0)
    if steal > MOST_STEAL_FRACTION:
        yield f"The hypervisor took {steal:.1%} of the CPU time: measure at another time, or on another host."


def _others_fraction(record: Record) -> float:
    """Share of the usable CPUs' time that went to processes not the harness's; 0 where it is not known."""
    load = record.load
    if load is None or load.system_busy_s is None or load.cell_s is None:
        return 0.0
    others_s = load.system_busy_s - load.cell_s - load.parent_s
    return others_s / (record.duration_s * record.machine.cpu.num_usable)


def _steal_fraction(record: Record) -> float:
    """Share of all logical CPUs' time, over which the system sums it; 0 where it is not known."""
    if record.load is None or record.load.steal_s is None:
        return 0.0
    return record.load.steal_s / (record.duration_s * record.machine.cpu.num_logical)
