"""Ranking of speeds or costs: which of several figures is clearly better than which, and which can't be ranked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from harness.analysis.estimate import Estimate, log_distance, t_quantile
from harness.analysis.log_ratio import LogRatio, sum_variances
from harness.analysis.significance import SIGNIFICANCE_LEVEL, holm

# More degrees of freedom count as this many, so that the page (assets/comparing.js) needs Student's distribution only.
MAX_DEGREES_OF_FREEDOM = 1000.0
_MIN_RANKED = 2

Figures = Sequence[Estimate | None]


@dataclass(frozen=True)
class Ranking:
    """The ranking of several figures, by their indices.

    Attributes:
        first: The best value; None with fewer than two figures.
        clear: Pairs (better, worse) that differ significantly.
        known: The figures that are not None.
    """

    first: int | None
    clear: frozenset[tuple[int, int]]
    known: tuple[int, ...]

    @property
    def level(self) -> tuple[int, ...]:
        """The figures that do not differ significantly from the first."""
        if self.first is None:
            return ()
        return tuple(index for index in self.known if index != self.first and (self.first, index) not in self.clear)


def rank(figures: Figures, *, most: bool = False) -> Ranking:
    """Rank several figures; `most` is True if the highest is best."""
    return rank_all([figures], most=most)[0]


def rank_all(families: Sequence[Figures], *, most: bool = False) -> list[Ranking]:
    """Rank several groups of figures, each within itself.

    Every pair of a group is tested, so that the best, which is known only afterwards, may be compared with any other.
    Holm's correction covers all pairs of all groups: if no two figures differ, any pair is clear in at most 5 %.

    Args:
        families: Groups of figures; None for a figure that is not known.
        most: Whether the highest is best, as for a speed.
    """
    pairs = [
        (family, index, other)
        for family, figures in enumerate(families)
        for index, other in combinations((i for i, figure in enumerate(figures) if figure is not None), 2)
    ]
    p_values = holm([_p_value(families[family][index], families[family][other]) for family, index, other in pairs])
    clear: list[set[tuple[int, int]]] = [set() for _ in families]
    for (family, index, other), p_value in zip(pairs, p_values, strict=True):
        if p_value is not None and p_value < SIGNIFICANCE_LEVEL:
            is_better = (_value(families[family][index]) > _value(families[family][other])) == most
            clear[family].add((index, other) if is_better else (other, index))
    return [_ranking(figures, frozenset(found), most) for figures, found in zip(families, clear, strict=True)]


def _ranking(figures: Figures, clear: frozenset[tuple[int, int]], most: bool) -> Ranking:
    known = tuple(index for index, figure in enumerate(figures) if figure is not None)
    pick = max if most else min
    first = pick(known, key=lambda index: _value(figures[index])) if len(known) >= _MIN_RANKED else None
    return Ranking(first, clear, known)


def _value(estimate: Estimate | None) -> float:
    return 0.0 if estimate is None else estimate.value


def _p_value(one: Estimate | None, other: Estimate | None) -> float | None:
    """Return the two-sided p-value of equal true values; None if an interval is unknown.

    The logarithms' difference is compared with the standard error that the facing sides of the two intervals imply: the
    upper side of the lower figure and the lower side of the higher one. Degrees of freedom as in Welch's test.
    """
    if one is None or other is None or None in (one.low, one.high, other.low, other.high):
        return None
    low, high = sorted((one, other), key=lambda estimate: estimate.value)
    if low.value <= 0:  # nothing is cheaper than free of charge
        return 0.0 if low.value == low.high and high.value > low.value else 1.0
    parts = [
        _variance(log_distance(low.value, low.high or low.value), low.degrees_of_freedom),
        _variance(log_distance(high.low or 0.0, high.value), high.degrees_of_freedom),
    ]
    if any(math.isinf(variance) for variance, _ in parts):
        return None
    total, degrees_of_freedom = sum_variances(parts)
    difference = LogRatio(math.log(high.value / low.value), total, min(degrees_of_freedom, MAX_DEGREES_OF_FREEDOM), "")
    return difference.p_value()


def _variance(half_width: float, degrees_of_freedom: float) -> tuple[float, float]:
    degrees_of_freedom = min(degrees_of_freedom, MAX_DEGREES_OF_FREEDOM)
    return (half_width / t_quantile(degrees_of_freedom)) ** 2, degrees_of_freedom
