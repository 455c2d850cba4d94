"""Linear probes: logistic regressions on each layer's states, with several strengths of regularization.

Source: Alain and Bengio, "Understanding intermediate layers using linear classifier probes", arXiv:1610.01644 (2016).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# scikit-learn's C, the inverse strength of the L2 penalty. On the packaged data, every layer's best is 0.001 or 0.01.
C_VALUES = (0.001, 0.01, 0.1, 1.0)
_MAX_ITERATIONS = 1000


@dataclass(frozen=True)
class Probe:
    """A fitted logistic regression on the states of one layer, with the standardization folded into its weights.

    Attributes:
        weights: `(classes, hidden)`; of two classes, only the second one's.
        bias: One for each row of `weights`.
        classes: The label of each class, ascending.
    """

    layer: int
    c: float
    weights: np.ndarray
    bias: np.ndarray
    classes: np.ndarray

    def predict(self, states: np.ndarray) -> np.ndarray:
        """Return the most likely label of each row of states `(rows, hidden)`."""
        scores = states @ self.weights.T + self.bias
        likeliest = scores.argmax(axis=1) if scores.shape[1] > 1 else (scores[:, 0] > 0).astype(np.int64)
        return np.asarray(self.classes[likeliest])


def load_libraries() -> None:
    """Import what `fit_probes` needs, which takes a second."""
    for name in ("sklearn.linear_model", "threadpoolctl"):
        importlib.import_module(name)


def fit_probes(states: np.ndarray, labels: np.ndarray, c_values: Sequence[float] = C_VALUES) -> list[Probe]:
    """Fit one probe for each layer and each value of C, in this order.

    Args:
        states: `(layers, rows, hidden)` float32. They are standardized in place, since a copy would double the memory.
        labels: `(rows,)`.
        c_values: Inverse strengths of regularization.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    probes = []
    # One thread: each product of a fit is too small to share. On two busy cores, two threads took 10 times longer.
    with threadpool_limits(1):
        for layer, features in enumerate(states):
            mean, deviation = _standardize(features)
            for c in c_values:
                fitted = LogisticRegression(C=c, max_iter=_MAX_ITERATIONS).fit(features, labels)
                weights = fitted.coef_ / deviation
                probes.append(Probe(layer, c, weights, fitted.intercept_ - weights @ mean, fitted.classes_))
    return probes


def most_accurate(probes: Sequence[Probe], accuracies: Sequence[float]) -> int:
    """Return the index of the most accurate probe; among equals, that of the smallest C, then of the lowest layer."""
    return min(range(len(probes)), key=lambda index: (-accuracies[index], probes[index].c, probes[index].layer))


def _standardize(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standardize the columns of `(rows, hidden)` in place; return their former means and deviations, float64."""
    mean = features.mean(axis=0, dtype=np.float64)
    features -= mean.astype(features.dtype)
    deviation = np.sqrt(np.einsum("ij,ij->j", features, features, dtype=np.float64) / len(features))
    deviation[deviation == 0] = 1.0  # a constant column stays 0
    features /= deviation.astype(features.dtype)
    return mean, deviation
