"""Seconds of a step, linear in its padded tokens and in its token pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.schema.probe_record import Work

_NUM_COEFFICIENTS = 3


@dataclass(frozen=True)
class Timing:
    """Measured seconds of one batch, with its number of tokens and of token pairs."""

    num_tokens: float
    num_pairs: float
    seconds: float


@dataclass(frozen=True)
class LinearTime:
    """Seconds = `per_batch` + `per_token` x tokens + `per_pair` x token pairs; no part is below 0.

    Attributes:
        misfit: Standard deviation of the logarithm of measured over fitted seconds; 0 where the fit is exact.
    """

    per_batch: float
    per_token: float
    per_pair: float
    misfit: float

    def seconds(self, work: Work) -> float:
        """Return the seconds of all batches."""
        return self.per_batch * work.num_batches + self.per_token * work.num_tokens + self.per_pair * work.num_pairs


def fit_time(timings: Sequence[Timing]) -> LinearTime:
    """Fit relative errors by least squares, with no coefficient below 0.

    Args:
        timings: At least one; with fewer than three shapes the fit is one of many, and exact.

    Source: C. L. Lawson and R. J. Hanson, "Solving Least Squares Problems" (1974), chapter 23.
    """
    from scipy.optimize import nnls  # imported here, since machines that only measure may lack scipy

    seconds = np.array([timing.seconds for timing in timings])
    design = np.array([(1.0, timing.num_tokens, timing.num_pairs) for timing in timings])
    weighted = design / seconds[:, None]
    # Columns of one size, since token pairs count in thousands of tokens.
    scale = np.maximum(weighted.max(axis=0), 1e-300)
    solution, _ = nnls(weighted / scale, np.ones(len(timings)))
    coefficients = solution / scale
    residuals = np.log(seconds / np.maximum(design @ coefficients, 1e-12))
    free = len(timings) - _NUM_COEFFICIENTS
    misfit = math.sqrt(float((residuals**2).sum()) / free) if free > 0 else 0.0
    per_batch, per_token, per_pair = map(float, coefficients)
    return LinearTime(per_batch, per_token, per_pair, misfit)
