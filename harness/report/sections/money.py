"""Costs of the chosen cell and of every measured cell, and ways to pay for them (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.analysis.estimate import Estimate, map_increasing
from harness.decision.choice import Choice
from harness.decision.study_cost import StudyCost
from harness.pricing.cost import Priced
from harness.pricing.prices import Price
from harness.report.formatting import MoneyFormat, clean, interval, number, seconds
from harness.report.labels import (
    basis_label,
    cell_indices,
    common_values,
    describe,
    machine_labels,
    missed_label,
    short_labels,
)
from harness.report.sections.assumptions import assumptions_table
from harness.report.sections.cell_table import why_missing
from harness.report.sections.payment_plans import (
    PLANS,
    buying_sentences,
    hosted_sentence,
    spot_sentence,
    study_sentences,
)
from harness.report.table import Field, Row, Table, join_lines, table, text_field
from harness.schema.assumptions import Assumptions

LINE_HEADS = ("figure", "amount", "what is in it")
CELL_HEADS = (
    *("cell", "a run, measured", "a run, billed", "billed on demand", "billed on spot", "an epoch"),
    *("a point above TF-IDF", "a month", "a million predictions", "energy of a run"),
)
_CELL_FIGURES = (
    *("usd_per_run", "usd_billed", "usd_billed_on_demand", "usd_billed_spot", "usd_per_epoch"),
    *("usd_per_accuracy_point", "usd_per_month", "usd_per_million_predictions"),
)
MAX_ROWS = 40
_TO_TARGET = "set-up, training and validations until it was reached, of all runs for each that reached it"
_BILLING_UNITS = {1.0: "second", 60.0: "minute", 3600.0: "hour"}


@dataclass(frozen=True)
class Money:
    """The section on costs.

    Attributes:
        subject: Description of the chosen cell; empty without a chosen cell.
        lines: The chosen cell's costs.
        cells: Every measured cell's costs.
        compared: Sentences that compare spot with on demand, and own serving with a hosted API.
        buying: Sentences on when buying or a commitment is cheaper than renting.
        study: Sentences on what measuring cost.
        assumptions: The assumptions about prices.
        currency: A sentence on the exchange rate; empty in USD.
    """

    subject: str
    lines: Table
    cells: Table
    compared: tuple[str, ...]
    buying: tuple[str, ...]
    study: tuple[str, ...]
    assumptions: Table
    currency: str


def money_section(
    cells: Sequence[Priced],
    choice: Choice,
    assumptions: Assumptions,
    study: StudyCost,
    money: MoneyFormat,
    *,
    invoice_usd: float | None = None,
) -> Money:
    """Build the section.

    Args:
        cells: Every cell of the report.
        choice: The chosen cell and the baselines.
        assumptions: The assumptions that priced the cells.
        study: The cost of measuring.
        money: The report's currency.
        invoice_usd: The invoice for measuring, to compare with the estimate.
    """
    pick, book = choice.pick, assumptions.prices
    measured = [cell for cell in cells if cell.summary.num_ok]
    labels, machines, indices = short_labels(measured), machine_labels(cells), cell_indices(cells)
    compared = [] if pick is None else [spot_sentence(pick, assumptions, money), hosted_sentence(pick, book, money)]
    return Money(
        subject="" if pick is None else describe(pick, common_values(cells)),
        lines=table(LINE_HEADS, [] if pick is None else _lines(pick, indices[pick.key], assumptions, money)),
        cells=table(
            CELL_HEADS, [_row(cell, indices[cell.key], labels[cell.key], money) for cell in measured], MAX_ROWS
        ),
        compared=tuple(filter(None, compared)),
        buying=tuple(buying_sentences(cells, assumptions, machines, money)),
        study=tuple(study_sentences(study, machines, invoice_usd, money)),
        assumptions=assumptions_table(assumptions, "prices"),
        currency=money.rate_sentence,
    )


def _lines(cell: Priced, index: int, assumptions: Assumptions, money: MoneyFormat) -> list[Row]:
    """Build a row for each cost of the chosen cell; the row says what the cost includes."""
    lines = [
        (text_field(name, name), _amount(cell, index, figure, money), text_field(contents))
        for name, figure, contents in _line_contents(cell, assumptions)
    ]
    return [*lines, *_energy_lines(cell, index, assumptions, money)]


def _line_contents(cell: Priced, assumptions: Assumptions) -> list[tuple[str, str, str]]:
    """Return each cost's name, the attribute of Priced that holds it, and what it includes."""
    book, price = assumptions.prices, cell.price
    spot, retraining, rental = book.spot, book.retraining, book.rental
    plan = "on_demand" if price is None else price.plan
    before = f"{seconds(rental.startup_s)} to start and {seconds(rental.setup_s)} to set up come before"
    rounding = "" if price is None else _rounding(price)
    billed = "each hour counts alike" if plan == "own" else before + rounding
    idle = f"hours idle: {rental.idle_hours_per_month:g}"
    if plan in ("own", "committed"):
        idle = "idle hours are in the price"
    return [
        ("A run, measured", "usd_per_run", "set-up, training and evaluation, in measured seconds"),
        ("A run, billed", "usd_billed", f"{PLANS[plan]}: {billed}"),
        ("The same on demand", "usd_billed_on_demand", f"{before}{rounding}"),
        (
            "The same on spot machines, expected",
            "usd_billed_spot",
            f"{spot.interruptions_per_hour:g} interruptions an hour, a checkpoint every {spot.checkpoint_every_s:g} s",
        ),
        ("An epoch", "usd_per_epoch", "training alone"),
        ("To the target accuracy", "usd_to_target", join_lines(_TO_TARGET, missed_label(cell))),
        (
            "A point of accuracy above TF-IDF",
            "usd_per_accuracy_point",
            "the billed run over hundredths of test accuracy above the baseline's",
        ),
        (
            "A month",
            "usd_per_month",
            f"models made anew: {retraining.per_month:g}, runs for each: {retraining.trials_per_kept:g}, {idle}",
        ),
        (
            "A million predictions",
            "usd_per_million_predictions",
            f"at the test evaluation's speed, the machine in use {book.serving.utilisation_fraction:.0%} of the time",
        ),
    ]


def _rounding(price: Price) -> str:
    minimum = f", {price.minimum_s:g} s at least" if price.minimum_s else ""
    return f"{minimum}, billed by the {_BILLING_UNITS.get(price.granularity_s, f'{price.granularity_s:g} s')}"


def _energy_lines(cell: Priced, index: int, assumptions: Assumptions, money: MoneyFormat) -> list[Row]:
    energy, book = cell.energy, assumptions.prices.energy
    if energy is None:
        why = "the machine has no counter, and prices.toml states no watts (energy.watts)"
        missing = Field("not measured", None, title=why, cell=index, figure="energy_kwh", rewrites_extra=True)
        return [(text_field("Energy of a run", ""), missing, text_field(why))]
    electricity = Field(money.amount(energy.usd.value), energy.usd.value, money.interval(energy.usd))
    emissions = Field(f"{number(energy.gco2e.value)} gCO2e", energy.gco2e.value, interval(energy.gco2e, "number"))
    # Electricity is not added to the costs: the price of a machine, rented or owned, already includes it.
    lines = [
        ("Energy of a run", "energy_kwh", _kwh(energy.kwh), f"{clean(energy.method)}; with a PUE of {book.pue:g}"),
        ("Its electricity", "energy_usd", electricity, "within the amounts above, not on top"),
        ("Its emissions", "energy_gco2e", emissions, f"at {book.gco2e_per_kwh:g} gCO2e/kWh"),
    ]
    return [
        (
            text_field(name, name),
            _energy_field(field, index, figure, is_estimate=energy.is_estimate),
            text_field(contents),
        )
        for name, figure, field, contents in lines
    ]


def _row(cell: Priced, index: int, label: str, money: MoneyFormat) -> Row:
    energy = Field("not measured", None, title="no counter, and no watts stated")
    is_estimate = False
    if cell.energy is not None:
        energy, is_estimate = _kwh(cell.energy.kwh), cell.energy.is_estimate
    return (
        text_field(label, label),
        *(_amount(cell, index, figure, money) for figure in _CELL_FIGURES),
        _energy_field(energy, index, "energy_kwh", is_estimate=is_estimate),
    )


def _energy_field(field: Field, index: int, figure: str, *, is_estimate: bool) -> Field:
    """Mark an energy field for the page to recompute; if the energy is an estimate, say so in the extra line."""
    extra = join_lines(field.extra, "estimate" if is_estimate else "")
    return replace(field, extra=extra, cell=index, figure=figure, rewrites_extra=True)


def _amount(cell: Priced, index: int, figure: str, money: MoneyFormat) -> Field:
    """Build a field of an amount with its interval and the price's basis, or with the reason why it is unknown."""
    amount: Estimate | None = getattr(cell, figure)
    if amount is None:
        return Field("not known", None, title=_why_unknown(cell), cell=index, figure=figure, rewrites_extra=True)
    extra = join_lines(money.interval(amount), basis_label(cell.price))
    return Field(money.amount(amount.value), amount.value, extra, cell=index, figure=figure, rewrites_extra=True)


def _why_unknown(cell: Priced) -> str:
    if cell.price is None:
        return clean(cell.missing or "no price")
    return why_missing(cell) if not cell.summary.num_ok else "its price or its measurement is not known"


def _kwh(energy: Estimate) -> Field:
    """Build a field of an energy in kWh, or in Wh below 1 kWh."""
    if energy.value >= 1:
        return Field(f"{number(energy.value)} kWh", energy.value, interval(energy, "number"))
    watt_hours = map_increasing(energy, lambda kwh: kwh * 1000)
    return Field(f"{number(watt_hours.value)} Wh", energy.value, interval(watt_hours, "number"))
