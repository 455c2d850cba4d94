"""Verdicts on learning curves: rising, flat, or not to be settled by these runs."""

from __future__ import annotations

import pytest

from harness.analysis.curve_planning import MoreNeeded
from harness.analysis.estimate import Estimate
from harness.decision.curve_verdict import Trend, is_settled, judge_curve, trend_of
from harness.decision.learning_curve import learning_curves
from tests.make_learning import curve_records
from tests.make_priced import priced


@pytest.mark.parametrize(
    ("low", "high", "trend"),
    [
        (0.001, 0.03, Trend.RISES),
        (0.0, 0.03, Trend.UNCLEAR),
        (0.0009, 0.0101, Trend.UNCLEAR),
        (0.0, 0.01, Trend.FLAT),
        (0.001, 0.01, Trend.RISES_SLOWLY),
    ],
)
def test_the_trend_follows_from_both_ends(low, high, trend):
    gain = Estimate((low + high) / 2, low, high, "")
    assert trend_of(gain) is trend
    assert is_settled(gain) is (trend is not Trend.UNCLEAR)


def test_curves_that_rise_and_that_are_flat():
    records = curve_records(laws={"head": (0.3, 0.0, 0.3)})
    whole, head, _ = (judge_curve(curve) for curve in learning_curves(priced(records)))
    assert whole.trend in (Trend.RISES, Trend.RISES_SLOWLY) and whole.more is None
    assert head.trend is Trend.FLAT


def test_an_unclear_curve_comes_with_what_would_settle_it():
    slow = curve_records(laws={"all": (0.2, 0.2, 0.1)})
    records = [one for one in slow if one.data.train.num_rows <= 2000 and getattr(one.config, "seed", 0) == 0]
    judged = judge_curve(learning_curves(priced(records))[0])
    assert judged.trend is Trend.UNCLEAR
    assert judged.more != MoreNeeded()


def test_no_verdict_without_a_fit():
    records = [record for record in curve_records() if record.data.train.num_rows <= 1000]
    assert judge_curve(learning_curves(priced(records))[0]) is None
