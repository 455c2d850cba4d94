"""A predicted time whose error is a product of named factors, some of which it shares with other predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.analysis.estimate import Estimate, t_quantile
from harness.analysis.log_ratio import sum_variances


@dataclass(frozen=True)
class ErrorFactor:
    """One factor of a prediction's error: its logarithm has the mean 0.

    Attributes:
        name: Predictions that name the same factor share its value: that of a GPU model, or of an assumption.
        log_sd: Standard deviation of the logarithm.
        degrees_of_freedom: Of the standard deviation, for Student's t; infinite if it is assumed.
        reason: Why the factor widens the interval, as a clause; None for the spread between GPUs, which all predictions have.
    """

    name: str
    log_sd: float
    degrees_of_freedom: float = math.inf
    reason: str | None = None


@dataclass(frozen=True)
class UncertainTime:
    """Predicted seconds, with the factors of their error."""

    seconds: float
    factors: tuple[ErrorFactor, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the interval is wider than the spread between GPUs, the widest first."""
        widest = sorted(self.factors, key=lambda factor: -factor.log_sd)
        return tuple(factor.reason for factor in widest if factor.reason is not None and factor.log_sd > 0)

    def log_half_width(self) -> float:
        """Return the half-width of the logarithm's 95 % interval, by Student's t with Welch's degrees of freedom."""
        known = [(factor.log_sd**2, factor.degrees_of_freedom) for factor in self.factors if factor.log_sd > 0]
        variance, degrees_of_freedom = sum_variances(known)
        return t_quantile(degrees_of_freedom) * math.sqrt(variance)

    def estimate(self, basis: str) -> Estimate:
        """Return the seconds with their 95 % interval."""
        factor = math.exp(self.log_half_width())
        return Estimate(self.seconds, self.seconds / factor, self.seconds * factor, basis)

    def at(self, drawn: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return the seconds with drawn errors: by factor, values of its standardized distribution."""
        logs: NDArray[np.float64] = np.sum([factor.log_sd * drawn[factor.name] for factor in self.factors], axis=0)
        seconds: NDArray[np.float64] = self.seconds * np.exp(logs)
        return seconds
