"""Summary x price to dollars: how the formulas of formulas.py are applied to what was measured (pure)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from harness.analysis.estimate import MIN_RUNS, Estimate, map_estimate, t_interval
from harness.analysis.summary import CellKey, Summary
from harness.pricing import formulas
from harness.pricing.energy_cost import EnergyUse, energy_use
from harness.pricing.prices import Price
from harness.schema.assumptions import Assumptions, PriceBook, SpotTerms
from harness.schema.cells import FineTuneConfig

EXACT = "no interval: of measured seconds alone"


@dataclass(frozen=True)
class Priced:
    """A summary with its dollars; every figure is None where price or measurement is missing.

    Intervals are those of the speed of training; set-up and evaluation are taken as measured. All but the billed
    figures are of measured seconds alone.

    Attributes:
        usd_per_1000_samples: Training alone.
        usd_train, usd_setup, usd_evaluate: Mean of the runs; their sum is usd_per_run.
        usd_to_target: Set-up, training and validations up to the first validation that reached the target.
        usd_whole_dataset: Training one run's number of epochs on all rows the source has for training.
        usd_billed: A run from the order of a machine to its return, as the plan bills it (see `billed`).
        usd_billed_on_demand, usd_billed_spot: The same by these two plans, whichever is chosen.
        usd_per_accuracy_point: Billed USD for each hundredth of test accuracy above the TF-IDF baseline's.
        usd_per_month: Models made anew in a month, their trials, and idle hours where those are paid apart.
        usd_per_million_predictions: At the test evaluation's speed and the stated utilisation; the interval is between
            runs, of three or more.
        usd_per_1000_samples_of_share: As `usd_per_1000_samples`, at the price of the GPUs in use alone (see `gpu_share`).
        energy: Of one run; None where neither joules nor watts are known.
        missing: Why dollars are None, with what to give; None otherwise.
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
    def key(self) -> CellKey:
        """Identify this cell within a report, under any prices; `price` checks that no two share a key."""
        return self.summary.key


def price(
    summaries: Iterable[Summary],
    find_price: Callable[[Summary], Price | str],
    assumptions: Assumptions | None = None,
) -> list[Priced]:
    """Price each summary.

    Args:
        summaries: Summaries with distinct keys.
        find_price: Returns a summary's hourly price, or why it has none (see prices.py).
        assumptions: The user's assumptions; the defaults if None.
    """
    rows, assumed = list(summaries), assumptions or Assumptions()
    if len({row.key for row in rows}) < len(rows):
        raise ValueError("two summaries of one machine have the same configuration")
    return [
        _price_summary(row, find_price(row), assumed.prices, tfidf)
        for row, tfidf in zip(rows, tfidf_accuracies(rows), strict=True)
    ]


def usd_of_seconds(usd_per_hour: float, seconds: float | None) -> float | None:
    """See formulas.py."""
    return formulas.usd_of_seconds(usd_per_hour, seconds)


def usd_per_1000_samples(usd_per_hour: float, samples_per_s: Estimate) -> Estimate:
    """The more samples a second, the fewer dollars: the interval's ends change places.

    Where throughput's low end is 0, dollars have no high end (None).
    """

    def usd(rate: float | None) -> float | None:
        return formulas.usd_per_1000_samples(usd_per_hour, rate)

    return Estimate(
        usd(samples_per_s.value) or 0.0, usd(samples_per_s.high), usd(samples_per_s.low), samples_per_s.basis
    )


def gpu_share(summary: Summary) -> tuple[int, int] | None:
    """How many of the machine's GPUs a cell used, and how many there are.

    None where it used all of them, none, or never ran: then there is one price alone, that of the whole machine.
    """
    if not summary.config.on_gpu:
        return None
    run = next((record for record in reversed(summary.ok_records) if record.training is not None), None)
    if run is None or run.training is None or run.training.world_size >= len(run.machine.gpus):
        return None
    return run.training.world_size, len(run.machine.gpus)


def train_seconds(summary: Summary, num_rows: float | None = None) -> Estimate | None:
    """Seconds of training with the speed's interval: a slower speed takes longer in proportion.

    Args:
        summary: Any.
        num_rows: Training rows instead of those measured, at the same speed and number of epochs.
    """
    if summary.train_s is None:
        return None
    factor = _row_factor(summary, num_rows)
    return _with_speed(summary, summary.train_s * factor)


def run_seconds(summary: Summary, num_rows: float | None = None) -> Estimate | None:
    """Seconds = set-up + training + evaluation.

    A phase that the run did not have counts 0; None without training.
    """
    fixed = (summary.setup_s or 0.0) + (summary.evaluate_s or 0.0)
    return map_estimate(train_seconds(summary, num_rows), lambda seconds: seconds + fixed)


def waited_seconds(summary: Summary, price: Price | None, book: PriceBook) -> Estimate | None:
    """Seconds from the order of a machine to the end of a run: start-up and set-up as assumed, and what was measured.

    A spot machine may be lost (see `formulas.spot_seconds`); one's own is there already. None without training, or where
    the run would never end.
    """
    plan, rental = price.plan if price else "on_demand", book.rental
    before_s = 0.0 if plan == "own" else rental.startup_s + rental.setup_s

    def waited(seconds: float) -> float | None:
        if plan != "spot":
            return before_s + seconds
        work_s = _spot_seconds(seconds, book.spot)
        return None if work_s is None else before_s + work_s

    return map_estimate(run_seconds(summary, book.retraining.num_rows), waited)


def seconds_to_target(summary: Summary) -> Estimate | None:
    """Seconds = set-up + training until a validation reached the target + the validations up to and with it.

    The validations count: the machine is paid for while they run, and without them nobody would know.
    None when no run reached the target.
    """
    if summary.time_to_target_s is None:
        return None
    fixed = (summary.setup_s or 0.0) + (summary.evaluate_to_target_s or 0.0)
    return map_estimate(_with_speed(summary, summary.time_to_target_s), lambda seconds: seconds + fixed)


def _with_speed(summary: Summary, train_s: float) -> Estimate:
    rate = summary.samples_per_s
    if rate is None:
        return Estimate(train_s, None, None, EXACT)
    low = train_s * rate.value / rate.high if rate.high else None
    high = train_s * rate.value / rate.low if rate.low else None
    return Estimate(train_s, low, high, rate.basis)


def _row_factor(summary: Summary, num_rows: float | None) -> float:
    measured = num_train(summary)
    return 1.0 if num_rows is None or measured is None else num_rows / measured


def num_epochs(summary: Summary) -> float | None:
    """Passes over the training rows that one run plans.

    `training.epochs`; with `training.max_steps`, updates planned x global batch / training rows, and None
    without a run that measured them.
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


def whole_dataset_seconds(summary: Summary) -> Estimate | None:
    """Seconds = epochs x rows that the source has for training / (samples/s), training alone."""
    epochs, rate = num_epochs(summary), summary.samples_per_s
    data = summary.data
    if epochs is None or data is None or rate is None:
        return None
    return _with_speed(summary, epochs * data.num_train_available / rate.value)


def billed_cost(seconds: float, price: Price, book: PriceBook, plan: str) -> float | None:
    """USD of a run on the bill: a machine is ordered, set up, used for `seconds` and given back.

    Start-up and set-up are paid; a spot machine may be lost (see `formulas.spot_seconds`); the sum is at least the
    provider's minimum, rounded up to its unit; the whole machine is paid, whatever part of it worked. Of a machine
    of one's own each hour counts alike. None where the plan has no price, or the run would never end on spot machines.
    """
    others = {"on_demand": price.usd_per_hour_on_demand, "spot": price.usd_per_hour_spot}
    hourly = price.usd_per_hour if plan == price.plan else others.get(plan)
    if hourly is None:
        return None
    work_s = _spot_seconds(seconds, book.spot) if plan == "spot" else seconds
    if plan == "own" or work_s is None:
        return formulas.usd_of_seconds(hourly, work_s)
    before_s = book.rental.startup_s + book.rental.setup_s
    billed_s = formulas.billed_seconds(work_s, before_s, price.minimum_s, price.granularity_s)
    return formulas.usd_of_seconds(hourly, billed_s)


def _spot_seconds(seconds: float, spot: SpotTerms) -> float | None:
    return formulas.spot_seconds(
        seconds, spot.interruptions_per_hour, spot.checkpoint_every_s, spot.checkpoint_s, spot.restart_s
    )


def prediction_rate(summary: Summary) -> Estimate | None:
    """Predictions a second of the test evaluation; three runs or more have Student's interval, fewer none."""
    tests = [
        found.test
        for record in summary.ok_records
        if (found := record.training or record.baseline) is not None and found.test is not None
    ]
    rates = [len(test.labels) / test.evaluate_s for test in tests if test.evaluate_s > 0]
    if len(rates) >= MIN_RUNS:
        return t_interval(rates, f"between {len(rates)} runs")
    return Estimate(sum(rates) / len(rates), None, None, EXACT) if rates else None


def tfidf_accuracies(summaries: Iterable[Summary]) -> list[float | None]:
    """For each summary, test accuracy of the TF-IDF baseline that was judged on the same test set; None without one.

    Where several were, that of the most training rows counts.
    """
    rows = list(summaries)
    judged = [row for row in rows if row.classifier == "tfidf"]
    found = {
        row.test_sha256: row.accuracy.value
        for row in sorted(reversed(judged), key=lambda row: num_train(row) or 0)
        if row.accuracy is not None
    }
    return [found.get(row.test_sha256) for row in rows]


def num_train(summary: Summary) -> int | None:
    """Training rows of the newest run that ended well; None where none did."""
    return None if summary.data is None else summary.data.train.num_rows


def _energy(summary: Summary, book: PriceBook) -> EnergyUse | None:
    return energy_use(summary, book.energy, run_seconds(summary, book.retraining.num_rows), run_seconds(summary))


def _per_point(usd: Estimate | None, accuracy: Estimate | None, tfidf: float | None) -> Estimate | None:
    """The ends are the cheap end over the most points, and the dear end over the fewest."""
    if usd is None or accuracy is None or tfidf is None:
        return None

    def point(amount: float | None, reached: float | None) -> float | None:
        return None if amount is None or reached is None else formulas.usd_per_accuracy_point(amount, reached, tfidf)

    if (value := point(usd.value, accuracy.value)) is None:
        return None
    return Estimate(value, point(usd.low, accuracy.high), point(usd.high, accuracy.low), usd.basis)


def _price_summary(summary: Summary, found: Price | str, book: PriceBook, tfidf: float | None) -> Priced:
    if isinstance(found, str):
        return Priced(summary, None, found, energy=_energy(summary, book))
    hourly, num_rows = found.usd_per_hour, book.retraining.num_rows

    def usd(seconds: Estimate | float | None) -> Estimate | None:
        if isinstance(seconds, float | int):
            seconds = Estimate(seconds, None, None, EXACT)
        return map_estimate(seconds, lambda one: formulas.usd_of_seconds(hourly, one))

    def bill(plan: str) -> Estimate | None:
        return map_estimate(run_s, lambda one: billed_cost(one, found, book, plan))

    rate, share, run_s = summary.samples_per_s, gpu_share(summary), run_seconds(summary, num_rows)
    epoch_s = None if summary.epoch_s is None else summary.epoch_s * _row_factor(summary, num_rows)
    usd_billed, accuracy = bill(found.plan), summary.accuracy
    # What is committed or owned is paid for in every hour already.
    idle = 0.0 if found.plan in ("committed", "own") else book.rental.idle_hours_per_month * hourly
    return Priced(
        summary=summary,
        price=found,
        missing=None,
        usd_per_1000_samples=usd_per_1000_samples(hourly, rate) if rate else None,
        usd_per_epoch=usd(None if epoch_s is None else _with_speed(summary, epoch_s)),
        usd_train=usd(train_seconds(summary, num_rows)),
        usd_setup=usd(summary.setup_s),
        usd_evaluate=usd(summary.evaluate_s),
        usd_per_run=usd(run_s),
        usd_to_target=usd(seconds_to_target(summary)),
        usd_whole_dataset=usd(whole_dataset_seconds(summary)),
        usd_billed=usd_billed,
        usd_billed_on_demand=bill("on_demand"),
        usd_billed_spot=bill("spot"),
        usd_per_accuracy_point=_per_point(usd_billed, accuracy, tfidf),
        usd_per_month=map_estimate(
            usd_billed,
            lambda one: formulas.usd_per_month(one, book.retraining.per_month, book.retraining.trials_per_kept, idle),
        ),
        usd_per_million_predictions=map_estimate(
            prediction_rate(summary),
            lambda one: formulas.usd_per_million_predictions(hourly, one, book.serving.utilisation_fraction),
        ),
        usd_per_1000_samples_of_share=(
            usd_per_1000_samples(formulas.share(hourly, *share), rate) if rate and share else None
        ),
        energy=_energy(summary, book),
    )
