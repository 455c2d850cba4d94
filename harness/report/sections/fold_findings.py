"""What each folded section of the page found, in a few words for its heading (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from harness.decision.cells import failed, fastest
from harness.decision.choice import Choice
from harness.decision.ladder import Ladder
from harness.decision.learning_curve import LearningCurve, forecast_gains, measured_gain
from harness.decision.scaling import Series
from harness.pricing.cost import Priced
from harness.report.formatting import date_text, memory, percent, plural, points
from harness.report.labels import OUTCOMES, basis_word, machine_labels, short_labels
from harness.report.sections.details import warnings_by_text
from harness.report.sections.ladder import best_step
from harness.report.sections.scaling import ratio_text
from harness.report.series_labels import count_text, size_text
from harness.schema.assumptions import Assumptions


def cells_words(cells: Sequence[Priced]) -> str:
    """Count the cells."""
    num_baselines = sum(cell.summary.kind == "baseline" for cell in cells)
    return f"{plural(len(cells) - num_baselines, 'configuration')} and {plural(num_baselines, 'baseline')}"


def machines_words(cells: Sequence[Priced]) -> str:
    """Name the machine and say whether its price is known; count several."""
    machines = machine_labels(cells)
    if len(machines) != 1:
        return plural(len(machines), "machine")
    price = next((cell.price for cell in cells if cell.price is not None), None)
    if price is None:
        known = "price not known"
    elif price.is_example:
        known = "price not known, an example stands in"
    else:
        known = f"{basis_word(price)} price" + (f" of {date_text(price.as_of)}" if price.as_of else "")
    return f"{next(iter(machines.values()))}, {known}"


def warnings_words(cells: Sequence[Priced]) -> str:
    """Count the warnings and the cells that have one."""
    kinds = warnings_by_text(cells)
    num_cells = sum(bool(cell.summary.warnings) for cell in cells)
    return f"{len(kinds)}, in {plural(num_cells, 'cell')}" if kinds else "none"


def failed_words(cells: Sequence[Priced]) -> str:
    """Count the failed cells by how they ended."""
    counts = Counter(OUTCOMES[cell.summary.outcome] for cell in failed(cells))
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()) or "none"


def money_words(choice: Choice) -> str:
    """State how much of a training's bill pays for the measured seconds."""
    pick = choice.pick
    if pick is None or pick.usd_billed is None or pick.usd_per_run is None or not pick.usd_billed.value:
        return "price not known"
    share = pick.usd_per_run.value / pick.usd_billed.value
    return f"{share:.0%} of a training's bill pays for the measured seconds"


def assumptions_words(assumptions: Assumptions) -> str:
    """Count the values that the user gave."""
    num_given = len(assumptions.set_by_user)
    return f"{num_given} are yours, the rest are examples" if num_given else "all are examples"


def ladder_words(ladders: Sequence[Ladder]) -> str:
    """State the best rung's saving."""
    best = best_step(ladders[0])
    if best is None or best.saving is None:
        return "no rung is cheaper than the first"
    return f"rung {best.number} is {ratio_text(best.saving.value)} times cheaper than rung 0"


def learning_words(curves: Sequence[LearningCurve]) -> str:
    """State what twice the examples of the first curve would add."""
    gains = forecast_gains(curves[0])
    gain = gains[0] if gains else measured_gain(curves[0])
    return f"{gain.end:,} examples {'would add' if gains else 'added'} {points(gain.accuracy.value)} to {gain.start:,}"


def scaling_words(every_series: Sequence[Series]) -> str:
    """State the speed-up of the first series."""
    series = every_series[0]
    point = series.points[-1]
    speed_up = ratio_text(point.speed_up.value)
    return f"{count_text(point, series)} train {speed_up} times as fast as {size_text(series.base)}"


def memory_words(cells: Sequence[Priced]) -> str:
    """Name the largest peak, and count what did not fit."""
    peaks = [peak for cell in cells if (peak := cell.summary.peak_memory_bytes) is not None]
    lost = sum(cell.summary.outcome == "oom" for cell in cells)
    largest = f"the largest peak is {memory(max(peaks))}" if peaks else "no peak was measured"
    return largest + (f"; {plural(lost, 'cell')} ran out of memory" if lost else "")


def fastest_words(cells: Sequence[Priced]) -> str:
    """Name the configuration with the highest speed."""
    best = fastest(cells)
    if best is None:
        return "no speed was measured"
    return f"{short_labels(cells)[best.key]} has the highest speed"


def compute_words(cells: Sequence[Priced]) -> str:
    """State the highest share of the calibrated peak."""
    shares = [mfu for cell in cells if (mfu := cell.summary.mfu) is not None]
    return f"at most {percent(max(shares))} of the peak" if shares else "no peak is known"


def curves_words(cells: Sequence[Priced]) -> str:
    """State the highest validation accuracy that a run reached."""
    reached = [
        evaluation.accuracy
        for cell in cells
        for record in cell.summary.ok_records
        if record.training is not None
        for evaluation in record.training.evaluations
    ]
    return f"at most {percent(max(reached))} on the validation set" if reached else "not measured"


def mistakes_words(choice: Choice) -> str:
    """State how many of the test texts the choice gets wrong."""
    accuracy = None if choice.pick is None else choice.pick.summary.accuracy
    return "" if accuracy is None else f"the choice gets {percent(1 - accuracy.value)} of the test texts wrong"


def method_words(num_not_measured: int) -> str:
    """Count what was not measured."""
    return f"{plural(num_not_measured, 'figure')} not measured"


def example_words(num_real: int, num_tokens: int) -> str:
    """State how many positions hold text."""
    return f"{num_real} of {num_tokens} positions hold text"
