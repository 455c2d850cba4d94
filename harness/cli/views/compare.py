"""`harness compare`: its two sides, and the comparison as terminal text, Markdown and JSON fields."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from harness.analysis.significance import SIGNIFICANCE_LEVEL
from harness.cli.console import print_table, print_text
from harness.cli.layout import columns
from harness.decision.compare import CompareOptions, Comparison, compare
from harness.decision.differences import describe_difference, require_same
from harness.decision.metric_verdict import CANNOT_TELL, NO_DIFFERENCE, SCORES, MetricVerdict
from harness.decision.pairing import UnpairedCell, pair_cells
from harness.errors import UserError
from harness.report.formatting import MoneyFormat, clean, listed, memory, number, plural
from harness.report.markdown import md
from harness.schema.interleaving import InterleavedRuns
from harness.workflows.priced_records import Priceable, PriceOptions, load_priced

_METRIC_NAMES = {
    "samples_per_s": "samples/s",
    "peak_memory_bytes": "peak memory",
    "accuracy": "accuracy, B-A",
    "macro_f1": "macro F1, B-A",
}
_SHOWN = {"dearer": "more expensive"}  # as shown; JSON keeps the verdict's own name
_COLOURS = {"slower": "red", "faster": "green", "worse": "red", "better": "green"}
_COLOURS |= {"more expensive": "red", "cheaper": "green"}
_WITHIN_RUNS_MARK = "†"  # no asterisk, which has a meaning in Markdown
_MAX_RATIO = 1000  # larger bounds carry no information, so they are shown as >1000
_FEW_ROWS = 12  # up to this many figures, or cells of one side, all are shown
_MAX_LINE = 2000  # of a note in the Markdown table
_HEAD = ("cell", "figure", "A", "B", "B/A, 95 %", "verdict")


@dataclass(frozen=True)
class SidePath:
    """Path of one side's records, and the machine to use; `machine` is None if the records have only one."""

    path: Path
    machine: str | None


def read_side(text: str, machine: str | None, option: str) -> SidePath:
    """Parse `PATH` or `PATH:MACHINE`.

    Args:
        text: The argument.
        machine: Value of the option that names the machine.
        option: Name of the option that names the machine.

    Raises:
        UserError: If the path does not exist, or argument and option name different machines.
    """
    if Path(text).exists():
        return SidePath(Path(text), machine)
    path, colon, named = text.rpartition(":")
    if not colon or not Path(path).exists():
        raise UserError(f"{text}: no such folder, file or archive of records (expected PATH or PATH:MACHINE)")
    if machine is not None and machine != named:
        raise UserError(f"{text} and {option} {machine} name different machines: give only one")
    return SidePath(Path(path), named)


def load_comparison(
    sides: tuple[SidePath, SidePath],
    options: CompareOptions,
    price_options: PriceOptions,
    *,
    strict: bool = False,
) -> tuple[Comparison, list[Priceable]]:
    """Read, price, pair and compare two sides.

    Args:
        sides: Paths of A and B.
        options: Margins and limits.
        price_options: How to price the records.
        strict: Refuse sides that differ in settings that should be equal.

    Returns:
        The comparison, and both sides' priced records.

    Raises:
        UserError: If a side can't be read, or `strict` is set and the sides differ.
    """
    priced_sides = [load_priced([side.path], price_options) for side in sides]
    pairing = pair_cells(priced_sides[0].cells, priced_sides[1].cells, sides[0].machine, sides[1].machine)
    if strict:
        require_same(pairing.differences)
    return compare(pairing, options), priced_sides


def compare_interleaved(interleaved: InterleavedRuns, priced: Priceable, fail_above: float | None) -> Comparison:
    """Compare the cells of the two settings of an interleaved study.

    Raises:
        UserError: If no cell is ok.
    """
    a, b = (
        [cell for cell in priced.cells if {run.config_hash for run in cell.summary.records} & hashes]
        for hashes in interleaved.hashes
    )
    return compare(pair_cells(a, b, across=interleaved.keys), CompareOptions(fail_above=fail_above))


def show_comparison(console: Console, comparison: Comparison, money: MoneyFormat, *, every: bool = False) -> None:
    """Print what changed as rows, and the rest as counts; with `every`, or if there are few, all rows."""
    rows = list(_rows(comparison, money, every=every))
    if rows:
        names = columns(_HEAD[:2], _HEAD[2:5], _HEAD[5:])
        print_table(console, names, [[*map(escape, row[:-1]), _coloured(row[-1])] for row in rows])
        print_text(console)
    for line in _notes(comparison, money, every=every):
        print_text(console, escape(line), hang=2)


def _is_short(comparison: Comparison) -> bool:
    return sum(len(cell.figures) for cell in comparison.cells) <= _FEW_ROWS


def _coloured(verdict: str) -> str:
    colour = _COLOURS.get(verdict)
    return f"[{colour}]{verdict}[/]" if colour else verdict


def to_markdown(comparison: Comparison, money: MoneyFormat, *, every: bool = False) -> str:
    """Return a Markdown table for a pull request, with notes on the comparison around the table."""
    first, *notes = [md(line, _MAX_LINE) for line in _notes(comparison, money, every=every)]
    lines = [first]
    if rows := list(_rows(comparison, money, every=every)):
        lines += ["", f"| {' | '.join(_HEAD)} |", "|---|---|---:|---:|---:|---|"]
        lines += [f"| {' | '.join(md(text) for text in row)} |" for row in rows]
    differences = [
        f"- {md(describe_difference(difference), _MAX_LINE)}" for difference in comparison.pairing.differences
    ]
    if differences:
        lines += ["", "A and B differ, beside what is compared, in", "", *differences]
    return "\n".join([*lines, "", *(f"- {line}" for line in notes)]) + "\n"


def comparison_fields(comparison: Comparison) -> dict[str, object]:
    """Return the fields of `--json`: `ratio` is B / A; scores have `difference` = B - A instead."""
    return {
        "asked": asdict(comparison.asked),
        "failed": comparison.failed,
        "cells": [
            {
                "cell": cell.a.summary.cell,
                "study_a": cell.a.summary.study,
                "study_b": cell.b.summary.study,
                "machine_a": cell.a.summary.machine_id,
                "machine_b": cell.b.summary.machine_id,
                "num_runs_a": cell.a.summary.num_ok,
                "num_runs_b": cell.b.summary.num_ok,
                "fails": cell.fails,
                "figures": {key: _fields(judged) for key, judged in cell.figures.items()},
            }
            for cell in comparison.cells
        ],
        "overall": {key: _fields(judged) for key, judged in comparison.overall.items()},
        "alone": [
            {"side": alone.side, "cell": alone.cell.summary.cell, "machine": alone.cell.summary.machine_id}
            | {"other_outcome": None if alone.other is None else alone.other.summary.outcome}
            for alone in comparison.pairing.alone
        ],
        "differences": [describe_difference(difference) for difference in comparison.pairing.differences],
        "notes": list(comparison.pairing.notes),
    }


def _fields(judged: MetricVerdict) -> dict[str, object]:
    change = "difference" if judged.is_score else "ratio"
    fields: dict[str, object] = {
        "a": judged.a,
        "b": judged.b,
        change: judged.change.value,
        f"{change}_low": judged.change.low,
        f"{change}_high": judged.change.high,
        "basis": judged.change.basis,
        "p_holm": judged.p_value,
        "verdict": judged.verdict,
        "reason": judged.reason,
    }
    if judged.num_seeds is None:
        return fields
    plan = judged.would_decide
    return fields | {
        "num_seeds_a": judged.num_seeds[0],
        "num_seeds_b": judged.num_seeds[1],
        "judged": judged.judged,
        "would_decide": None if plan is None else {"num_seeds": plan.num_seeds, "num_test": plan.num_test},
    }


def _rows(comparison: Comparison, money: MoneyFormat, *, every: bool) -> Iterator[tuple[str, ...]]:
    every = every or _is_short(comparison)
    machines = {cell.a.summary.machine_id for cell in comparison.cells}
    for cell in comparison.cells:
        a, b = cell.a.summary.cell, cell.b.summary.cell
        name = a if a == b or len(machines) > 1 else f"{a} against {b}"
        name = f"{cell.a.summary.machine_id}/{name}" if len(machines) > 1 else name
        yield from _block(clean(name), _shown(cell.figures.values(), every=every), money)
    if len(comparison.cells) > 1:
        yield from _block("all cells, geometric mean", _shown(comparison.overall.values(), every=every), money)


def _shown(figures: Iterable[MetricVerdict], *, every: bool) -> list[MetricVerdict]:
    return [judged for judged in figures if every or _is_change(judged)]


def _is_change(judged: MetricVerdict) -> bool:
    return judged.verdict not in (NO_DIFFERENCE, CANNOT_TELL)


def _block(name: str, figures: Iterable[MetricVerdict], money: MoneyFormat) -> Iterator[tuple[str, ...]]:
    for judged in figures:
        yield (
            name,
            _name(judged, money),
            *_sides(judged, money),
            _change(judged),
            _SHOWN.get(judged.verdict, judged.verdict),
        )
        name = ""


def _name(judged: MetricVerdict, money: MoneyFormat) -> str:
    return _METRIC_NAMES.get(judged.figure.key) or f"{money.code} per 1,000"


def _sides(judged: MetricVerdict, money: MoneyFormat) -> tuple[str, str]:
    if judged.a is None or judged.b is None:
        return "", ""
    if judged.figure.key == "peak_memory_bytes":
        return memory(judged.a), memory(judged.b)
    if judged.is_score:
        return f"{judged.a:.3f}", f"{judged.b:.3f}"
    show = money.amount if judged.figure.key == "usd_per_1000_samples" else number
    return show(judged.a), show(judged.b)


def _change(judged: MetricVerdict) -> str:
    change, sign = judged.change, "+" if judged.is_score else ""

    def show(value: float) -> str:
        return f"{value:{sign}.3f}" if value < _MAX_RATIO else f">{_MAX_RATIO}"

    if change.low is None or change.high is None:
        return show(change.value)
    mark = "" if judged.is_certain else _WITHIN_RUNS_MARK
    return f"{show(change.value)} ({show(change.low)} to {show(change.high)}){mark}"


def _notes(comparison: Comparison, money: MoneyFormat, *, every: bool) -> Iterator[str]:
    """Yield notes on what the table leaves out: counts, reasons, cells on one side only, assumptions, `--fail-above`."""
    options = comparison.asked
    counts = Counter(cell.speed.verdict for cell in comparison.cells)
    verdicts = listed([f"{count} {verdict}" for verdict, count in counts.most_common()])
    failing = [] if options.fail_above is None else [_failing(comparison, options.fail_above)]
    yield " ".join([f"Speed of {plural(len(comparison.cells), 'cell')} on both sides: {verdicts or 'none'}.", *failing])
    yield (
        f"{NO_DIFFERENCE}: the interval lies within {100 * options.margin:g} % ({_METRIC_NAMES[options.metric].split(',')[0]}: "
        f"{100 * options.accuracy_margin:g} points, B - A). Other verdicts are Holm's over all cells of a figure, at {100 * SIGNIFICANCE_LEVEL:g} %."
    )
    figures = [judged for cell in comparison.cells for judged in cell.figures.values()]
    is_whole = every or _is_short(comparison)
    if not is_whole:
        yield from _unchanged(figures)
    if any(not judged.is_certain and judged.change.low is not None for judged in figures):
        yield f"{_WITHIN_RUNS_MARK} Within runs alone: what differs from run to run is not in this interval."
    if options.run_spread is not None:
        yield f"Assumed, not measured, where a side has too few runs: they differ by {100 * options.run_spread:g} % (SD)."
    reasons = Counter((_name(judged, money), judged.verdict, judged.reason) for judged in figures if judged.reason)
    for (name, verdict, reason), count in reasons.items():
        yield f"{verdict}, {name} of {plural(count, 'cell')}: {reason}."
    yield from _plans(comparison, every=is_whole)
    yield from _all_unpaired(comparison.pairing.alone, every=every or len(comparison.pairing.alone) <= _FEW_ROWS)
    yield from comparison.pairing.notes


def _unchanged(figures: Sequence[MetricVerdict]) -> Iterator[str]:
    """Count the figures without a change, by verdict."""
    counts = Counter(judged.verdict for judged in figures if not _is_change(judged))
    if counts:
        verdicts = listed([f"{count} {verdict!r}" for verdict, count in counts.most_common()])
        yield f"Not shown: {verdicts}, of {plural(len(figures), 'figure')}; --all shows them."


def _plans(comparison: Comparison, *, every: bool) -> Iterator[str]:
    """Yield what would decide each undecided score, or how many such scores there are."""
    key = SCORES[comparison.asked.metric].key
    metric = _METRIC_NAMES[key].split(",")[0]
    judged = [(cell.a.summary.cell, cell.figures[key]) for cell in comparison.cells if key in cell.figures]
    plans = [(name, score.would_decide) for name, score in judged if score.would_decide is not None]
    if plans and not every:
        yield f"--all says how many seeds and test examples would decide {metric} of {plural(len(plans), 'cell')}."
        return
    for name, plan in plans:
        size = f"{plan.num_seeds} seeds a side" + (f" and {plan.num_test:,} test examples" if plan.num_test else "")
        yield f"To decide {metric} of {clean(name)}, if the difference stays as measured: {size}."


def _all_unpaired(cells: Sequence[UnpairedCell], *, every: bool) -> Iterator[str]:
    """Name the cells of one side that failed on the other, and name or count those that were not tried there."""
    named = [cell for cell in cells if every or cell.other is not None]
    yield from map(_unpaired, named)
    counts = Counter(cell.side for cell in cells if cell not in named)
    if counts:
        sides = listed([f"{plural(counts[side], 'cell')} on {side} alone" for side in sorted(counts)])
        yield f"Not compared: {sides}; --all names them."


def _unpaired(cell: UnpairedCell) -> str:
    name = clean(f"{cell.cell.summary.cell} ({cell.cell.summary.study})")
    if cell.other is None:
        return f"On {cell.side} alone: {name}."
    other_side = "B" if cell.side == "A" else "A"
    return f"On {cell.side} alone: {name}; {other_side} ended {cell.other.summary.outcome}."


def _failing(comparison: Comparison, fail_above: float) -> str:
    failing = [cell.a.summary.cell for cell in comparison.cells if cell.fails]
    failing += [f"{lost.cell.summary.cell} (no longer runs)" for lost in comparison.lost]
    limit = f"--fail-above {100 * fail_above:g}%"
    if failing:
        return f"{limit}: FAILED, certainly slower by more: {clean(listed(failing))}."
    if comparison.num_decidable:
        return (
            f"{limit}: passed; {comparison.num_decidable} of {plural(len(comparison.cells), 'cell')} could have failed."
        )
    return f"{limit}: passed, but nothing was held to it: every cell's verdict is {CANNOT_TELL!r}."
