"""The report: priced cells in, report.html, summary.md and cells.csv out.

Sections build sentences and tables, charts build plotly figures (nothing else imports plotly), and page, markdown and
csv_export write one file each. Nothing here measures, prices or reads records.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from harness.decision.differences import Difference
from harness.decision.elsewhere import OtherPrices
from harness.files import atomic_write_text
from harness.pricing.cost import Priced
from harness.pricing.prices import Price
from harness.report.csv_export import csv_text
from harness.report.markdown import markdown
from harness.report.page import page
from harness.report.report import build_report
from harness.schema.assumptions import Assumptions
from harness.schema.record import Record

__all__ = ["write_report"]


def write_report(  # noqa: PLR0913 - each has a source of its own
    cells: Sequence[Priced],
    out: Path,
    *,
    generated_at: datetime,
    assumptions: Assumptions | None = None,
    records: Iterable[Record] | None = None,
    invoice_usd: float | None = None,
    differences: Sequence[Difference] = (),
    elsewhere: OtherPrices | None = None,
    deadline_s: float | None = None,
    choices: Mapping[str, Sequence[Price | None]] | None = None,
) -> Path:
    """Write report.html, summary.md and cells.csv to a folder, each completely or not at all.

    The same arguments give the same bytes.

    Args:
        cells: Every cell, including failed ones and baselines, in the order in which tables show them.
        out: The folder; created if missing.
        generated_at: The time that the page shows; timezone-aware.
        assumptions: Those under which `cells` was priced; the reader can change them on the page.
        records: All records, whose time and money measuring cost; by default those of `cells`.
        invoice_usd: The invoice for measuring, to compare with the estimate.
        differences: In what the records differ that should be the same.
        elsewhere: The measured seconds at other machines' prices.
        deadline_s: Seconds from the order of a machine to the end of a run; also compare the runs that meet it.
        choices: By machine id, the prices before the user's plan that the reader may choose from, the report's own
            first. Machines without an entry have no other price.

    Returns:
        Path of report.html.
    """
    report = build_report(
        cells,
        assumptions or Assumptions(),
        generated_at=generated_at,
        records=None if records is None else list(records),
        invoice_usd=invoice_usd,
        differences=differences,
        other_prices=elsewhere,
        deadline_s=deadline_s,
        prices=choices,
    )
    csv = csv_text(cells)
    html = page(report, csv)
    summary = markdown(report)
    out.mkdir(parents=True, exist_ok=True)
    atomic_write_text(out / "cells.csv", csv)
    atomic_write_text(out / "summary.md", summary)
    atomic_write_text(out / "report.html", html)
    return out / "report.html"
