"""The spread between runs of one cell: stated by the user, measured over the report's repeats, or assumed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.analysis.serial_correlation import RunStart, correlation_matrix

# Standard deviation of the logarithm of a run's speed where nothing is known. On the reference machines it is 0.007 to
# 0.11 in cells of three runs or more, 0.09 over 100 runs; on a shared machine it can be several times as much.
ASSUMED = 0.10
# Repeats that a machine needs for a measured spread: with 6 the spread's own standard error is 29 %.
MIN_REPEATS = 6


@dataclass(frozen=True)
class RunSpread:
    """How much equal runs differ.

    Attributes:
        value: Standard deviation of the logarithm of a run's speed.
        degrees_of_freedom: Of `value`; infinite if it is stated or assumed.
        basis: Value and origin, as a phrase: "10 % between runs assumed".
    """

    value: float
    degrees_of_freedom: float
    basis: str


@dataclass(frozen=True)
class RunSpeed:
    """The logarithm of one run's samples per second, and where and when it was measured."""

    start: RunStart
    log_rate: float


def assumed_spread() -> RunSpread:
    """Return the spread to use where it is neither stated nor measured."""
    return RunSpread(ASSUMED, math.inf, _phrase(ASSUMED, "assumed"))


def stated_spread(fraction: float) -> RunSpread:
    """Return the spread that the user states, as a fraction."""
    return RunSpread(fraction, math.inf, _phrase(fraction, "stated"))


def measured_spread(cells: Iterable[Sequence[RunSpeed]]) -> RunSpread | None:
    """Pool the spread between the repeats of several cells; None with fewer than `MIN_REPEATS` repeats.

    Each cell contributes its squared deviations from its mean, and what these are expected to be under the correlation
    of its runs in time. The noise within runs is part of the spread.

    Args:
        cells: Runs of one configuration on one host each; cells with a single run have no effect.
    """
    squares = expected = variance = 0.0
    num_repeats = 0
    for runs in cells:
        if len(runs) < 2:  # noqa: PLR2004 - a spread needs two
            continue
        logs = np.array([run.log_rate for run in runs])
        correlation = correlation_matrix([run.start for run in runs])
        centered = correlation - correlation.mean(axis=0)
        squares += float(((logs - logs.mean()) ** 2).sum())
        expected += float(np.trace(centered))
        variance += float(np.sum(centered * centered.T))
        num_repeats += len(runs) - 1
    if num_repeats < MIN_REPEATS:
        return None
    value = math.sqrt(squares / expected)
    return RunSpread(value, expected**2 / variance, _phrase(value, f"measured over {num_repeats} repeats"))


def _phrase(value: float, origin: str) -> str:
    return f"{100 * value:.2g} % between runs {origin}"
