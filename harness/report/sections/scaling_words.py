"""What more devices gain and cost, in sentences (pure)."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.estimate import Estimate, intervals_disjoint
from harness.decision.scaling import ScalingPoint, Series, best_cost, scaling_series, several_gpus_ran
from harness.pricing.cost import Priced
from harness.report.formatting import listed, number, percent
from harness.report.series_labels import _THINGS, MAX_SERIES, series_names

NEVER_RUN = (
    "gpu-ddp over several GPUs has never been run by this project: no record of it that ended well is among those "
    "shown here."
)


_MAX_ANSWERS = 2


_PLACES = {"cpu": "on this CPU", "gpu": "of this machine"}


_WAITS_FOR_NOTHING = "none found"


_TEN = 10


def scaling_sentences(series: Sequence[Series], cells: Sequence[Priced]) -> list[str]:
    """For each series, at which number of devices the money goes down or up; and what was never run."""
    said = [
        f"{capital(name)}: {_clauses(one)}. {capital(verdict(one))}."
        for one, name in zip(series[:MAX_SERIES], series_names(series, cells), strict=False)
    ]
    return said + ([] if not series or several_gpus_ran(cells) else [NEVER_RUN])


def answer_over_devices(cells: Sequence[Priced]) -> list[str]:
    """The first verdict of each kind of device and machine, in short; empty without a series."""
    series = scaling_series(cells)
    first: dict[tuple[str, str], str] = {}
    for one, name in zip(series, series_names(series, cells), strict=True):
        first.setdefault((one.base.cell.summary.machine_id, one.device), f"Over devices, {verdict(one)}, by {name}.")
    return list(first.values())[:_MAX_ANSWERS]


def verdict(series: Series) -> str:
    """At which number of devices a sample costs less or more, or that this can't be told."""
    base, best, things = series.base, best_cost(series), _THINGS[series.device][1]
    paid = ", the whole machine paid for" if series.device == "gpu" else ""
    start = count(base, series)
    if best is not base:
        return f"the money goes down from {start} to {best.num_devices}{paid}{_beyond(series, best)}"
    more = [point for point in series.more if point.cost == "more"]
    level = [point for point in series.more if point.cost == "level"]
    if not level:
        return f"more {things} do not pay: the money goes up from {start} to {more[0].num_devices}{paid}"
    why = "their speeds' intervals overlap" if _spreads_known(level, base) else "an interval is not known"
    apart = f"{_listed(level)} {things} and {base.num_devices} can't be told apart in cost ({why})"
    return f"{apart}, and {_listed(more)} cost more: more {things} are not shown to pay" if more else apart


def _beyond(series: Series, best: ScalingPoint) -> str:
    """What comes after the cheapest number of devices."""
    after = [point for point in series.more if point.num_devices > best.num_devices]
    apart = [point for point in after if intervals_disjoint(point.samples_per_s, best.samples_per_s)]
    level = [point for point in after if point not in apart]
    up = f" and up again at {_listed(apart)}" if apart else ""
    return up + (f"; {_listed(level)} can't be told apart from {best.num_devices}" if level else "")


def _spreads_known(points: Sequence[ScalingPoint], base: ScalingPoint) -> bool:
    return all(point.samples_per_s.low is not None for point in (*points, base))


def _listed(points: Sequence[ScalingPoint]) -> str:
    return listed([str(point.num_devices) for point in points])


def _clauses(series: Series) -> str:
    first, *others = series.more
    lead = (
        f"{count(first, series)} {_PLACES[series.device]} train at {_times(first.speed_up)} the speed of "
        f"{series.base.num_devices}{_within(first.speed_up)} and cost {_cost(first)}"
    )
    rest = [
        f"{point.num_devices} at {_times(point.speed_up)} the speed{_within(point.speed_up)} cost {_cost(point, again=True)}"
        for point in others
    ]
    return "; ".join([lead, *rest])


def _cost(point: ScalingPoint, *, again: bool = False) -> str:
    whole = f"{_times(point.cost_ratio)} as much a sample"
    if point.share_cost_ratio is None:
        return _times(point.cost_ratio) if again else whole
    if again:
        return f"{ratio_words(point.cost_ratio.value)} and {_times(point.share_cost_ratio)}"
    return f"{whole} where the whole machine is paid for, {_times(point.share_cost_ratio)} at the price of the GPUs in use alone"


def count(point: ScalingPoint, series: Series) -> str:
    """A number of devices with what they are called."""
    one, many = _THINGS[series.device]
    return f"{point.num_devices} {one if point.num_devices == 1 else many}"


def capital(text: str) -> str:
    """A text that begins a sentence or a table's square."""
    return text[:1].upper() + text[1:]


def _times(ratio: Estimate) -> str:
    return f"{ratio_words(ratio.value)} times"


def _within(ratio: Estimate) -> str:
    found = ratio_interval(ratio)
    return f" ({found})" if found else ""


def ratio_words(value: float) -> str:
    """A ratio, to hundredths where it is small."""
    return f"{value:.2f}" if value < _TEN else number(value)


def ratio_interval(ratio: Estimate) -> str:
    """A ratio's interval, or nothing where it has none."""
    if ratio.low is None or ratio.high is None:
        return ""
    return f"{ratio_words(ratio.low)} to {ratio_words(ratio.high)}"


def communication_words(point: ScalingPoint) -> str:
    """The share of a pass that waits for all-reduce; one device has nobody to wait for."""
    if point.num_devices == 1:
        return "does not apply"
    return _WAITS_FOR_NOTHING if point.communication_fraction == 0 else percent(point.communication_fraction)
