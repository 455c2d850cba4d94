"""Plans of more seeds and test examples that would settle an uncertain forecast."""

from __future__ import annotations

import dataclasses

import numpy as np

from harness.analysis.curve_planning import FACTORS, MoreNeeded, more_needed
from harness.analysis.measured_errors import MeasuredErrors
from harness.analysis.power_law import fit_power_law

SIZES = np.array([250, 500, 1000, 2000, 4000])


def measured_with(of_examples, of_seeds):
    """Make errors on a curve that gains a point from the last doubling."""
    error = 0.1 + 3.4 * SIZES**-0.5
    seeds = np.full(5, of_seeds)
    return MeasuredErrors(
        SIZES, error, np.eye(5) * of_examples + np.diag(seeds), seeds, np.full(5, 3), 1000, degrees_of_freedom=12
    )


def is_precise(gain):
    return gain.high - gain.low < 0.02


def test_more_seeds_are_asked_for_where_seeds_are_the_noise():
    more = more_needed(fit_power_law(measured_with(1e-6, 1e-4)), 8000, is_precise)
    assert more.seeds in FACTORS and more.examples is None and more.both is None


def test_more_test_examples_are_asked_for_where_they_are_the_noise():
    more = more_needed(fit_power_law(measured_with(1e-4, 1e-6)), 8000, is_precise)
    assert more.examples in FACTORS and more.seeds is None and more.both is None


def test_both_are_asked_for_where_neither_suffices():
    more = more_needed(fit_power_law(measured_with(1e-4, 1e-4)), 8000, is_precise)
    assert (more.seeds, more.examples) == (None, None) and more.both in FACTORS
    assert more_needed(fit_power_law(measured_with(1e-4, 1e-4)), 8000, lambda _: False) == MoreNeeded()
    assert more_needed(fit_power_law(measured_with(1e-4, 1e-4)), 8001, is_precise) == MoreNeeded()


def test_the_plan_is_precise_enough_with_a_margin():
    """The planned interval is 1.43 times narrower than needed, for a power of 80 %."""
    law = fit_power_law(measured_with(1e-4, 1e-6))
    widths = []
    more_needed(law, 8000, lambda gain: widths.append(gain.high - gain.low) or False)
    now = law.gain(8000)
    assert max(widths) > 0.5 * (now.high - now.low) and min(widths) < 0.5 * (now.high - now.low)


def test_single_runs_become_runs_of_known_variance():
    measured = dataclasses.replace(
        measured_with(1e-5, 0.0), num_seeds=np.ones(5, int), degrees_of_freedom=0, seed_variance=np.zeros(5)
    )
    more = more_needed(fit_power_law(measured), 8000, is_precise)
    assert more.seeds is not None
