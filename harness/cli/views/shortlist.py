"""Terminal view, Markdown and JSON fields of `harness shortlist`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape

from harness.analysis.estimate import Estimate
from harness.cli.console import print_table, print_text
from harness.cli.layout import columns as table_columns
from harness.pricing.formulas import SECONDS_PER_HOUR
from harness.report.formatting import MoneyFormat, interval, number, percent, plural, seconds, with_interval
from harness.workflows.judged_machines import ShortlistRow
from harness.workflows.measured_times import Basis
from harness.workflows.shortlist import Shortlist, ToMeasure

MUST_BE_MEASURED = "must be measured"
NOT_KNOWN = "-"

_KNOWN: dict[Basis, str] = {
    "measured": "measured",
    "probe": "by a probe",
    "scaled": "scaled from another size",
    "datasheet": "by datasheet",
}
_NUM_ROWS = 10
_HEADS = ("bill", "spot", "hours", "samples/s", "machine", "cell")
_NUM_FIGURES = 4
_MUCH = 0.5  # of a run: a larger share of start and set-up is worth a hint
_LONG_TRAINING = 1_000_000


def show_shortlist(console: Console, found: Shortlist, money: MoneyFormat, *, show_all: bool = False) -> None:
    """Print the machines, what the figures hold, and which to measure first."""
    rows = _shown(found, show_all=show_all)
    if rows:
        table = [[escape(with_interval(*field)) for field in _fields(row, money)] for row in rows]
        machine, cell = table_columns(_HEADS[_NUM_FIGURES:])
        print_table(
            console, [machine, *table_columns([], _HEADS[:_NUM_FIGURES]), cell], [_machine_first(row) for row in table]
        )
        print_text(console)
    for line in _remarks(found, rows):
        print_text(console, escape(line))
    lines = _advice(found, money)
    print_text(console)
    print_text(console, escape(lines[0]), style="bold")
    for line in lines[1:]:
        print_text(console, escape(line), hang=2)


def _machine_first(fields: Sequence[str]) -> list[str]:
    figures, (machine, cell) = fields[:_NUM_FIGURES], fields[_NUM_FIGURES:]
    return [machine, *figures, cell]


def shortlist_markdown(found: Shortlist, money: MoneyFormat, *, show_all: bool = False) -> str:
    """Return the same as Markdown."""
    rows = _shown(found, show_all=show_all)
    lines = [f"| {' | '.join(_HEADS)} |", f"|{'---:|' * _NUM_FIGURES}{'---|' * (len(_HEADS) - _NUM_FIGURES)}"]
    for row in rows:
        fields = [_as_cell(with_interval(*field)) for field in _fields(row, money)]
        lines.append(f"| {' | '.join(fields)} |")
    advice = [_as_cell(line) for line in _advice(found, money)]
    return "\n".join([*lines, "", *map(_as_cell, _remarks(found, rows)), "", advice[0], "", *advice[1:]]) + "\n"


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


def _shown(found: Shortlist, *, show_all: bool) -> list[ShortlistRow]:
    """Return the rows to show: all, or the ten with the lowest bills that meet the requirements."""
    if show_all:
        return list(found.rows)
    return [row for row in found.rows if row.usd is not None and not row.misses][:_NUM_ROWS]


def _fields(row: ShortlistRow, money: MoneyFormat) -> tuple[tuple[str, str], ...]:
    """Return the fields of a row, each of two lines; the second may be empty."""
    price, usd, spot, hours, rate = row.price, row.usd, row.usd_spot, row.hours, row.samples_per_s
    gpus = f"{price.accelerator_count} x {price.accelerator}" if price.accelerator_count else f"{price.vcpus} CPUs"
    return (
        (NOT_KNOWN if usd is None else money.amount(usd.value), money.interval(usd)),
        (NOT_KNOWN if spot is None else money.amount(spot.value), money.interval(spot)),
        (NOT_KNOWN if hours is None else number(hours.value), interval(hours, "number")),
        (NOT_KNOWN if rate is None else number(rate.value), interval(rate, "number")),
        (price.instance_type, f"{price.provider} {price.region}, {gpus}"),
        (row.cell or NOT_KNOWN, ", ".join(_cell_remarks(row))),
    )


def _cell_remarks(row: ShortlistRow) -> Iterator[str]:
    """Say how a row's figures are known, which batch is the largest, and what the run misses."""
    yield MUST_BE_MEASURED if row.basis is None else _KNOWN[row.basis]
    if row.fits is False:
        yield "does not fit"
    elif row.largest_batch is not None:
        yield f"batch up to {row.largest_batch:,}"
    for limit in row.misses:
        yield f"misses the {limit}"


def _remarks(found: Shortlist, shown: Sequence[ShortlistRow]) -> list[str]:
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
        why = "; ".join(f"{count}: {reason}" for reason, count in unknown.most_common())
        parts.append(f"{sum(unknown.values())} that must be measured ({why})")
    return [f"Not shown (--all shows them): {', '.join(parts)}."]


def _advice(found: Shortlist, money: MoneyFormat) -> list[str]:
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
        chance = percent(pick.probability) if pick.probability else "the cheapest but for the others"
        cost = "" if pick.usd is None else f", {money.with_interval(pick.usd)}"
        time = with_interval(seconds(pick.seconds.value), interval(pick.seconds, "seconds"))
        lines.append(
            f"- {price.instance_type} ({price.provider} {price.region}, {price.accelerator_count} x {price.accelerator}): {chance}; "
            f"measuring the study's {plural(pick.num_runs, 'run')} there takes {time}{cost}"
        )
    if any(pick.row.basis == "datasheet" for pick in picks):
        lines.append("A figure from a datasheet says what to measure, and never which machine is best.")
    return lines


def _as_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'")
