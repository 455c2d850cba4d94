"""Seconds that were taken elsewhere, for pytest-benchmark's statistics."""

from __future__ import annotations

from statistics import median


class ReplayClock:
    """pytest-benchmark's timer, giving seconds that were taken inside a cell or a page and not around a call."""

    def __init__(self):
        self._readings = iter(())

    def load(self, seconds):
        self._readings = (reading for value in seconds for reading in (0.0, value))

    def __call__(self):
        return next(self._readings, 0.0)


def replay(benchmark, clock, seconds):
    """Give a benchmark, whose timer is `clock`, these seconds; print them too."""
    clock.load(seconds)
    benchmark.pedantic(lambda: None, rounds=len(seconds))
    print(f"\nmedian {median(seconds):.3g} s, {min(seconds):.3g} to {max(seconds):.3g} s, {len(seconds)} seen")
