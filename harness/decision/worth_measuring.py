"""Which machines to rent and measure first: those among which the truly cheapest most likely is (pure).

The errors of predicted times are drawn together: machines with one GPU model share its factor, and all share the errors of the
model's assumptions, so that these change a ranking only where they change machines by different amounts. The share of draws in
which a machine is the cheapest is its probability. Of machines that have the same GPUs, one stands for all, since measuring it
tells the others' speed too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.prediction.uncertain_time import UncertainTime

FloatArray = NDArray[np.float64]

NUM_PICKS = 3
_NUM_DRAWS = 4_000  # a probability's standard error is then below one percentage point
_SEED = 0


@dataclass(frozen=True)
class Contender:
    """A machine that may be the cheapest.

    Attributes:
        kind: Equal for machines whose times one measurement narrows.
        run: Uncertain seconds of a run.
        bill: Returns the bill of a run, from its seconds; None if it would never end.
        waited: Returns the seconds from ordering the machine to the end of such a run.
        is_measured: Whether the run was measured there.
    """

    kind: str
    run: UncertainTime
    bill: Callable[[float], float | None]
    waited: Callable[[float], float]
    is_measured: bool = False


@dataclass(frozen=True)
class Pick:
    """A machine to measure: its index, and the probability that it, or one of its kind, is the cheapest."""

    index: int
    probability: float


@dataclass(frozen=True)
class Picks:
    """The machines to measure first.

    Attributes:
        picks: At most three, the likeliest first.
        probability: That the truly cheapest machine is among them, or is one that was measured; None if no machine ever
            meets the requirements.
    """

    picks: tuple[Pick, ...]
    probability: float | None


def choose_to_measure(
    contenders: Sequence[Contender], *, deadline_s: float | None = None, budget_usd: float | None = None
) -> Picks:
    """Choose the machines to measure.

    Args:
        contenders: All machines whose time was measured or predicted.
        deadline_s: Longest time from ordering a machine to the end of a run; None without a limit.
        budget_usd: Highest bill of a run; None without a limit.
    """
    if not contenders:
        return Picks((), None)
    bills = _draw_bills(contenders, deadline_s, budget_usd)
    probabilities = _probabilities(bills)
    if not probabilities.any():
        return Picks((), None)
    is_measured = np.array([each.is_measured for each in contenders])
    picks = [pick for pick in _by_kind(contenders, probabilities) if pick.probability > 0][:NUM_PICKS]
    kinds = np.array([each.kind for each in contenders])
    while len(picks) < NUM_PICKS:
        # None of the others is ever the cheapest: take the one that would most likely be, if the picks did not exist.
        left = is_measured | np.isin(kinds, [kinds[pick.index] for pick in picks])
        others = _probabilities(np.where(left[:, None], math.inf, bills))
        if not others.any():
            break
        picks.append(Pick(int(others.argmax()), 0.0))
    known = float(probabilities[is_measured].sum())
    return Picks(tuple(picks), known + sum(pick.probability for pick in picks))


def _draw_bills(contenders: Sequence[Contender], deadline_s: float | None, budget_usd: float | None) -> FloatArray:
    """Draw the bills, `(num_contenders, num_draws)`; infinite where a run misses a limit or would never end."""
    drawn = _draw_factors(contenders)
    seconds = [np.broadcast_to(each.run.at(drawn), _NUM_DRAWS) for each in contenders]  # exact times have no draws
    return np.array(
        [_bills(each, run_s, deadline_s, budget_usd) for each, run_s in zip(contenders, seconds, strict=True)]
    )


def _bills(each: Contender, seconds: FloatArray, deadline_s: float | None, budget_usd: float | None) -> list[float]:
    bills = []
    for run_s in seconds.tolist():
        usd = each.bill(run_s)
        is_late = deadline_s is not None and each.waited(run_s) > deadline_s
        is_dear = usd is None or (budget_usd is not None and usd > budget_usd)
        bills.append(math.inf if usd is None or is_late or is_dear else usd)
    return bills


def _draw_factors(contenders: Sequence[Contender]) -> dict[str, FloatArray]:
    """Draw the standardized value of every factor, independently of the others."""
    rng = np.random.default_rng(_SEED)
    factors = {factor.name: factor.degrees_of_freedom for each in contenders for factor in each.run.factors}
    return {
        name: rng.standard_normal(_NUM_DRAWS) if math.isinf(df) else rng.standard_t(df, _NUM_DRAWS)
        for name, df in factors.items()
    }


def _probabilities(bills: FloatArray) -> FloatArray:
    """Return the share of draws in which each contender is the cheapest, among the draws in which any meets the limits."""
    is_met = np.isfinite(bills.min(axis=0))
    wins = np.bincount(bills[:, is_met].argmin(axis=0), minlength=len(bills))
    return wins / max(1, int(is_met.sum()))


def _by_kind(contenders: Sequence[Contender], probabilities: FloatArray) -> list[Pick]:
    """Return the likeliest contender of each kind that was not measured, with the probability of its kind."""
    kinds: dict[str, list[int]] = {}
    for index, each in enumerate(contenders):
        if not each.is_measured:
            kinds.setdefault(each.kind, []).append(index)
    picks = [
        Pick(max(indices, key=lambda index: probabilities[index]), float(probabilities[indices].sum()))
        for indices in kinds.values()
    ]
    return sorted(picks, key=lambda pick: -pick.probability)
