"""A timer that passes times measured elsewhere to pytest-benchmark's statistics."""

from __future__ import annotations

from statistics import median


class ReplayClock:
    """A timer for pytest-benchmark that returns times measured inside a cell or a page, not around a call."""

    def __init__(self):
        self._readings = iter(())

    def load(self, seconds):
        self._readings = (reading for value in seconds for reading in (0.0, value))

    def __call__(self):
        return next(self._readings, 0.0)


def replay(benchmark, clock, seconds):
    """Pass seconds to a benchmark whose timer is `clock`, and print their median and range."""
    clock.load(seconds)
    benchmark.pedantic(lambda: None, rounds=len(seconds))
    print(f"\nmedian {median(seconds):.3g} s, {min(seconds):.3g} to {max(seconds):.3g} s, {len(seconds)} seen")
