"""Priced cells: measured seconds x hourly price, as dollars with intervals (pure)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from harness.analysis.estimate import Estimate, map_estimate
from harness.analysis.summary import CellKey, Summary
from harness.errors import Unavailable
from harness.pricing import durations, formulas
from harness.pricing.durations import EXACT
from harness.pricing.energy_cost import EnergyUse, energy_use
from harness.pricing.prices import Price
from harness.schema.assumptions import Assumptions, PriceBook


@dataclass(frozen=True)
class Priced:
    """A summary with its costs; a cost is None if its price or measurement is missing.

    `price` is that of one machine; every cost is that of all machines which the cell occupies. Intervals come from the training throughput; the seconds of set-up and evaluation count as exact. `usd_to_target` has
    its own. All costs but the billed ones cover the measured seconds only.

    Attributes:
        missing: Why there is no price and how to give one; None if there is a price.
        usd_per_1000_samples: Cost of training on 1,000 samples, without set-up and evaluation.
        usd_train, usd_setup, usd_evaluate: Means over the runs; `usd_per_run` is their sum.
        usd_to_target: Set-up, training and validations of all runs, for each run that reached the target (see
            `analysis.time_to_target.seconds_per_success`); None if none did.
        usd_whole_dataset: Cost of training on all rows that the source has for training.
        usd_billed: The provider's bill for a run, from ordering the machine to returning it (see `billed_cost`).
        usd_billed_on_demand, usd_billed_spot: `usd_billed` under the on-demand and the spot plan, whichever is chosen.
        usd_per_accuracy_point: Billed USD per percentage point of test accuracy above the TF-IDF baseline.
        usd_per_month: Cost of a month's retraining with its trials, and of idle hours if the plan charges them.
        usd_per_million_predictions: Cost at the test evaluation's speed and the assumed utilisation; its interval is
            between runs and needs three or more.
        usd_per_1000_samples_of_share: `usd_per_1000_samples` at the price of the GPUs in use only (see `gpu_share`).
        energy: Energy of one run; None if neither joules nor watts are known.
    """

    summary: Summary
    price: Price | None
    missing: str | None
    usd_per_1000_samples: Estimate | None = None
    usd_per_epoch: Estimate | None = None
    usd_train: Estimate | None = None
    usd_setup: Estimate | None = None
    usd_evaluate: Estimate | None = None
    usd_per_run: Estimate | None = None
    usd_to_target: Estimate | None = None
    usd_whole_dataset: Estimate | None = None
    usd_billed: Estimate | None = None
    usd_billed_on_demand: Estimate | None = None
    usd_billed_spot: Estimate | None = None
    usd_per_accuracy_point: Estimate | None = None
    usd_per_month: Estimate | None = None
    usd_per_million_predictions: Estimate | None = None
    usd_per_1000_samples_of_share: Estimate | None = None
    energy: EnergyUse | None = None

    @property
    def usd_per_hour(self) -> float | None:
        """Hourly price of all machines that the cell occupies; None without a price."""
        return None if self.price is None else formulas.usd_per_hour_of_nodes(self.price.usd_per_hour, self.num_nodes)

    @property
    def num_nodes(self) -> int:
        """Number of machines that the cell occupies."""
        return self.summary.config.num_nodes

    @property
    def key(self) -> CellKey:
        """Key of the cell, which does not depend on prices and is unique in a report."""
        return self.summary.key


def price(
    summaries: Iterable[Summary],
    find_price: Callable[[Summary], Price | Unavailable],
    assumptions: Assumptions | None = None,
) -> list[Priced]:
    """Price each summary.

    Args:
        summaries: Summaries with distinct keys.
        find_price: Returns a summary's hourly price (see prices.py).
        assumptions: The user's assumptions; the defaults if None.

    Raises:
        ValueError: If two summaries share a key.
    """
    rows, assumed = list(summaries), assumptions or Assumptions()
    if len({row.key for row in rows}) < len(rows):
        raise ValueError("two summaries of one machine have the same configuration")
    return [
        _price_summary(row, find_price(row), assumed.prices, tfidf_accuracy)
        for row, tfidf_accuracy in zip(rows, tfidf_accuracies(rows), strict=True)
    ]


def _price_summary(
    summary: Summary, price: Price | Unavailable, book: PriceBook, tfidf_accuracy: float | None
) -> Priced:
    """Compute every cost of a summary.

    Args:
        summary: The summary.
        price: Its machine's hourly price.
        book: The user's assumptions on prices.
        tfidf_accuracy: Test accuracy of the TF-IDF baseline on the same test set.
    """
    num_rows = book.retraining.num_rows
    run_s = durations.run_seconds(summary, num_rows)
    energy = energy_use(summary, book.energy, run_s, durations.run_seconds(summary))
    if isinstance(price, Unavailable):
        return Priced(summary, None, price.reason, energy=energy)
    num_nodes = summary.config.num_nodes
    hourly = formulas.usd_per_hour_of_nodes(price.usd_per_hour, num_nodes)

    def usd(seconds: Estimate | float | None) -> Estimate | None:
        if isinstance(seconds, float | int):
            seconds = Estimate(seconds, None, None, EXACT)
        return map_estimate(seconds, lambda value: formulas.usd_of_seconds(hourly, value))

    def billed(plan: str) -> Estimate | None:
        return map_estimate(run_s, lambda seconds: billed_cost(seconds, price, book, plan, num_nodes))

    rate, share, usd_billed = summary.samples_per_s, gpu_share(summary), billed(price.plan)
    return Priced(
        summary=summary,
        price=price,
        missing=None,
        usd_per_1000_samples=usd_per_1000_samples(hourly, rate) if rate else None,
        usd_per_epoch=usd(_epoch_seconds(summary, num_rows)),
        usd_train=usd(durations.train_seconds(summary, num_rows)),
        usd_setup=usd(summary.setup_s),
        usd_evaluate=usd(summary.evaluate_s),
        usd_per_run=usd(run_s),
        usd_to_target=usd(summary.time_to_target_s),
        usd_whole_dataset=usd(durations.whole_dataset_seconds(summary)),
        usd_billed=usd_billed,
        usd_billed_on_demand=billed("on_demand"),
        usd_billed_spot=billed("spot"),
        usd_per_accuracy_point=_usd_per_accuracy_point(usd_billed, summary.accuracy, tfidf_accuracy),
        usd_per_month=_usd_per_month(usd_billed, price, hourly, book),
        usd_per_million_predictions=map_estimate(
            durations.prediction_rate(summary),
            lambda value: formulas.usd_per_million_predictions(hourly, value, book.serving.utilisation_fraction),
        ),
        usd_per_1000_samples_of_share=(
            usd_per_1000_samples(formulas.share(hourly, *share), rate) if rate and share else None
        ),
        energy=energy,
    )


def _epoch_seconds(summary: Summary, num_rows: float | None) -> Estimate | None:
    if summary.epoch_s is None:
        return None
    return durations.with_speed_interval(summary, summary.epoch_s * durations.row_factor(summary, num_rows))


def _usd_per_month(usd_billed: Estimate | None, price: Price, usd_per_hour: float, book: PriceBook) -> Estimate | None:
    # The price of committed and own machines already includes idle hours.
    is_prepaid = price.plan in ("committed", "own")
    idle_usd = 0.0 if is_prepaid else book.rental.idle_hours_per_month * usd_per_hour
    runs_per_month, trials = book.retraining.per_month, book.retraining.trials_per_kept
    return map_estimate(usd_billed, lambda value: formulas.usd_per_month(value, runs_per_month, trials, idle_usd))


def _usd_per_accuracy_point(
    usd: Estimate | None, accuracy: Estimate | None, tfidf_accuracy: float | None
) -> Estimate | None:
    """Divide cost by accuracy gained: low = lowest cost / largest gain; high = highest cost / smallest gain."""
    if usd is None or accuracy is None or tfidf_accuracy is None:
        return None

    def per_point(amount: float | None, reached: float | None) -> float | None:
        if amount is None or reached is None:
            return None
        return formulas.usd_per_accuracy_point(amount, reached, tfidf_accuracy)

    if (value := per_point(usd.value, accuracy.value)) is None:
        return None
    return replace(usd, value=value, low=per_point(usd.low, accuracy.high), high=per_point(usd.high, accuracy.low))


def usd_per_1000_samples(usd_per_hour: float, samples_per_s: Estimate) -> Estimate:
    """Return USD per 1,000 samples; the high end is None if the throughput's low end is 0."""

    def usd(rate: float | None) -> float | None:
        return formulas.usd_per_1000_samples(usd_per_hour, rate)

    value = usd(samples_per_s.value) or 0.0
    return replace(samples_per_s, value=value, low=usd(samples_per_s.high), high=usd(samples_per_s.low))


def billed_cost(seconds: float, price: Price, book: PriceBook, plan: str, num_nodes: int = 1) -> float | None:
    """Return what the provider bills for a run, in USD.

    The bill covers machine start-up, set-up and spot interruptions (see `formulas.spot_seconds`), is rounded up to the
    provider's unit and minimum, and covers the whole machine. Hours of the user's own machine are billed as used.

    Args:
        seconds: Measured seconds of the run.
        price: The machine's price.
        book: The user's assumptions on prices.
        plan: Payment plan; it may differ from `price.plan`.
        num_nodes: Number of such machines that the run occupies; each is billed.

    Returns:
        USD; None if the plan has no price, or a run on spot machines would never end.
    """
    others = {"on_demand": price.usd_per_hour_on_demand, "spot": price.usd_per_hour_spot}
    hourly = price.usd_per_hour if plan == price.plan else others.get(plan)
    if hourly is None:
        return None
    hourly = formulas.usd_per_hour_of_nodes(hourly, num_nodes)
    work_s = durations.spot_seconds(seconds, book.spot) if plan == "spot" else seconds
    if plan == "own" or work_s is None:
        return formulas.usd_of_seconds(hourly, work_s)
    before_s = book.rental.startup_s + book.rental.setup_s
    billed_s = formulas.billed_seconds(work_s, before_s, price.minimum_s, price.granularity_s)
    return formulas.usd_of_seconds(hourly, billed_s)


def gpu_share(summary: Summary) -> tuple[int, int] | None:
    """Return how many GPUs a cell used and how many its machines have.

    None if the cell used all GPUs or none, or has no successful run.
    """
    if not summary.config.on_gpu:
        return None
    run = next((record for record in reversed(summary.ok_records) if record.training is not None), None)
    if run is None or run.training is None or run.training.world_size >= run.num_gpus:
        return None
    return run.training.world_size, run.num_gpus


def tfidf_accuracies(summaries: Iterable[Summary]) -> list[float | None]:
    """Return, for each summary, the TF-IDF baseline's accuracy on the same test set; None without one.

    If a test set has several TF-IDF baselines, the one with the most training rows counts.
    """
    rows = list(summaries)
    baselines = [row for row in rows if row.classifier == "tfidf"]
    # A dict keeps a key's last value, so sort by ascending number of rows, with the first summary last among equals.
    accuracies = {
        row.test_sha256: row.accuracy.value
        for row in sorted(reversed(baselines), key=lambda row: durations.num_train(row) or 0)
        if row.accuracy is not None
    }
    return [accuracies.get(row.test_sha256) for row in rows]
