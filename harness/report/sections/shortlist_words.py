"""Words on the machines that are worth renting to measure, for the page and for the terminal (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from harness.decision.shortlist import Basis, Shortlist, ShortlistRow
from harness.pricing.formulas import SECONDS_PER_HOUR
from harness.pricing.price_rows import PriceRow
from harness.report.formatting import MoneyFormat, interval, number, percent, plural, seconds, with_interval

MUST_BE_MEASURED = "must be measured"
_UNKNOWN = "-"

KNOWN: dict[Basis, str] = {
    "measured": "measured",
    "probe": "by a probe",
    "scaled": "scaled from another size",
    "datasheet": "by datasheet",
}
_NUM_ROWS = 10
_MAX_REASONS = 3
HEADS = ("machine", "bill", "spot", "hours", "samples/s", "cell")
_MUCH = 0.5  # of a run: a larger share of start and set-up is worth a hint
_LONG_TRAINING = 1_000_000


def shown_rows(found: Shortlist, *, show_all: bool = False) -> list[ShortlistRow]:
    """Return the rows to show: all, or the ten with the lowest bills that meet the requirements."""
    if show_all:
        return list(found.rows)
    return [row for row in found.rows if row.usd is not None and not row.misses][:_NUM_ROWS]


def row_fields(row: ShortlistRow, money: MoneyFormat) -> tuple[tuple[str, str], ...]:
    """Return the fields of a row under `HEADS`, each of two lines; the second may be empty."""
    price, usd, spot, hours, rate = row.price, row.usd, row.usd_spot, row.hours, row.samples_per_s
    return (
        (price.instance_type, _place(price)),
        (_UNKNOWN if usd is None else money.amount(usd.value), money.interval(usd)),
        (_UNKNOWN if spot is None else money.amount(spot.value), money.interval(spot)),
        (_UNKNOWN if hours is None else number(hours.value), interval(hours, "number")),
        (_UNKNOWN if rate is None else number(rate.value), interval(rate, "number")),
        (row.cell or _UNKNOWN, ", ".join(_cell_remarks(row))),
    )


def _place(price: PriceRow) -> str:
    """Say where a machine is, and its GPUs or CPUs."""
    parts = f"{price.accelerator_count} x {price.accelerator}" if price.accelerator_count else f"{price.vcpus:g} CPUs"
    return f"{price.provider} {price.region}, {parts}"


def _cell_remarks(row: ShortlistRow) -> Iterator[str]:
    """Say how a row's figures are known, which batch is the largest, and what the run misses."""
    yield MUST_BE_MEASURED if row.basis is None else KNOWN[row.basis]
    if row.fits is False:
        yield "does not fit"
    elif row.largest_batch is not None:
        yield f"batch up to {row.largest_batch:,}"
    for limit in row.misses:
        yield f"misses the {limit}"


def remarks(found: Shortlist, shown: Sequence[ShortlistRow]) -> list[str]:
    """Say what a bill holds, what is not shown, and why intervals are wide."""
    setup_s = found.rental.startup_s + found.rental.setup_s
    lines = [
        f"A bill is for training on {found.num_samples:,} rows, evaluations, and {seconds(setup_s)} of start and set-up "
        f"(assumed); batches: {found.note}. Intervals: 95 %."
    ]
    cheapest = next((row for row in found.rows if row.hours is not None), None)
    if cheapest is not None and cheapest.hours is not None:
        share = setup_s / (cheapest.hours.value * SECONDS_PER_HOUR)
        if share > _MUCH:
            lines.append(
                f"Start and set-up are {share:.0%} of the cheapest run, so that the price of an hour decides. For a longer "
                f"training: --samples {_LONG_TRAINING}"
            )
    counts = Counter(reason for row in shown for reason in row.reasons)
    if counts:
        listed = "; ".join(f"{reason} ({plural(count, 'row')})" for reason, count in counts.most_common())
        lines.append(f"Intervals are wide because: {listed}.")
    return lines + _not_shown(found, shown)


def _not_shown(found: Shortlist, shown: Sequence[ShortlistRow]) -> list[str]:
    hidden = found.rows[:0] if len(shown) == len(found.rows) else [row for row in found.rows if row not in shown]
    if not hidden:
        return []
    num_known = sum(row.usd is not None and not row.misses for row in hidden)
    missing = sum(bool(row.misses) for row in hidden)
    unknown = Counter(row.reasons[0] for row in hidden if row.usd is None)
    parts = [f"{num_known} that cost more"] * bool(num_known) + [f"{missing} that miss a limit"] * bool(missing)
    if unknown:
        named = unknown.most_common(_MAX_REASONS)
        num_others = sum(unknown.values()) - sum(count for _, count in named)
        why = "; ".join(f"{count}: {reason}" for reason, count in named)
        why += f"; {num_others}: such reasons too" if num_others else ""
        parts.append(f"{sum(unknown.values())} that must be measured ({why})")
    return [f"Not shown (--all shows them): {', '.join(parts)}."]


def advice(found: Shortlist, money: MoneyFormat) -> list[str]:
    """Say which machines to measure first; the first line is the headline."""
    picks = found.measure_first
    if found.probability is None:
        return ["Nothing to advise: no machine's time is known, or none meets the limits."]
    if not picks:
        return ["Nothing to measure first: all machines that may be the cheapest were measured."]
    lines = [
        f"Measure these first. With a probability of {percent(found.probability)} the cheapest of all estimated machines is one "
        "of them, has the same GPUs, or was measured:"
    ]
    for pick in picks:
        price = pick.row.price
        chance = percent(pick.probability) if pick.probability else "the next cheapest"
        cost = "" if pick.usd is None else f", {money.with_interval(pick.usd)}"
        time = with_interval(seconds(pick.seconds.value), interval(pick.seconds, "seconds"))
        lines.append(
            f"- {price.instance_type} ({_place(price)}): {chance}; "
            f"measuring the study's {plural(pick.num_runs, 'run')} there takes {time}{cost}"
        )
    if any(pick.row.basis == "datasheet" for pick in picks):
        lines.append("A figure from a datasheet says what to measure, and never which machine is best.")
    return lines
