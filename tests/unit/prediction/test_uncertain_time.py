"""Uncertain times: intervals, reasons, draws."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.prediction.uncertain_time import ErrorFactor, UncertainTime


def test_the_interval_adds_the_variances_of_all_factors():
    time = UncertainTime(10.0, (ErrorFactor("a", 0.3), ErrorFactor("b", 0.4)))
    estimate = time.estimate("datasheet")
    assert estimate.value == 10.0
    assert estimate.high == pytest.approx(10 * math.exp(1.959964 * 0.5))
    assert estimate.low == pytest.approx(10 / math.exp(1.959964 * 0.5))


def test_a_spread_of_few_gpus_widens_the_interval():
    time = UncertainTime(1.0, (ErrorFactor("a", 0.1, 4),))
    assert time.log_half_width() == pytest.approx(2.776445 * 0.1)
    # Welch's degrees of freedom of two equal variances with 4 each: 8.
    both = UncertainTime(1.0, (ErrorFactor("a", 0.1, 4), ErrorFactor("b", 0.1, 4)))
    assert both.log_half_width() == pytest.approx(2.306004 * math.sqrt(0.02))


def test_exact_seconds_have_no_width():
    assert UncertainTime(5.0, ()).log_half_width() == 0
    assert UncertainTime(5.0, (ErrorFactor("a", 0.0),)).estimate("x").high == 5.0


def test_reasons_begin_with_the_widest():
    factors = (ErrorFactor("a", 0.1, reason="small"), ErrorFactor("b", 0.2, reason="large"), ErrorFactor("c", 0.3))
    assert UncertainTime(1.0, (*factors, ErrorFactor("d", 0.0, reason="none"))).reasons == ("large", "small")


def test_draws_multiply():
    time = UncertainTime(2.0, (ErrorFactor("a", 0.5), ErrorFactor("b", 1.0)))
    drawn = time.at({"a": np.array([0.0, 2.0]), "b": np.array([0.0, -1.0]), "c": np.array([9.0, 9.0])})
    assert drawn == pytest.approx([2.0, 2.0])
    assert time.at({"a": np.array([2.0]), "b": np.array([1.0])}) == pytest.approx([2 * math.exp(2)])
