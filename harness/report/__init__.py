"""Priced rows to one self-contained HTML page, summary.md and cells.csv (the only user of plotly)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from harness.decision.choice import choose
from harness.decision.differences import Difference
from harness.decision.elsewhere import OtherPrices
from harness.decision.study_cost import study_cost
from harness.files import atomic_write_text
from harness.pricing.cost import Priced
from harness.pricing.prices import Price
from harness.report.csv_export import csv_text
from harness.report.formatting import MoneyFormat
from harness.report.markdown import markdown
from harness.report.page import Sections, page
from harness.report.sections.answer import answer
from harness.report.sections.learning import learning
from harness.report.sections.machines import machines
from harness.report.sections.money import money_section
from harness.report.sections.other_prices import moved_seconds
from harness.report.sections.worth import worth_words
from harness.schema.assumptions import Assumptions
from harness.schema.record import Record

__all__ = ["write_report"]


def write_report(  # noqa: PLR0913 - each has a source of its own
    priced: Sequence[Priced],
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
    """Write report.html, summary.md and cells.csv under `out`, each whole or not at all.

    The same rows and time give the same bytes.

    Args:
        priced: Every cell, failed ones and baselines included, in the order in which tables show them.
        out: Folder; made if missing.
        generated_at: Aware time that the page shows, in UTC.
        assumptions: Those under which `priced` was priced; the page lets its reader change them.
        records: All that were found, of which measuring them took time and money; by default those of `priced`.
        invoice_usd: What was paid for measuring, as the reader typed it in.
        differences: In what records differ that are shown side by side (see comparison.py).
        elsewhere: Measured seconds at other machines' prices (see elsewhere.py).
        deadline_s: From the order of a machine to the end of a run; machines are compared within it too.
        choices: By machine id, the prices that its reader may choose from, before the reader's plan; the first is the
            report's own (see prices.choices). Of a machine without an entry there is no other price to choose.

    Returns:
        Path of report.html.
    """
    written_at = generated_at.astimezone(UTC)
    found = [one for cell in priced for one in cell.summary.records] if records is None else list(records)
    assumed = assumptions or Assumptions()
    csv = csv_text(priced)
    money = MoneyFormat(assumed.prices.currency)
    choice = choose(priced)
    sentences = answer(priced, choice, money)
    compared = machines(priced, assumed, money, differences=differences, deadline_s=deadline_s)
    study = study_cost(priced, assumed.prices.rental, found)
    parts = Sections(
        money=money_section(priced, choice, assumed, study, money, invoice_usd=invoice_usd),
        worth=worth_words(priced, choice, assumed, money),
        machines=compared,
        elsewhere=moved_seconds(elsewhere, priced, money),
        learning=learning(priced, assumed, money),
    )
    summary = markdown(
        priced, sentences, compared, parts.money, parts.worth, parts.learning, money=money, generated_at=written_at
    )
    shown = page(priced, choice, sentences, csv, assumed, choices or {}, parts, found, generated_at=written_at)
    out.mkdir(parents=True, exist_ok=True)
    atomic_write_text(out / "cells.csv", csv)
    atomic_write_text(out / "summary.md", summary)
    html = out / "report.html"
    atomic_write_text(html, shown)
    return html
