"""The table of every cell, in words (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.analysis.estimate import Estimate, value_of
from harness.pricing.cost import Priced
from harness.pricing.prices import Price
from harness.report.formatting import MoneyFormat, clean, interval, memory, number, percent, seconds
from harness.report.labels import machine_labels
from harness.report.sections.answer import disagrees
from harness.schema.cells import BaselineConfig

_LONGEST_REASON = 400
_PEAKS = {"calibrated": "calibrated peak", "datasheet": "GPU's dense peak"}

OUTCOMES = {
    "ok": "measured",
    "oom": "out of memory",
    "timeout": "ran out of time",
    "crashed": "crashed",
    "diverged": "diverged",
    "unsupported": "unsupported here",
    "skipped": "skipped",
    "interrupted": "interrupted",
    "preempted": "pre-empted",
}


@dataclass(frozen=True)
class Field:
    """One square of the cell table.

    Attributes:
        sort: What the column sorts by; None stands last, whichever way.
        extra: A second, quieter line: an interval, or what dollars rest on.
        title: Why there is no figure.
        doubtful: The extra line is a warning.
        cell: The place in the report of the cell whose figure this is, where the page rewrites it for other assumptions.
        figure: Its name there: one of Priced, or of Worth as `worth.net_present_value_usd`.
        rests: The extra line is its interval and what its dollars rest on, and is rewritten too.
    """

    text: str
    sort: float | str | None
    extra: str = ""
    title: str = ""
    numeric: bool = True
    doubtful: bool = False
    cell: int | None = None
    figure: str = ""
    rests: bool = False


@dataclass(frozen=True)
class Row:
    """One cell of the table of all cells."""

    fields: tuple[Field, ...]
    warnings: tuple[str, ...]
    failed: bool
    picked: bool


HEADS = (
    *("cell", "outcome", "test accuracy", "updates", "a run", "per 1,000 samples", "cost to target"),
    *("samples/s", "of peak", "peak memory", "training", "to target", "macro-F1"),
    *("batch", "tokens", "precision", "device", "padding", "trained"),
)
TEXT_COLUMNS = frozenset({"cell", "outcome", "precision", "device", "padding", "trained"})
MANY_ROWS = 40


def rows(cells: Sequence[Priced], pick: Priced | None, money: MoneyFormat) -> list[Row]:
    """Every cell as a row, in the order given."""
    machines = machine_labels(cells)
    studies = {cell.summary.study for cell in cells}
    return [
        Row(
            _fields(cell, index, machines if len(machines) > 1 else {}, money, many=len(studies) > 1),
            tuple(clean(warning) for warning in cell.summary.warnings),
            failed=cell.summary.outcome != "ok",
            picked=cell is pick,
        )
        for index, cell in enumerate(cells)
    ]


def _fields(cell: Priced, index: int, machines: dict[str, str], money: MoneyFormat, *, many: bool) -> tuple[Field, ...]:
    """A cell's squares in the order of HEADS."""
    accuracy, updates, *measures = _measures(cell)
    return (
        *_identity(cell, machines, many=many),
        accuracy,
        updates,
        *_money(cell, index, money),
        *measures,
        *_axes(cell),
    )


def _identity(cell: Priced, machines: dict[str, str], *, many: bool) -> list[Field]:
    summary = cell.summary
    where = [clean(summary.study, 80)] * many + ([machines[summary.machine_id]] if machines else [])
    runs = f"{summary.num_ok} of {len(summary.records)} runs" if len(summary.records) > 1 else ""
    told = ", ".join(filter(None, (runs, "unsteady" if summary.noise else "")))
    reason = clean(summary.reason or "", _LONGEST_REASON)
    return [
        Field(clean(summary.cell, 160), summary.cell, ", ".join(where), numeric=False),
        Field(OUTCOMES[summary.outcome], summary.outcome, told, reason, numeric=False),
    ]


def _axes(cell: Priced) -> list[Field]:
    config = cell.summary.config
    if isinstance(config, BaselineConfig):
        return [Field("", None, title="a baseline has none", numeric=index < 2) for index in range(6)]  # noqa: PLR2004
    threads = f"{config.threads} threads" if config.threads else ""
    return [
        Field(f"{config.named_batch_size}", config.named_batch_size, "" if config.batch_size else "global"),
        Field(f"{config.seq_len}", config.seq_len),
        Field(config.precision, config.precision, numeric=False),
        Field(config.device, config.device, threads, numeric=False),
        Field(config.padding, config.padding, numeric=False),
        Field(config.trainable, config.trainable, numeric=False),
    ]


def _measures(cell: Priced) -> list[Field]:
    summary = cell.summary
    why = why_missing(cell)
    rate, accuracy = summary.samples_per_s, summary.accuracy
    is_random = any(r.model is not None and r.model.origin == "random" for r in summary.records)
    unjudged = "the weights were random" if is_random and summary.num_ok else why
    target = summary.target_accuracy
    missed = (
        f"{percent(target)} was not reached" if target is not None and summary.num_ok else "the study sets no target"
    )
    lost = "lost again later" if summary.target_lost else ""
    judged = accuracy.value if accuracy is not None else None
    speed = rate.value if rate is not None else None
    source = summary.peak_memory_source or ""
    still = "a baseline has none" if summary.kind == "baseline" else why
    return [
        _figure(percent(judged), judged, unjudged, interval(accuracy, "percent")),
        _figure(f"{summary.num_updates or 0:,}", summary.num_updates, still),
        _figure(number(speed), speed, still, interval(rate, "number")),
        _figure(
            percent(summary.mfu),
            summary.mfu,
            still,
            _PEAKS["datasheet" if cell.summary.config.on_gpu else "calibrated"],
        ),
        _figure(memory(summary.peak_memory_bytes), summary.peak_memory_bytes, why, source),
        _figure(seconds(summary.train_s), summary.train_s, why),
        _figure(seconds(summary.time_to_target_s), summary.time_to_target_s, missed, lost, doubtful=bool(lost)),
        _figure(percent(summary.macro_f1), summary.macro_f1, unjudged),
    ]


def _money(cell: Priced, index: int, money: MoneyFormat) -> list[Field]:
    why = clean(cell.missing or why_missing(cell))
    basis = basis_label(cell.price)
    doubtful = cell.price is None or cell.price.basis == "assumed" or disagrees(cell.price)
    fields = []
    for name in ("usd_per_run", "usd_per_1000_samples", "usd_to_target"):
        amount: Estimate | None = getattr(cell, name)
        spread = ", ".join(filter(None, (money.interval(amount), basis)))
        field = _figure(money.amount(value_of(amount)), value_of(amount), why, spread, doubtful=doubtful)
        fields.append(replace(field, cell=index, figure=name, rests=True))
    return fields


def _figure(text: str | None, value: float | None, why: str, extra: str = "", *, doubtful: bool = False) -> Field:
    if value is None or text is None:
        return Field("not measured", None, title=why)
    return Field(text, value, extra, doubtful=doubtful)


def why_missing(cell: Priced) -> str:
    """Why a figure of this cell is not there."""
    summary = cell.summary
    if summary.num_ok == 0:
        return f"{OUTCOMES[summary.outcome]}: {clean(summary.reason or 'no reason recorded', _LONGEST_REASON)}"
    return "the runs left nothing to compute it from"


def basis_label(price: Price | None) -> str:
    """How the price is known, in a word or two, as it stands beside every amount."""
    if price is None:
        return "no price"
    return f"{price.basis}, hardware disagrees" if disagrees(price) else price.basis


def amount_field(cell: Priced, place: int, name: str, why: str, more: str = "", *, money: MoneyFormat) -> Field:
    """One of Priced's amounts with its interval and what it rests on, which the page rewrites for other assumptions."""
    amount: Estimate | None = getattr(cell, name)
    lines = "; ".join(filter(None, (money.interval(amount), basis_label(cell.price), more)))
    field = known(None if amount is None else money.amount(amount.value), value_of(amount), why, lines)
    return replace(field, cell=place, figure=name, rests=True)


def known(text: str | None, value: float | None, why: str, extra: str = "") -> Field:
    """A figure, or that it was not measured, and why."""
    if value is None or text is None:
        return Field("not measured", None, title=why)
    return Field(text, value, extra)
