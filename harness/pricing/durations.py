"""Seconds that are paid for: training, whole runs, and runs with set-up and interruptions (pure)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from statistics import fmean

from harness.analysis.estimate import MIN_RUNS, Estimate, map_estimate, t_interval
from harness.analysis.summary import Summary
from harness.pricing import formulas
from harness.pricing.prices import Price
from harness.schema.assumptions import Assumptions, PriceBook, SpotTerms
from harness.schema.cells import FineTuneConfig
from harness.schema.record import Record
from harness.schema.training_record import Checkpoint

EXACT = "no interval: of measured seconds alone"
_CHECKPOINT_KEY = "prices.spot.checkpoint_s"


def train_seconds(summary: Summary, num_rows: float | None = None) -> Estimate | None:
    """Return the seconds of training, with the relative interval of the throughput.

    Args:
        summary: The summary.
        num_rows: Training rows to scale to, at the measured throughput and number of epochs; None for no scaling.
    """
    if summary.train_s is None:
        return None
    return with_speed_interval(summary, summary.train_s * row_factor(summary, num_rows))


def run_seconds(summary: Summary, num_rows: float | None = None) -> Estimate | None:
    """Return the seconds of set-up, training and evaluation together; None without training.

    Set-up or evaluation counts as 0 seconds if it was not measured.
    """
    fixed_s = (summary.setup_s or 0.0) + (summary.evaluate_s or 0.0)
    return map_estimate(train_seconds(summary, num_rows), lambda train_s: train_s + fixed_s)


def turnaround_seconds(summary: Summary, price: Price | None, book: PriceBook) -> Estimate | None:
    """Return the seconds from ordering a machine to the end of a run.

    The seconds of machine start-up and set-up are taken from `book`, and are 0 for the user's own machine. A spot
    machine may be interrupted (see `formulas.spot_seconds`). None without training, or if the run would never end.
    """
    plan, rental = price.plan if price else "on_demand", book.rental
    before_s = 0.0 if plan == "own" else rental.startup_s + rental.setup_s

    def turnaround(run_s: float) -> float | None:
        if plan != "spot":
            return before_s + run_s
        work_s = spot_seconds(run_s, book.spot)
        return None if work_s is None else before_s + work_s

    return map_estimate(run_seconds(summary, book.retraining.num_rows), turnaround)


def whole_dataset_seconds(summary: Summary) -> Estimate | None:
    """Return the seconds of training on all rows that the source has for training: epochs x rows / (samples/s)."""
    epochs, rate, data = num_epochs(summary), summary.samples_per_s, summary.data
    if epochs is None or data is None or rate is None:
        return None
    return with_speed_interval(summary, epochs * data.num_train_available / rate.value)


def with_speed_interval(summary: Summary, train_s: float) -> Estimate:
    """Return `train_s` with the relative interval of the summary's throughput."""
    rate = summary.samples_per_s
    if rate is None:
        return Estimate(train_s, None, None, EXACT)
    low = train_s * rate.value / rate.high if rate.high else None
    high = train_s * rate.value / rate.low if rate.low else None
    return replace(rate, value=train_s, low=low, high=high)


def row_factor(summary: Summary, num_rows: float | None) -> float:
    """Return `num_rows` divided by the measured number of training rows; 1 if either is None."""
    measured = num_train(summary)
    return 1.0 if num_rows is None or measured is None else num_rows / measured


def num_train(summary: Summary) -> int | None:
    """Return the number of training rows in the newest successful run; None if no run succeeded."""
    return None if summary.data is None else summary.data.train.num_rows


def num_epochs(summary: Summary) -> float | None:
    """Return the planned number of passes over the training rows; None if unknown.

    The number is `training.epochs`. With `training.max_steps` it is planned updates x global batch / training rows of
    the newest successful run.
    """
    if not isinstance(summary.config, FineTuneConfig):
        return None
    if summary.config.training.max_steps is None:
        return summary.config.training.epochs
    for record in reversed(summary.ok_records):
        if record.training is not None and record.data is not None:
            num_samples = record.training.num_updates_planned * record.training.global_batch_size
            return num_samples / record.data.train.num_rows
    return None


def spot_seconds(work_s: float, spot: SpotTerms) -> float | None:
    """Apply `formulas.spot_seconds` to the assumed interruptions and checkpoints."""
    return formulas.spot_seconds(
        work_s, spot.interruptions_per_hour, spot.checkpoint_every_s, spot.checkpoint_s, spot.restart_s
    )


def with_measured_checkpoints(assumed: Assumptions, records: Iterable[Record]) -> Assumptions:
    """Replace the default of `spot.checkpoint_s` by the measured value, unless the user's file sets it."""
    seconds = checkpoint_seconds(records)
    if seconds is None or _CHECKPOINT_KEY in assumed.set_by_user:
        return assumed
    spot = assumed.prices.spot.model_copy(update={"checkpoint_s": seconds})
    prices = assumed.prices.model_copy(update={"spot": spot})
    return assumed.model_copy(update={"prices": prices, "measured": assumed.measured | {_CHECKPOINT_KEY}})


def checkpoint_seconds(records: Iterable[Record]) -> float | None:
    """Return the highest of the mean seconds per checkpoint of each configuration and machine; None if not measured."""
    # Each checkpoint has a key, so that it counts once: a run's later records repeat the run's earlier segments.
    checkpoints: defaultdict[tuple[str, str], dict[tuple[object, ...], Checkpoint]] = defaultdict(dict)
    for record in records:
        for segment in record.training.pieces if record.training else ():
            for checkpoint in segment.checkpoints:
                if checkpoint.seconds is not None:
                    key = (segment.started_at, segment.host, checkpoint.num_updates)
                    checkpoints[record.config_hash, segment.machine][key] = checkpoint
    means = [fmean(checkpoint.seconds or 0.0 for checkpoint in group.values()) for group in checkpoints.values()]
    return max(means, default=None)


def prediction_rate(summary: Summary) -> Estimate | None:
    """Return the test evaluation's predictions per second, mean over runs, with a t interval for three or more runs."""
    tests = [record.test for record in summary.ok_records if record.test is not None]
    rates = [len(test.labels) / test.evaluate_s for test in tests if test.evaluate_s > 0]
    if len(rates) >= MIN_RUNS:
        return t_interval(rates, f"between {len(rates)} runs")
    return Estimate(sum(rates) / len(rates), None, None, EXACT) if rates else None
