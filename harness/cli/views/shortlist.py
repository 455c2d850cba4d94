"""Terminal view, Markdown and JSON fields of `harness shortlist`."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from harness.analysis.estimate import Estimate
from harness.cli.console import print_table, print_text
from harness.cli.layout import columns as table_columns
from harness.decision.shortlist import Shortlist, ShortlistRow, ToMeasure
from harness.report.formatting import MoneyFormat, with_interval
from harness.report.sections.shortlist_words import HEADS, MUST_BE_MEASURED, advice, remarks, row_fields, shown_rows


def show_shortlist(console: Console, found: Shortlist, money: MoneyFormat, *, show_all: bool = False) -> None:
    """Print the machines, what the figures hold, and which to measure first."""
    rows = shown_rows(found, show_all=show_all)
    if rows:
        table = [[escape(with_interval(*field)) for field in row_fields(row, money)] for row in rows]
        machine, *figures, cell = HEADS
        print_table(console, [*table_columns([machine]), *table_columns([], figures), *table_columns([cell])], table)
        print_text(console)
    for line in remarks(found, rows):
        print_text(console, escape(line))
    lines = advice(found, money)
    print_text(console)
    print_text(console, escape(lines[0]), style="bold")
    for line in lines[1:]:
        print_text(console, escape(line), hang=2)


def shortlist_markdown(found: Shortlist, money: MoneyFormat, *, show_all: bool = False) -> str:
    """Return the same as Markdown."""
    rows = shown_rows(found, show_all=show_all)
    lines = [f"| {' | '.join(HEADS)} |", f"|---|{'---:|' * (len(HEADS) - 2)}---|"]
    for row in rows:
        fields = [_as_cell(with_interval(*field)) for field in row_fields(row, money)]
        lines.append(f"| {' | '.join(fields)} |")
    headline, *picks = [_as_cell(line) for line in advice(found, money)]
    return "\n".join([*lines, "", *map(_as_cell, remarks(found, rows)), "", headline, "", *picks]) + "\n"


def shortlist_fields(found: Shortlist) -> dict[str, object]:
    """Return the fields of `--json`."""
    return {
        "num_samples": found.num_samples,
        "batches": found.note,
        "startup_s": found.rental.startup_s,
        "setup_s": found.rental.setup_s,
        "rows": [_row_fields(row) for row in found.rows],
        "measure_first": [_pick_fields(pick) for pick in found.measure_first],
        "probability": found.probability,
    }


def _row_fields(row: ShortlistRow) -> dict[str, object]:
    price = row.price
    fields: dict[str, object] = {
        "provider": price.provider,
        "instance_type": price.instance_type,
        "region": price.region,
        "accelerator": price.accelerator,
        "accelerator_count": price.accelerator_count,
        "usd_per_hour": price.usd_per_hour_on_demand,
        "usd_per_hour_spot": price.usd_per_hour_spot,
        "cell": row.cell,
        "basis": row.basis or MUST_BE_MEASURED,
        "fits": row.fits,
        "largest_batch": row.largest_batch,
        "reasons": row.reasons,
        "misses": row.misses,
    }
    for name in ("samples_per_s", "hours", "usd", "usd_spot"):
        fields |= _estimate_fields(name, getattr(row, name))
    return fields


def _pick_fields(pick: ToMeasure) -> dict[str, object]:
    price = pick.row.price
    fields: dict[str, object] = {
        "provider": price.provider,
        "instance_type": price.instance_type,
        "region": price.region,
        "probability": pick.probability,
        "num_runs": pick.num_runs,
    }
    return fields | _estimate_fields("measuring_s", pick.seconds) | _estimate_fields("measuring_usd", pick.usd)


def _estimate_fields(name: str, estimate: Estimate | None) -> dict[str, object]:
    if estimate is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _as_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'")
