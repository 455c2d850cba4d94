"""The three headline figures of the chosen cell (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis.estimate import value_of
from harness.decision.cells import run_seconds
from harness.decision.choice import Choice
from harness.report.formatting import MoneyFormat, clean, interval, memory, number, percent, seconds
from harness.report.labels import basis_word
from harness.report.table import join_lines


@dataclass(frozen=True)
class Tile:
    """One headline figure.

    Attributes:
        note: The interval, and what to compare the figure with.
        basis: For an amount of money, how the price is known; None for other figures.
    """

    label: str
    value: str
    note: str
    basis: str | None = None


def tiles(choice: Choice, money: MoneyFormat) -> list[Tile]:
    """Build the tiles of the chosen cell: cost, accuracy and speed; empty without a chosen cell."""
    pick = choice.pick
    if pick is None:
        return []
    summary, rate = pick.summary, pick.summary.samples_per_s
    per_1000 = pick.usd_per_1000_samples
    cost = Tile("A training, on the bill", "not known", clean(pick.missing or "no price was found"))
    if pick.usd_billed is not None and pick.usd_per_run is not None:
        measured = f"{money.amount(pick.usd_per_run.value)} for the measured {seconds(run_seconds(pick))}"
        each = f"{money.amount(per_1000.value)} per 1,000 samples" if per_1000 else ""
        cost = Tile(cost.label, money.amount(pick.usd_billed.value), join_lines(measured, each))
    majority = f"majority {percent(choice.majority)}" if choice.majority is not None else ""
    tfidf = f"TF-IDF {percent(value_of(choice.tfidf.summary.accuracy))}" if choice.tfidf is not None else ""
    frozen = choice.features
    features = f"frozen encoder {percent(value_of(frozen.summary.accuracy))}" if frozen is not None else ""
    return [
        Tile(cost.label, cost.value, cost.note, None if pick.price is None else basis_word(pick.price)),
        Tile(
            "Test accuracy",
            percent(value_of(summary.accuracy)),
            join_lines(interval(summary.accuracy, "percent"), majority, tfidf, features),
        ),
        Tile(
            "Training speed",
            f"{number(rate.value)} samples/s" if rate else "not measured",
            join_lines(interval(rate, "number"), f"peak memory {memory(summary.peak_memory_bytes)}"),
        ),
    ]
