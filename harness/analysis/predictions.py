"""Hold a run against what it was predicted to take before it began."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from harness.analysis.estimate import Estimate, t_quantile
from harness.schema.record import Record

Z_999 = 3.2905  # quantile of the normal distribution: 99.9 % lie between its negative and itself


def predicted_seconds(record: Record) -> Estimate | None:
    """Return the predicted seconds of a run, with the 95 % interval; None if it was not predicted."""
    predicted = record.predicted
    if predicted is None:
        return None
    return Estimate(
        predicted.seconds, predicted.seconds_low, predicted.seconds_high, f"predicted from {predicted.basis}"
    )


def predicted_peak(record: Record) -> Estimate | None:
    """Return the predicted peak memory of a run in bytes, with the 95 % interval; None if it was not predicted."""
    predicted = record.predicted
    if predicted is None or predicted.peak_bytes is None:
        return None
    return Estimate(
        predicted.peak_bytes, predicted.peak_bytes_low, predicted.peak_bytes_high, f"predicted from {predicted.basis}"
    )


def prediction_warnings(records: Sequence[Record]) -> Iterator[str]:
    """Yield a warning for runs whose seconds are outside the interval that holds 99.9 % of predicted ones."""
    for record in records:
        predicted = predicted_seconds(record)
        if predicted is None or record.training is None or record.training.stopped_early:
            continue
        low, high = alarm_limits(predicted)
        if low <= record.duration_s <= high:
            continue
        yield (
            f"It took {record.duration_s:.3g} s where {predicted.value:.3g} s were predicted ({low:.3g} to {high:.3g} s in 99.9% of "
            "cases): other load, throttling or a fault; `harness doctor` looks for the first two."
        )


def alarm_limits(predicted: Estimate) -> tuple[float, float]:
    """Return the interval that holds 99.9 % of runs, from the predicted seconds with their 95 % interval."""
    if not predicted.low or not predicted.high:
        return 0.0, math.inf
    factor = (predicted.high / predicted.low) ** (Z_999 / (2 * t_quantile(math.inf)))
    return predicted.value / factor, predicted.value * factor
