"""A comparison as a person reads it, as a pull request shows it, and as a script does; and where its sides come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.analysis.significance import SIGNIFICANCE_LEVEL
from harness.decision.compare import CANNOT_TELL, NO_DIFFERENCE, CompareOptions, Comparison, MetricVerdict, compare
from harness.decision.differences import describe_difference, require_same
from harness.decision.pairing import UnpairedCell, pair_cells
from harness.errors import UserError
from harness.report.formatting import MoneyFormat, clean, listed, memory, number, plural
from harness.schema.interleaving import InterleavedRuns
from harness.workflows.priced_records import Priceable, load_priced

_NAMES = {
    "samples_per_s": "samples/s",
    "peak_memory_bytes": "peak memory",
    "accuracy": "accuracy, B-A",
}
_COLOURS = {"slower": "red", "faster": "green", "worse": "red", "better": "green", "dearer": "red", "cheaper": "green"}
_WITHIN = "†"  # an asterisk would be Markdown's
_MOST_SHOWN = 1000  # times: an interval that goes on from here says nothing
_WIDTHS = (15, 9, 9, 26, 13)
_HEAD = ("cell", "figure", "A", "B", "B/A, 95 %", "verdict")


@dataclass(frozen=True)
class SideOf:
    """Where a side's records are, and which machine's are meant; None: the only one."""

    path: Path
    machine: str | None


def read_side(text: str, machine: str | None, option: str) -> SideOf:
    """Part `PATH` or `PATH:MACHINE`.

    Raises:
        UserError: When there is no such path, or two machines are named.
    """
    if Path(text).exists():
        return SideOf(Path(text), machine)
    path, colon, named = text.rpartition(":")
    if not colon or not Path(path).exists():
        raise UserError(f"{text}: no such folder, file or archive of records (PATH or PATH:MACHINE is needed)")
    if machine is not None and machine != named:
        raise UserError(f"{text} and {option} {machine} name two machines: give one of them")
    return SideOf(Path(path), named)


def read_fraction(text: str | None, option: str) -> float | None:
    """`3%` or `0.03`.

    Raises:
        UserError: When it is neither, or not from 0 to below 1.
    """
    if text is None:
        return None
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise UserError(f"{option} {text}: a share from 0% to below 100% is needed, such as 3% or 0.03")
    return value


def load_comparison(
    sides: tuple[SideOf, SideOf],
    asked: CompareOptions,
    *,
    prices: Path | None = None,
    instances: Mapping[str, str] | None = None,
    usd_per_hour: float | None = None,
    strict: bool = False,
) -> tuple[Comparison, list[Priceable]]:
    """Read, price, pair and judge two sides.

    Raises:
        UserError: For anything that the user can mend; with `strict`, where the sides differ in what should be the same.
    """
    read = [
        load_priced([side.path], prices=prices, instances=instances, usd_per_hour=usd_per_hour) for side in sides
    ]  # fmt: skip
    pairing = pair_cells(read[0].cells, read[1].cells, sides[0].machine, sides[1].machine)
    if strict:
        require_same(pairing.differences)
    return compare(pairing, asked), read


def compare_turns(turns: InterleavedRuns, found: Priceable, fail_above: float | None) -> Comparison:
    """Hold the two settings' cells of an interleaved run against each other.

    Raises:
        UserError: Where none ended well.
    """
    one, other = (
        [cell for cell in found.cells if {run.config_hash for run in cell.summary.records} & hashes]
        for hashes in turns.hashes
    )
    return compare(pair_cells(one, other, across=turns.keys), CompareOptions(fail_above=fail_above))


def describe_comparison(console: Console, found: Comparison, money: MoneyFormat) -> None:
    """Print it: a small table a cell, all of one width, since cells have long names."""
    head: tuple[str, ...] = _HEAD[1:]
    for name, *row in _rows(found, money):
        if name:
            console.print(f"\n[bold]{escape(name)}[/]", highlight=False, soft_wrap=True)
        if head:
            console.print(_line(head, ""), style="bold", highlight=False)
            head = ()
        console.print(_line(row, _COLOURS.get(row[-1], "")), highlight=False)
    console.print()
    for line in _lines(found, money):
        console.print(escape(line), highlight=False, soft_wrap=True)


def _line(texts: Sequence[str], style: str) -> Table:
    table = Table.grid(padding=(0, 2))
    for index, width in enumerate(_WIDTHS):
        table.add_column(width=width, justify="left" if index in (0, 4) else "right", overflow="fold")
    table.add_row(*map(escape, texts[:-1]), f"[{style}]{texts[-1]}[/]" if style else texts[-1])
    return table


def to_markdown(found: Comparison, money: MoneyFormat) -> str:
    """A table for a pull request, with what limits it below."""
    first, *more = [_cell(line) for line in _lines(found, money)]
    lines = [first, "", f"| {' | '.join(_HEAD)} |", "|---|---|---:|---:|---:|---|"]
    lines += [f"| {' | '.join(_cell(text) for text in row)} |" for row in _rows(found, money)]
    differing = [f"- {_cell(describe_difference(one))}" for one in found.pairing.differences]
    if differing:
        lines += ["", "A and B differ, beside what is compared, in", "", *differing]
    return "\n".join([*lines, "", *(f"- {line}" for line in more)]) + "\n"


def comparison_fields(found: Comparison) -> dict[str, Any]:
    """The same for a script; units in the names, `ratio` is B / A, of accuracies `difference` is B - A."""
    return {
        "asked": asdict(found.asked),
        "failed": found.failed,
        "cells": [
            {
                "cell": one.a.summary.cell,
                "study_a": one.a.summary.study,
                "study_b": one.b.summary.study,
                "machine_a": one.a.summary.machine_id,
                "machine_b": one.b.summary.machine_id,
                "num_runs_a": one.a.summary.num_ok,
                "num_runs_b": one.b.summary.num_ok,
                "fails": one.fails,
                "figures": {key: _fields(judged) for key, judged in one.figures.items()},
            }
            for one in found.cells
        ],
        "overall": {key: _fields(judged) for key, judged in found.overall.items()},
        "alone": [
            {"side": one.side, "cell": one.cell.summary.cell, "machine": one.cell.summary.machine_id}
            | {"other_outcome": None if one.other is None else one.other.summary.outcome}
            for one in found.pairing.alone
        ],
        "differences": [describe_difference(one) for one in found.pairing.differences],
        "notes": list(found.pairing.notes),
    }


def _fields(judged: MetricVerdict) -> dict[str, Any]:
    change = "difference" if judged.figure.key == "accuracy" else "ratio"
    return {
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


def _rows(found: Comparison, money: MoneyFormat) -> Iterator[tuple[str, ...]]:
    machines = {one.a.summary.machine_id for one in found.cells}
    for cell in found.cells:
        one, other = cell.a.summary.cell, cell.b.summary.cell
        name = one if one == other or len(machines) > 1 else f"{one} against {other}"
        name = f"{cell.a.summary.machine_id}/{name}" if len(machines) > 1 else name
        yield from _block(clean(name), cell.figures.values(), money)
    if len(found.cells) > 1:
        yield from _block("all cells, geometric mean", found.overall.values(), money)


def _block(name: str, figures: Any, money: MoneyFormat) -> Iterator[tuple[str, ...]]:  # noqa: ANN401 - a view of a dictionary's values
    for judged in figures:
        yield (name, _name(judged, money), *_sides(judged, money), _change(judged), judged.verdict)
        name = ""


def _name(judged: MetricVerdict, money: MoneyFormat) -> str:
    return _NAMES.get(judged.figure.key) or f"{money.code} per 1,000"


def _sides(judged: MetricVerdict, money: MoneyFormat) -> tuple[str, str]:
    if judged.a is None or judged.b is None:
        return "", ""
    if judged.figure.key == "peak_memory_bytes":
        return memory(judged.a), memory(judged.b)
    if judged.figure.key == "accuracy":
        return f"{judged.a:.3f}", f"{judged.b:.3f}"
    show = money.amount if judged.figure.key == "usd_per_1000_samples" else number
    return show(judged.a), show(judged.b)


def _change(judged: MetricVerdict) -> str:
    change, sign = judged.change, "+" if judged.figure.key == "accuracy" else ""

    def show(value: float) -> str:
        return f"{value:{sign}.3f}" if value < _MOST_SHOWN else f">{_MOST_SHOWN}"

    if change.low is None or change.high is None:
        return show(change.value)
    mark = "" if judged.is_certain else _WITHIN
    return f"{show(change.value)} ({show(change.low)} to {show(change.high)}){mark}"


def _lines(found: Comparison, money: MoneyFormat) -> Iterator[str]:
    """What the table can't say: why, what stands alone, what was assumed, and what fails."""
    asked = found.asked
    counts = Counter(one.speed.verdict for one in found.cells)
    said = [f"{count} {verdict}" for verdict, count in counts.most_common()]
    failing = list(_failing(found, asked.fail_above)) if asked.fail_above is not None else []
    yield " ".join([f"Speed of {plural(len(found.cells), 'cell')} on both sides: {listed(said) or 'none'}.", *failing])
    yield (
        f"{NO_DIFFERENCE}: the interval lies within {100 * asked.margin:g} % (accuracy: {100 * asked.accuracy_margin:g} "
        f"points, B - A). Other verdicts are Holm's over all cells of a figure, at {100 * SIGNIFICANCE_LEVEL:g} %."
    )
    figures = [one for cell in found.cells for one in cell.figures.values()]
    if any(not one.is_certain and one.change.low is not None for one in figures):
        yield f"{_WITHIN} Within runs alone: what differs from run to run is not in this interval."
    if asked.run_spread is not None:
        yield f"Assumed, not measured, where a side has too few runs: they differ by {100 * asked.run_spread:g} % (SD)."
    reasons = Counter((_name(judged, money), judged.verdict, judged.reason) for judged in figures if judged.reason)
    for (name, verdict, reason), count in reasons.items():
        yield f"{verdict}, {name} of {plural(count, 'cell')}: {reason}."
    yield from (_alone(one) for one in found.pairing.alone)
    yield from found.pairing.notes


def _alone(one: UnpairedCell) -> str:
    name = f"{one.cell.summary.cell} ({one.cell.summary.study})"
    if one.other is None:
        return f"On {one.side} alone: {clean(name)}."
    other = "B" if one.side == "A" else "A"
    return f"On {one.side} alone: {clean(name)}; {other} ended {one.other.summary.outcome}."


def _failing(found: Comparison, fail_above: float) -> Iterator[str]:
    failing: Sequence[str] = [one.a.summary.cell for one in found.cells if one.fails]
    failing = [*failing, *(f"{one.cell.summary.cell} (no longer runs)" for one in found.lost)]
    limit = f"--fail-above {100 * fail_above:g}%"
    if failing:
        yield f"{limit}: FAILED, certainly slower by more: {clean(listed(failing))}."
    elif found.num_decidable:
        yield f"{limit}: passed; {found.num_decidable} of {plural(len(found.cells), 'cell')} could have failed."
    else:
        yield f"{limit}: passed, but nothing was held to it: every cell's verdict is {CANNOT_TELL!r}."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
