"""The report: priced cells in, report.html, summary.md and cells.csv out.

Sections build sentences and tables; charts build Plotly figures (no other package imports plotly); page, markdown and
csv_export write one file each. This package neither measures nor prices, and reads no record files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from harness.decision.differences import Difference
from harness.decision.elsewhere import OtherPrices
from harness.decision.shortlist import Shortlist
from harness.files import atomic_write_text, remove_partial_files
from harness.pricing.cost import Priced
from harness.pricing.prices import Price
from harness.schema.assumptions import Assumptions
from harness.schema.record import Record

__all__ = ["write_report"]


def write_report(  # noqa: PLR0913 - each argument comes from a different source
    cells: Sequence[Priced],
    out: Path,
    *,
    generated_at: datetime,
    assumptions: Assumptions | None = None,
    records: Iterable[Record] | None = None,
    invoice_usd: float | None = None,
    differences: Sequence[Difference] = (),
    elsewhere: OtherPrices | None = None,
    shortlist: Shortlist | None = None,
    deadline_s: float | None = None,
    choices: Mapping[str, Sequence[Price | None]] | None = None,
) -> Path:
    """Write report.html, summary.md and cells.csv to a folder, each completely or not at all.

    The same arguments give the same bytes.

    Args:
        cells: Every cell, including failed ones and baselines, in the order in which tables show them.
        out: The folder; created if missing.
        generated_at: The time that the page shows; timezone-aware.
        assumptions: The assumptions that priced `cells`; the reader can change them on the page.
        records: All records, from which the cost of measuring is computed; by default those of `cells`.
        invoice_usd: The invoice for measuring, to compare with the estimate.
        differences: Settings or software that differ between records but should be equal.
        elsewhere: Cells repriced for machines that were not measured.
        shortlist: Machines of the price table, estimated for the study, and which to measure first.
        deadline_s: Seconds allowed from ordering a machine to the end of a run. If set, the report also compares
            machines by the runs that meet this deadline.
        choices: By machine id, the prices that the reader may choose from, to which the user's payment plan is not yet
            applied. The report's own price comes first. Machines without an entry offer no choice.

    Returns:
        Path of report.html.
    """
    # Imported here, because they take plotly, which the words and labels of this package do without.
    from harness.report.csv_export import csv_text
    from harness.report.markdown import markdown
    from harness.report.page import page
    from harness.report.report import build_report

    report = build_report(
        cells,
        assumptions or Assumptions(),
        generated_at=generated_at,
        records=None if records is None else list(records),
        invoice_usd=invoice_usd,
        differences=differences,
        other_prices=elsewhere,
        shortlist=shortlist,
        deadline_s=deadline_s,
        prices=choices,
    )
    csv = csv_text(cells)
    html = page(report, csv)
    summary = markdown(report)
    out.mkdir(parents=True, exist_ok=True)
    remove_partial_files(out)
    atomic_write_text(out / "cells.csv", csv)
    atomic_write_text(out / "summary.md", summary)
    atomic_write_text(out / "report.html", html)
    return out / "report.html"
