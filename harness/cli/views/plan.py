"""Terminal view of `harness plan`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.markup import escape

from harness.analysis.estimate import Estimate
from harness.cli import console
from harness.cli.layout import columns
from harness.schema.cells import Cell
from harness.workflows.plan_study import PlanRow

_SOURCES = {"probe": ", predicted by a probe", "records": ", predicted by earlier runs"}


def print_plan(rows: Sequence[PlanRow], cells: Sequence[Cell]) -> None:
    """Print one line a cell, the counts of states, and where the figures are from."""
    is_predicted = any(row.predicted_s is not None for row in rows)
    table = [
        (escape(cell.label), *_figures(row, is_predicted=is_predicted), escape(_state(row)))
        for cell, row in zip(cells, rows, strict=True)
    ]
    figures = ["minutes", "USD", "MiB"] if is_predicted else ["minutes", "USD"]
    console.print_table(console.out, columns(["cell"], figures, ["state"]), table)
    states = [row.state for row in rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    console.print_text(console.out, f"\n{len(rows)} cells: {counts}. {_note(rows, is_predicted=is_predicted)}")
    for limits in dict.fromkeys(limits for limits in (cell.config.limits for cell in cells) if limits.wait_for_quiet_s):
        console.print_text(
            console.out,
            f"Before a cell begins, at most {limits.wait_for_quiet_s:g} s are waited until other processes use less than "
            f"{limits.quiet_below:.0%} of the CPU.",
        )


def _figures(row: PlanRow, *, is_predicted: bool) -> tuple[str, ...]:
    """Return minutes and dollars, with memory if any cell is predicted; predictions have their 95 % intervals."""
    if row.predicted_s is None:
        minutes = "" if row.expected_s is None else f"{row.expected_s / 60:.1f}"
        dollars = "" if row.expected_usd is None else f"{row.expected_usd:.4f}"
        return (minutes, dollars, "")[: 3 if is_predicted else 2]
    return (
        _with_ends(row.predicted_s, lambda seconds: f"{seconds / 60:.1f}"),
        _with_ends(row.predicted_usd, lambda usd: f"{usd:.4f}"),
        _with_ends(row.predicted_peak_bytes, lambda num_bytes: f"{num_bytes / 2**20:,.0f}"),
    )


def _with_ends(estimate: Estimate | None, text: Callable[[float], str]) -> str:
    if estimate is None:
        return ""
    ends = "" if estimate.low is None or estimate.high is None else f" ({text(estimate.low)} to {text(estimate.high)})"
    return text(estimate.value) + ends


def _state(row: PlanRow) -> str:
    if row.reason:
        return f"{row.state}: {row.reason}"
    return row.state + _SOURCES.get(row.basis or "", "")


def _note(rows: Sequence[PlanRow], *, is_predicted: bool) -> str:
    missing = sum(row.state != "unsupported" and row.basis is None for row in rows)
    hint = f" --probe predicts cells that never ran, by timing a few steps ({missing} here)." if missing else ""
    if not is_predicted:
        return f"Minutes and dollars are those of the last run, where there is one.{hint}"
    return (
        "Predicted figures have 95% intervals; the dollars are the bill of one run on a machine of its own. Others are those "
        f"of the last run.{hint}"
    )
