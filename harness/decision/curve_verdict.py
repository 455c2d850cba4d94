"""What the forecast of a learning curve says: does it still rise, has it flattened, or can't the data tell (pure)?"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.analysis.curve_planning import MoreNeeded, more_needed
from harness.analysis.estimate import Estimate
from harness.decision.learning_curve import TWICE, LearningCurve
from harness.errors import Unavailable

MIN_RISE = 0.001  # accuracy that a doubling must gain at least for a curve to count as rising: a report's last digit
MAX_FLAT = 0.01  # accuracy that a doubling may gain at most for a curve to count as flat: a point


class Trend(StrEnum):
    """What twice the examples do, by the 95 % interval of the gain."""

    RISES = "rises"  # gains MIN_RISE or more, and perhaps more than MAX_FLAT
    RISES_SLOWLY = "rises slowly"  # gains MIN_RISE to MAX_FLAT
    FLAT = "flat"  # gains MAX_FLAT at most, and perhaps nothing
    UNCLEAR = "unclear"  # the interval reaches from less than MIN_RISE to more than MAX_FLAT


@dataclass(frozen=True)
class CurveVerdict:
    """The verdict on a curve.

    Attributes:
        more: What would probably settle an unclear trend; None for the others.
    """

    trend: Trend
    more: MoreNeeded | None


def trend_of(gain: Estimate) -> Trend:
    """Return the trend that the forecast gain of twice the examples shows."""
    low, high = gain.low or 0.0, gain.value if gain.high is None else gain.high
    if low >= MIN_RISE:
        return Trend.RISES_SLOWLY if high <= MAX_FLAT else Trend.RISES
    return Trend.FLAT if high <= MAX_FLAT else Trend.UNCLEAR


def is_settled(gain: Estimate) -> bool:
    """Return whether a forecast gain shows any trend but unclear."""
    return trend_of(gain) is not Trend.UNCLEAR


def judge_curve(curve: LearningCurve) -> CurveVerdict | None:
    """Return the verdict on a curve; None without a forecast."""
    end = TWICE * curve.largest.num_train
    gain = curve.law if isinstance(curve.law, Unavailable) else curve.law.gain(end)
    if isinstance(gain, Unavailable) or isinstance(curve.law, Unavailable):
        return None
    return CurveVerdict(trend_of(gain), None if is_settled(gain) else more_needed(curve.law, end, is_settled))
