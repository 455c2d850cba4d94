"""The three headline figures (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis.estimate import value_of
from harness.decision.choice import Choice, run_seconds
from harness.report.formatting import MoneyFormat, clean, interval, memory, number, percent, seconds


@dataclass(frozen=True)
class Tile:
    """One headline figure; `note` says what it stands against, `basis` on what its dollars rest."""

    label: str
    value: str
    note: str
    basis: str | None = None


def tiles(choice: Choice, money: MoneyFormat) -> list[Tile]:
    """The three headline figures of the chosen cell: dollars, accuracy, throughput."""
    pick = choice.pick
    if pick is None:
        return []
    summary = pick.summary
    per_run = pick.usd_per_run is not None
    each = (
        f"{money.amount(value_of(pick.usd_per_1000_samples))} per 1,000 samples; " if pick.usd_per_1000_samples else ""
    )
    against = [f"majority {percent(choice.majority)}"] if choice.majority is not None else []
    if choice.tfidf is not None:
        against.append(f"TF-IDF {percent(value_of(choice.tfidf.summary.accuracy))}")
    spread = interval(summary.accuracy, "percent")
    rate = summary.samples_per_s
    return [
        Tile(
            "Cost of a run",
            money.amount(value_of(pick.usd_per_run)) if per_run else "not known",
            f"{each}{seconds(run_seconds(pick))} in all" if per_run else clean(pick.missing or "no price was found"),
            None if pick.price is None else pick.price.basis,
        ),
        Tile(
            "Test accuracy",
            percent(value_of(summary.accuracy)),
            "; ".join(([spread] if spread else []) + against),
        ),
        Tile(
            "Training speed",
            f"{number(rate.value)} samples/s" if rate else "not measured",
            "; ".join(filter(None, [interval(rate, "number"), f"peak memory {memory(summary.peak_memory_bytes)}"])),
        ),
    ]
