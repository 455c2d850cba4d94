"""The verdict on a choice: use it, do not use it yet, or measure more, with the reasons (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.analysis.accuracy import estimate_difference
from harness.analysis.estimate import Estimate
from harness.analysis.result_warnings import learning_warnings
from harness.decision.measure_next import (
    Measurement,
    beat_majority,
    measure_baselines,
    more_accuracy,
    narrow_loss,
    repeat,
)
from harness.decision.ways import Way
from harness.decision.worth import judge_cell_worth, states_value
from harness.schema.assumptions import Assumptions

# A verdict `use` leaves at most a 5 % chance that the loss is more than this many tolerances.
SERIOUS_LOSS = 2.0
_CHEAP_BASELINES = ("tfidf", "features")

Kind = Literal["use", "do not use yet", "measure more"]
ReasonKind = Literal[
    "no_accuracy", "requirements_missed", "majority_not_beaten", "loses_money", "target_missed",
    "alarm", "baseline_missing", "target_uncertain", "loss_not_excluded",
]  # fmt: skip


@dataclass(frozen=True)
class Reason:
    """Why a verdict is not `use`.

    Attributes:
        details: Names of the missing baselines; texts of the alarms; else empty.
    """

    kind: ReasonKind
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """The verdict, its reasons, and what to measure next.

    Attributes:
        reasons: Empty for `use`.
        measure_next: Empty for `use`, and if nothing that can be measured would help.
    """

    kind: Kind
    reasons: tuple[Reason, ...]
    measure_next: tuple[Measurement, ...]


def judge(
    way: Way | None,
    best: Way | None,
    ways: Sequence[Way],
    every_way: Sequence[Way],
    tolerance: float,
    target: float | None,
    assumed: Assumptions,
) -> Verdict:
    """Judge the chosen way.

    Args:
        way: The chosen way; None if there is none.
        best: The way with the highest score.
        ways: The ways it was chosen from.
        every_way: All ways, including those that miss a requirement.
        tolerance: Loss that the user accepts.
        target: Score to reach; None without one.
        assumed: The value model, of which only what the user stated counts.
    """
    if all(each.kind != "fine_tune" for each in every_way):
        return Verdict("measure more", (Reason("no_accuracy"),), (more_accuracy(),))
    if best is None:
        return Verdict("do not use yet", (Reason("requirements_missed"),), (more_accuracy(),))
    majority = next((each for each in every_way if each.kind == "majority"), None)
    if stop := _stop(way, best, majority, target, assumed):
        return stop
    reasons: list[Reason] = []
    steps: list[Measurement] = []
    if way is None:
        return Verdict("measure more", (Reason("target_uncertain"),), tuple(narrow_loss(best, best, tolerance)))
    if way.cell is not None and (alarms := tuple(learning_warnings(way.cell.summary))):
        reasons.append(Reason("alarm", alarms))
        steps.append(repeat(way))
    missing = tuple(kind for kind in _CHEAP_BASELINES if all(each.kind != kind for each in every_way))
    if missing:
        reasons.append(Reason("baseline_missing", missing))
        steps.append(measure_baselines(missing, best))
    if target is not None:
        if way.score.low is not None and way.score.low < target:
            reasons.append(Reason("target_uncertain"))
            steps += narrow_loss(way, way, way.score.value - target)
    elif way.loss is not None and way.loss.largest > SERIOUS_LOSS * tolerance:
        reasons.append(Reason("loss_not_excluded"))
        steps += narrow_loss(way, _rival(way, ways), SERIOUS_LOSS * tolerance - way.loss.mean)
    return Verdict("measure more" if reasons else "use", tuple(reasons), tuple(steps))


def _stop(
    way: Way | None, best: Way, majority: Way | None, target: float | None, assumed: Assumptions
) -> Verdict | None:
    """Return the verdict `do not use yet`, if there is a reason for it."""
    shown = way if way is not None and way.kind != "majority" else best
    gain = None if majority is None else gain_over(majority, shown)
    if majority is not None and gain is not None and (way is majority or not is_above_0(gain)):
        return Verdict(
            "do not use yet", (Reason("majority_not_beaten"),), (beat_majority(shown, majority, gain.value),)
        )
    if target is not None and way is None and (best.score.high is None or best.score.high < target):
        return Verdict("do not use yet", (Reason("target_missed"),), (more_accuracy(),))
    if way is not None and way.cell is not None and states_value(assumed):
        worth = judge_cell_worth(way.cell, assumed)
        if worth is not None and worth.net_present_value_usd.value < 0:
            return Verdict("do not use yet", (Reason("loses_money"),), ())
    return None


def gain_over(baseline: Way, way: Way) -> Estimate | None:
    """Return a way's score minus a baseline's on the same test examples; None if either was not measured on them."""
    if baseline.scores is None or way.scores is None:
        return None
    return estimate_difference(baseline.scores, way.scores)


def is_above_0(gain: Estimate) -> bool:
    """Return whether a gain is shown: its interval lies above 0."""
    return gain.low is not None and gain.low > 0


def _rival(way: Way, ways: Sequence[Way]) -> Way:
    """Return the way that is most likely better than the chosen one."""
    others = [each for each in ways if each is not way and each.loss is not None and each.scores is not None]
    return min(others, key=lambda each: each.loss.mean if each.loss else 0.0, default=way)
