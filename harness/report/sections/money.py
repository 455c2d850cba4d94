"""What it costs: the chosen cell's figures, those of every measured cell, and ways to pay for them (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.analysis.estimate import Estimate, map_increasing
from harness.decision.choice import Choice
from harness.decision.study_cost import StudyCost
from harness.pricing.cost import Priced
from harness.pricing.prices import Price
from harness.report.formatting import MoneyFormat, clean, interval, number, seconds
from harness.report.labels import common_values, describe, machine_labels, short_labels
from harness.report.sections.assumptions import input_rows
from harness.report.sections.cell_table import Field, basis_label, why_missing
from harness.report.sections.payment_plans import (
    PLANS,
    buying_sentences,
    hosted_sentence,
    spot_sentence,
    study_sentences,
)
from harness.schema.assumptions import Assumptions

LINE_HEADS = ("figure", "amount", "what is in it")
CELL_HEADS = (
    *("cell", "a run, measured", "a run, billed", "billed on demand", "billed on spot", "an epoch"),
    *("a point above TF-IDF", "a month", "a million predictions", "energy of a run"),
)
MAX_ROWS = 40
_KILO = 1000.0
_UNITS = {1.0: "second", 60.0: "minute", 3600.0: "hour"}


@dataclass(frozen=True)
class Money:
    """The section in words.

    Attributes:
        subject: The chosen cell; empty where none was measured.
        lines: Its figures, in the order of LINE_HEADS.
        rows: Every measured cell's, in the order of CELL_HEADS.
        compared: Spot against on demand, and serving against a hosted API.
        inputs: The assumptions, in the order of INPUT_HEADS.
        currency: The rate; empty in USD.
    """

    subject: str
    lines: tuple[tuple[Field, ...], ...]
    rows: tuple[tuple[Field, ...], ...]
    num_more: int
    compared: tuple[str, ...]
    buying: tuple[str, ...]
    study: tuple[str, ...]
    inputs: tuple[tuple[Field, ...], ...]
    currency: str


def money_section(
    cells: Sequence[Priced],
    choice: Choice,
    assumed: Assumptions,
    study: StudyCost,
    money: MoneyFormat,
    *,
    invoice_usd: float | None = None,
) -> Money:
    """Everything that the section says."""
    pick, book = choice.pick, assumed.prices
    good = [cell for cell in cells if cell.summary.num_ok]
    labels, machines = short_labels(good), machine_labels(cells)
    places = {cell.key: index for index, cell in enumerate(cells)}
    compared = [spot_sentence(pick, assumed, money), hosted_sentence(pick, book, money)] if pick is not None else []
    return Money(
        subject="" if pick is None else describe(pick, common_values(cells)),
        lines=() if pick is None else tuple(_lines(pick, places[pick.key], assumed, money)),
        rows=tuple(_row(cell, places[cell.key], labels[cell.key], money) for cell in good[:MAX_ROWS]),
        num_more=max(0, len(good) - MAX_ROWS),
        compared=tuple(filter(None, compared)),
        buying=tuple(buying_sentences(cells, assumed, machines, money)),
        study=tuple(study_sentences(study, machines, invoice_usd, money)),
        inputs=tuple(input_rows(assumed, "prices")),
        currency=money.rate_sentence,
    )


def _lines(cell: Priced, place: int, assumed: Assumptions, money: MoneyFormat) -> list[tuple[Field, ...]]:
    book, price = assumed.prices, cell.price
    before = f"{seconds(book.rental.startup_s)} to start and {seconds(book.rental.setup_s)} to set up come before"
    rounded = "" if price is None else _rounding(price)
    own = price is not None and price.plan == "own"
    whole = price is not None and price.plan in ("own", "committed")
    paid = PLANS["on_demand" if price is None else price.plan]
    spot, often = book.spot, book.retraining
    told = [
        ("A run, measured", "usd_per_run", "set-up, training and evaluation, in measured seconds"),
        ("A run, billed", "usd_billed", f"{paid}: {'each hour counts alike' if own else before + rounded}"),
        ("The same on demand", "usd_billed_on_demand", f"{before}{rounded}"),
        (
            "The same on spot machines, expected",
            "usd_billed_spot",
            f"{spot.interruptions_per_hour:g} interruptions an hour, a checkpoint every {spot.checkpoint_every_s:g} s",
        ),
        ("An epoch", "usd_per_epoch", "training alone"),
        ("To the target accuracy", "usd_to_target", "set-up, training and validations until it was reached"),
        (
            "A point of accuracy above TF-IDF",
            "usd_per_accuracy_point",
            "the billed run over hundredths of test accuracy above the baseline's",
        ),
        (
            "A month",
            "usd_per_month",
            f"models made anew: {often.per_month:g}, runs for each: {often.trials_per_kept:g}, "
            + ("idle hours are in the price" if whole else f"hours idle: {book.rental.idle_hours_per_month:g}"),
        ),
        (
            "A million predictions",
            "usd_per_million_predictions",
            f"at the test evaluation's speed, the machine in use {book.serving.utilisation_fraction:.0%} of the time",
        ),
    ]
    lines = [
        (Field(name, name, numeric=False), _amount(cell, place, figure, money), Field(what, None, numeric=False))
        for name, figure, what in told
    ]
    return [*lines, *_energy_lines(cell, place, assumed, money)]


def _rounding(price: Price) -> str:
    least = f", {price.minimum_s:g} s at least" if price.minimum_s else ""
    return f"{least}, billed by the {_UNITS.get(price.granularity_s, f'{price.granularity_s:g} s')}"


def _energy_lines(cell: Priced, place: int, assumed: Assumptions, money: MoneyFormat) -> list[tuple[Field, ...]]:
    energy, book = cell.energy, assumed.prices.energy
    if energy is None:
        why = "the machine has no counter, and prices.toml states no watts (energy.watts)"
        return [
            (
                Field("Energy of a run", "", numeric=False),
                Field("not measured", None, title=why, cell=place, figure="energy_kwh", rests=True),
                Field(why, None, numeric=False),
            )
        ]
    # What one pays for electricity is in the price of a rented machine, and in that of one's own.
    told = [
        (
            "Energy of a run",
            "energy_kwh",
            _kwh(energy.kwh),
            f"{clean(energy.method)}; with a PUE of {book.pue:g}",
        ),
        (
            "Its electricity",
            "energy_usd",
            Field(money.amount(energy.usd.value), energy.usd.value, money.interval(energy.usd)),
            "within the amounts above, not on top",
        ),
        ("Its emissions", "energy_gco2e", _grams(energy.gco2e), f"at {book.gco2e_per_kwh:g} gCO2e/kWh"),
    ]
    return [
        (
            Field(name, name, numeric=False),
            replace(_estimated(found, is_estimate=energy.is_estimate), cell=place, figure=figure, rests=True),
            Field(what, None, numeric=False),
        )
        for name, figure, found, what in told
    ]


def _row(cell: Priced, place: int, label: str, money: MoneyFormat) -> tuple[Field, ...]:
    figures = (
        "usd_per_run", "usd_billed", "usd_billed_on_demand", "usd_billed_spot", "usd_per_epoch",
        "usd_per_accuracy_point", "usd_per_month", "usd_per_million_predictions",
    )  # fmt: skip
    energy = Field("not measured", None, title="no counter, and no watts stated")
    if cell.energy is not None:
        energy = _estimated(_kwh(cell.energy.kwh), is_estimate=cell.energy.is_estimate)
    return (
        Field(label, label, numeric=False),
        *(_amount(cell, place, figure, money) for figure in figures),
        replace(energy, cell=place, figure="energy_kwh", rests=True),
    )


def _amount(cell: Priced, place: int, figure: str, money: MoneyFormat) -> Field:
    """An amount with its interval and what its price rests on; or why there is none."""
    found: Estimate | None = getattr(cell, figure)
    if found is None:
        return Field("not known", None, title=_why(cell), cell=place, figure=figure, rests=True)
    rests = "; ".join(filter(None, (money.interval(found), basis_label(cell.price))))
    return Field(money.amount(found.value), found.value, rests, cell=place, figure=figure, rests=True)


def _estimated(field: Field, *, is_estimate: bool) -> Field:
    return replace(field, extra="; ".join(filter(None, (field.extra, "estimate" * is_estimate))))


def _why(cell: Priced) -> str:
    if cell.price is None:
        return clean(cell.missing or "no price")
    return why_missing(cell) if not cell.summary.num_ok else "its price or its measurement is not known"


def _kwh(found: Estimate) -> Field:
    """Wh below one kWh: a run of minutes draws little."""
    if found.value >= 1:
        return Field(f"{number(found.value)} kWh", found.value, interval(found, "number"))
    watt_hours = map_increasing(found, lambda one: one * _KILO)
    return Field(f"{number(watt_hours.value)} Wh", found.value, interval(watt_hours, "number"))


def _grams(found: Estimate) -> Field:
    return Field(f"{number(found.value)} gCO2e", found.value, interval(found, "number"))
