"""The content of a report: priced cells, the chosen cell, and the sections of both page and summary.md (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from harness.decision.choice import Choice, choose
from harness.decision.differences import Difference
from harness.decision.elsewhere import OtherPrices
from harness.decision.shortlist import Shortlist
from harness.decision.study_cost import study_cost
from harness.pricing.cost import Priced
from harness.pricing.prices import Price
from harness.report.formatting import MoneyFormat
from harness.report.sections.answer import answer
from harness.report.sections.learning import Learning, learning_section
from harness.report.sections.machines import Machines, machines_section
from harness.report.sections.money import Money, money_section
from harness.report.sections.other_prices import OtherPricesSection, other_prices_section
from harness.report.sections.plain_verdict import alternatives, plain_sentences
from harness.report.sections.shortlist import ShortlistSection, shortlist_section
from harness.report.sections.worth import WorthSection, worth_section
from harness.report.table import Table
from harness.schema.assumptions import Assumptions
from harness.schema.record import Record


@dataclass(frozen=True)
class Report:
    """The content of the page and of summary.md.

    Attributes:
        cells: Every cell, in the order in which tables show them.
        choice: The chosen cell, its competitors and the baselines.
        assumptions: The assumptions that priced the cells.
        prices: By machine id, the prices that the reader may choose from (see `page_data`).
        records: All records, including older runs of the same repeats.
        generated_at: The time that the report shows, in UTC.
        answer: The answer, in sentences.
        plain: The verdict in plain sentences, for someone who decides; empty if no accuracy was measured.
        alternatives: The choice beside the runner-up, what more money buys, and the baselines.
        machines, other_prices, shortlist, learning: Sections; None if there is nothing to show.
    """

    cells: Sequence[Priced]
    choice: Choice
    assumptions: Assumptions
    prices: Mapping[str, Sequence[Price | None]]
    records: Sequence[Record]
    generated_at: datetime
    answer: Sequence[str]
    plain: Sequence[str]
    alternatives: Table
    money: Money
    worth: WorthSection
    machines: Machines | None
    other_prices: OtherPricesSection | None
    shortlist: ShortlistSection | None
    learning: Learning | None


def build_report(  # noqa: PLR0913 - each argument comes from a different source
    cells: Sequence[Priced],
    assumptions: Assumptions,
    *,
    generated_at: datetime,
    records: Sequence[Record] | None = None,
    invoice_usd: float | None = None,
    differences: Sequence[Difference] = (),
    other_prices: OtherPrices | None = None,
    shortlist: Shortlist | None = None,
    deadline_s: float | None = None,
    prices: Mapping[str, Sequence[Price | None]] | None = None,
) -> Report:
    """Choose a cell, and build the sections of both page and summary.md; `write_report` explains the arguments."""
    money, choice = MoneyFormat(assumptions.prices.currency), choose(cells, assumptions)
    if records is None:
        records = [record for cell in cells for record in cell.summary.records]
    study = study_cost(cells, assumptions.prices.rental, records)
    return Report(
        cells=cells,
        choice=choice,
        assumptions=assumptions,
        prices=prices or {},
        records=records,
        generated_at=generated_at.astimezone(UTC),
        answer=answer(cells, choice, money),
        plain=plain_sentences(cells, choice, money) if choice.ways else (),
        alternatives=alternatives(cells, choice, money),
        money=money_section(cells, choice, assumptions, study, money, invoice_usd=invoice_usd),
        worth=worth_section(cells, choice, assumptions, money),
        machines=machines_section(cells, assumptions, money, differences=differences, deadline_s=deadline_s),
        other_prices=other_prices_section(other_prices, cells, money),
        shortlist=shortlist_section(shortlist, money),
        learning=learning_section(cells, assumptions, money),
    )
