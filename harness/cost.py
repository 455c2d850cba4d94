"""Summary x price to dollars: every formula stands here, once (pure)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from harness.matrix import FineTuneConfig, parse_device
from harness.prices import Price
from harness.statistics import Estimate, Summary

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class Priced:
    """A summary with its dollars; every figure is None where price or measurement is missing.

    Attributes:
        usd_per_1000_samples: Training alone, at the measured throughput, with the throughput's interval.
        usd_train, usd_setup, usd_evaluate: Mean of the runs; their sum is usd_per_run.
        usd_to_target: Set-up, training and validations up to the first validation that reached the target.
        usd_whole_dataset: Training one run's number of epochs on all rows the source has for training.
        usd_per_1000_samples_of_share: As `usd_per_1000_samples`, at the price of the GPUs in use alone (see `gpu_share`).
        missing: Why dollars are None, with what to give; None otherwise.
    """

    summary: Summary
    price: Price | None
    missing: str | None
    usd_per_1000_samples: Estimate | None
    usd_per_epoch: float | None
    usd_train: float | None
    usd_setup: float | None
    usd_evaluate: float | None
    usd_per_run: float | None
    usd_to_target: float | None
    usd_whole_dataset: float | None
    usd_per_1000_samples_of_share: Estimate | None = None


def price(summaries: Iterable[Summary], find_price: Callable[[Summary], Price | str]) -> list[Priced]:
    """Put dollars on summaries; `find_price` (see prices.py) gives a price or says why there is none."""
    return [_price_summary(summary, find_price(summary)) for summary in summaries]


def usd_of_seconds(usd_per_hour: float, seconds: float | None) -> float | None:
    """USD = USD/h / 3600 s/h x s; None without seconds."""
    return None if seconds is None else usd_per_hour / SECONDS_PER_HOUR * seconds


def usd_per_1000_samples(usd_per_hour: float, samples_per_s: Estimate) -> Estimate:
    """USD = USD/h / 3600 s/h x 1000 / (samples/s).

    The more samples a second, the fewer dollars: the interval's ends change places. Where throughput's low
    end is 0, dollars have no high end (None).
    """

    def usd(rate: float) -> float:
        return usd_per_hour / SECONDS_PER_HOUR * 1000 / rate

    low = usd(samples_per_s.high) if samples_per_s.high is not None else None
    high = usd(samples_per_s.low) if samples_per_s.low else None
    return Estimate(usd(samples_per_s.value), low, high, samples_per_s.basis)


def gpu_share(summary: Summary) -> tuple[int, int] | None:
    """How many of the machine's GPUs a cell used, and how many there are.

    None where it used all of them, none, or never ran: then there is one price alone, that of the whole machine.
    """
    if not isinstance(summary.config, FineTuneConfig) or parse_device(summary.config.device)[0] != "gpu":
        return None
    run = next((record for record in reversed(summary.ok_records) if record.training is not None), None)
    if run is None or run.training is None or run.training.world_size >= len(run.machine.gpus):
        return None
    return run.training.world_size, len(run.machine.gpus)


def usd_per_hour_of_share(usd_per_hour: float, num_used: int, num_gpus: int) -> float:
    """USD/h of the GPUs in use = USD/h of the machine x GPUs in use / GPUs of the machine.

    What they would cost if the others earned their own share; nobody rents a machine out that way by itself.
    """
    return usd_per_hour * num_used / num_gpus


def run_seconds(summary: Summary) -> float | None:
    """Seconds = set-up + training + evaluation.

    A phase that the run did not have counts 0; None without training.
    """
    if summary.train_s is None:
        return None
    return (summary.setup_s or 0.0) + summary.train_s + (summary.evaluate_s or 0.0)


def seconds_to_target(summary: Summary) -> float | None:
    """Seconds = set-up + training until a validation reached the target + the validations up to and with it.

    The validations count: the machine is paid for while they run, and without them nobody would know.
    None when no run reached the target.
    """
    if summary.time_to_target_s is None:
        return None
    return (summary.setup_s or 0.0) + summary.time_to_target_s + (summary.evaluate_to_target_s or 0.0)


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


def whole_dataset_seconds(summary: Summary) -> float | None:
    """Seconds = epochs x rows that the source has for training / (samples/s), training alone."""
    epochs, rate = num_epochs(summary), summary.samples_per_s
    data = next((record.data for record in reversed(summary.ok_records) if record.data is not None), None)
    if epochs is None or data is None or rate is None:
        return None
    return epochs * data.num_train_available / rate.value


def _price_summary(summary: Summary, found: Price | str) -> Priced:
    if isinstance(found, str):
        return Priced(summary, None, found, None, None, None, None, None, None, None, None)

    def usd(seconds: float | None) -> float | None:
        return usd_of_seconds(found.usd_per_hour, seconds)

    rate, share = summary.samples_per_s, gpu_share(summary)
    return Priced(
        summary=summary,
        price=found,
        missing=None,
        usd_per_1000_samples=usd_per_1000_samples(found.usd_per_hour, rate) if rate else None,
        usd_per_epoch=usd(summary.epoch_s),
        usd_train=usd(summary.train_s),
        usd_setup=usd(summary.setup_s),
        usd_evaluate=usd(summary.evaluate_s),
        usd_per_run=usd(run_seconds(summary)),
        usd_to_target=usd(seconds_to_target(summary)),
        usd_whole_dataset=usd(whole_dataset_seconds(summary)),
        usd_per_1000_samples_of_share=(
            usd_per_1000_samples(usd_per_hour_of_share(found.usd_per_hour, *share), rate) if rate and share else None
        ),
    )
