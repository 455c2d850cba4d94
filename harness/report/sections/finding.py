"""The study's own finding, in a sentence with its chart, by what the study varies (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.analysis.ranking import rank
from harness.decision.cells import measured
from harness.decision.ladder import Ladder
from harness.decision.learning_curve import LearningCurve, forecast_gains, measured_gain
from harness.decision.scaling import Series
from harness.pricing.cost import Priced
from harness.report.charts.base import Chart
from harness.report.formatting import listed, number, plural, points, times, with_interval
from harness.report.labels import common_values, plain_description, short_labels
from harness.report.sections.ladder import LadderSection, best_step
from harness.report.sections.learning import Learning
from harness.report.sections.scaling import Scaling, ratio_interval, ratio_text
from harness.report.series_labels import count_text, size_text

CHART_KEY = "chart-finding"
_MAX_RANKED = 40  # configurations, since every pair is tested
_CONFIDENCE = "95% confidence interval"


@dataclass(frozen=True)
class Finding:
    """What the study found besides the choice.

    Attributes:
        section: Key of the section that holds the details.
        chart: Its chart; None if nothing can be drawn.
    """

    sentence: str
    section: str
    chart: Chart | None


def study_finding(
    cells: Sequence[Priced],
    found_ladders: Sequence[LadderSection],
    learning: Learning | None,
    scaling: Scaling | None,
    maps: Sequence[Chart],
) -> Finding | None:
    """Return the most specific finding: a ladder, a learning curve, scaling over devices, what fits, or speed.

    Args:
        cells: Every cell.
        found_ladders: The sections on ladders, whose charts are reused, as are those of the other arguments.
        learning: The section on training sizes.
        scaling: The section on devices.
        maps: The heat maps over batch size and sequence length.
    """
    lost = [cell for cell in cells if cell.summary.outcome == "oom" and not cell.summary.num_ok]
    if found_ladders:
        finding = Finding(ladder_finding(found_ladders[0].ladder), "ladder", found_ladders[0].charts[-1])
    elif learning is not None:
        finding = Finding(learning_finding(learning.curves[0]), "learning", learning.charts[0])
    elif scaling is not None and _varies_devices(scaling.series, cells):
        finding = Finding(scaling_finding(scaling.series[0]), "scaling", next(iter(scaling.charts.values()))[0])
    elif lost:
        finding = Finding(fit_finding(cells, lost), "memory", _map(maps, "memory"))
    elif speed := speed_finding(cells):
        finding = Finding(speed, "cells", _map(maps, "speed"))
    else:
        return None
    return replace(finding, chart=None if finding.chart is None else replace(finding.chart, key=CHART_KEY, group=None))


def ladder_finding(ladder: Ladder) -> str:
    """State how many times cheaper the best rung reaches the target."""
    best = best_step(ladder)
    if best is None or best.saving is None:
        return f"No rung reaches a validation accuracy of {ladder.target:g} for less than rung 0."
    ratio = f"Rung {best.number} is {ratio_text(best.saving.value)} times cheaper than rung 0"
    spread = ratio_interval(best.saving)
    return (
        f"{with_interval(ratio, f'{_CONFIDENCE} {spread}' if spread else '')} to a validation accuracy of "
        f"{ladder.target:g}, at no significant loss of test accuracy."
    )


def learning_finding(curve: LearningCurve) -> str:
    """State what twice the training examples would add, or else what the last step added as measured."""
    gains = forecast_gains(curve)
    gain = gains[0] if gains else measured_gain(curve)
    low, high = gain.accuracy.low, gain.accuracy.high
    spread = "" if low is None or high is None else f"{_CONFIDENCE} {100 * low:+.1f} to {100 * high:+.1f}"
    verb = "would add" if gains else "added"
    return (
        f"{with_interval(f'From {gain.start:,} to {gain.end:,} training examples {verb} {points(gain.accuracy.value)}', spread)}"
        f" of test accuracy{', by the forecast' if gains else ', as measured'}."
    )


def _varies_devices(every_series: Sequence[Series], cells: Sequence[Priced]) -> bool:
    """Return whether most of the measured configurations belong to a scaling series."""
    scaled = {point.cell.key for series in every_series for point in series.points}
    return 2 * len(scaled) > len(measured(cells))


def scaling_finding(series: Series) -> str:
    """State the speed-up of the most devices of a series, and what that means for the cost of a sample."""
    point, base = series.points[-1], series.base
    speed = f"{count_text(point, series)} train {ratio_text(point.speed_up.value)} times as fast as {size_text(base)}"
    spread = ratio_interval(point.speed_up)
    costs = {
        "less": "a sample costs less",
        "more": "a sample costs more",
        "level": "no significant difference in the cost of a sample",
    }
    return f"{with_interval(speed, f'{_CONFIDENCE} {spread}' if spread else '')} ({series.kind} scaling): {costs[point.cost]}."


def fit_finding(cells: Sequence[Priced], lost: Sequence[Priced]) -> str:
    """Name what did not fit in memory."""
    labels = short_labels(cells)
    names = list(dict.fromkeys(labels[cell.key] for cell in lost))
    shown = listed(names) if len(names) <= 3 else f"{', '.join(names[:3])} and {len(names) - 3} more"  # noqa: PLR2004
    tried = sum(cell.summary.kind == "fine_tune" for cell in cells)
    return f"{len(lost)} of {plural(tried, 'configuration')} ran out of memory: {shown}."


def speed_finding(cells: Sequence[Priced]) -> str:
    """Name the fastest configuration and its lead over the slowest; empty with fewer than two speeds."""
    timed = [(cell, rate) for cell in measured(cells) if (rate := cell.summary.samples_per_s) is not None]
    if len(timed) < 2:  # noqa: PLR2004 - a comparison needs two
        return ""
    best, rate = max(timed, key=lambda pair: pair[1].value)
    slowest = min(timed, key=lambda pair: pair[1].value)[1]
    lead = "has the highest training speed"
    if len(timed) <= _MAX_RANKED:
        num_level = len(rank([each for _, each in timed], most=True).level)
        level = f", with no significant difference to {plural(num_level, 'other')}" if num_level else ""
        lead = f"trains fastest{level}"
    return (
        f"{plain_description(best, common_values(cells)).capitalize()} {lead}: {number(rate.value)} samples/s, "
        f"{times(rate.value / slowest.value)} as fast as the slowest of {len(timed)}."
    )


def _map(maps: Sequence[Chart], metric: str) -> Chart | None:
    """Return the map of a metric, one with a cell that has no figure before the others; None without one."""
    drawn = [chart for chart in maps if chart.key.endswith(f"-{metric}")]
    return max(drawn, key=lambda chart: len(chart.figure.data[-1].text), default=None)
