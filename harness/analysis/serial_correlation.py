"""Correlation of a machine's runs in time, and what it does to the mean of several runs and its variance.

A machine's speed drifts, so runs that follow each other are alike. Their spread then understates how far the mean of a
few runs is from the machine's mean. A few repeats can't show the correlation, so it is assumed from long series.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.analysis.log_ratio import FloatArray
from harness.schema.record import Record

# Two runs whose starts are d seconds apart have the correlation DRIFT_SHARE * exp(-d / DRIFT_S). Source: 2 x 50 runs of
# two cells in 4.5 hours (results/reference/amd-epyc-2c-24g-dbbbf2/coverage), restricted maximum likelihood of the
# logarithms of their speeds, one drift for both cells: 0.76 and 65 s. Constants up to 250 s are within 1.5 of the
# maximum's log-likelihood; without correlation it is 15 lower.
DRIFT_SHARE = 0.75
DRIFT_S = 65.0


@dataclass(frozen=True)
class RunStart:
    """Where and when a run started.

    Attributes:
        host: Key of the host; runs on different hosts are independent.
        at_s: Start in seconds, from any common zero.
    """

    host: str
    at_s: float


@dataclass(frozen=True)
class CorrelatedMean:
    """What the correlation of n values of equal variance does to their mean and their sample variance.

    With R the correlation matrix and M = I - 1 1' / n, so that s^2 = y' M y / (n - 1):

    Attributes:
        variance_factor: Variance of the mean over the variance of a value, 1' R 1 / n^2; 1 / n if independent.
        sample_factor: Expected s^2 over the variance of a value, tr(M R) / (n - 1); 1 if independent.
        degrees_of_freedom: Of s^2: tr(M R)^2 / tr(M R M R), from its variance under normality; n - 1 if independent.
    """

    variance_factor: float
    sample_factor: float
    degrees_of_freedom: float


def run_start(record: Record) -> RunStart:
    """Return where and when a record's run started."""
    return RunStart(f"{record.machine.id}/{record.machine.host}", record.started_at.timestamp())


def correlation_matrix(starts: Sequence[RunStart]) -> FloatArray:
    """Return the assumed correlation of the runs' speeds, shape `(num_runs, num_runs)`."""
    at_s = np.array([start.at_s for start in starts])
    hosts = np.array([start.host for start in starts])
    matrix = DRIFT_SHARE * np.exp(-np.abs(at_s[:, None] - at_s) / DRIFT_S) * (hosts[:, None] == hosts)
    np.fill_diagonal(matrix, 1.0)
    return np.asarray(matrix, dtype=float)


def correlated_mean(correlation: FloatArray) -> CorrelatedMean:
    """Return the factors of the mean and the sample variance of correlated values.

    Source: the expectation and variance of quadratic forms, e.g. S. R. Searle, "Linear models" (1971), 2.5; degrees of
    freedom as by F. E. Satterthwaite, Biometrics Bulletin 2 (1946), 110-114.

    Args:
        correlation: Correlation matrix of two or more values, shape `(num_values, num_values)`.
    """
    num = len(correlation)
    centered = correlation - correlation.mean(axis=0)  # M R
    trace = float(np.trace(centered))
    return CorrelatedMean(
        variance_factor=float(correlation.sum()) / num**2,
        sample_factor=trace / (num - 1),
        degrees_of_freedom=trace**2 / float(np.sum(centered * centered.T)),
    )


def variance_of_mean(values: Sequence[float], correlation: FloatArray) -> tuple[float, float]:
    """Estimate the variance of the mean of two or more correlated values, with its degrees of freedom.

    The variance is s^2 / `sample_factor` x `variance_factor`, which is s^2 / n for independent values.
    """
    factors = correlated_mean(correlation)
    sample_variance = float(np.var(values, ddof=1))
    return sample_variance / factors.sample_factor * factors.variance_factor, factors.degrees_of_freedom
