"""The page's table of every cell (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.analysis.estimate import value_of
from harness.analysis.predictions import predicted_seconds
from harness.pricing.cost import Priced
from harness.report.cell_columns import (
    ACCURACY,
    MACRO_F1,
    MFU,
    NUM_UPDATES,
    PEAK_MEMORY,
    PREDICTED_PEAK_BYTES,
    SAMPLES_PER_S,
    TIME_TO_TARGET_S,
    TRAIN_S,
    USD_BILLED,
    USD_PER_1000_SAMPLES,
    USD_PER_RUN,
    USD_TO_TARGET,
    CellColumn,
)
from harness.report.formatting import MoneyFormat, clean, interval, percent, seconds, with_interval
from harness.report.labels import OUTCOMES, basis_label, disagrees, machine_labels, missed_label
from harness.report.sections.details import totals
from harness.report.table import Field, holds_figure, measured_field, text_field
from harness.schema.cells import BaselineConfig

HEADS = (
    *("cell", "outcome", "test accuracy", "updates", "bill", "a run", "per 1,000 samples", "cost to target"),
    *("samples/s", "of peak", "peak memory", "predicted peak", "training", "whole run", "to target", "macro-F1"),
    *("batch", "tokens", "precision", "device", "padding", "trained"),
)
TEXT_COLUMNS = frozenset({"cell", "outcome", "precision", "device", "padding", "trained"})
_MANY_ROWS = 40
_MAX_REASON = 400
_NO_AXIS = "a baseline has none"
_NOT_PREDICTED = "nothing was known of cells that compute alike"


@dataclass(frozen=True)
class CellRow:
    """One cell's row.

    Attributes:
        index: Index of the cell in the report.
        usd: The bill of a training; None without a price or a successful run.
        fields: The row's fields, in the order of HEADS.
        warnings: The cell's warnings.
        failed: Whether a run of the cell failed.
        picked: Whether it is the chosen cell.
    """

    index: int
    usd: float | None
    fields: tuple[Field, ...]
    warnings: tuple[str, ...]
    failed: bool
    picked: bool


@dataclass(frozen=True)
class CellTable:
    """The table of every cell.

    Attributes:
        text_columns: Heads of columns that are aligned to the left.
        totals: The time that all runs took, and the longest run, as text.
        is_tall: Whether the table has many rows.
    """

    heads: tuple[str, ...]
    text_columns: frozenset[str]
    rows: tuple[CellRow, ...]
    totals: str
    is_tall: bool


def cell_table(cells: Sequence[Priced], pick: Priced | None, money: MoneyFormat) -> CellTable:
    """Build the table of all cells: the chosen one first, then by cost."""
    rows = sorted(cell_rows(cells, pick, money), key=_chosen_then_cheapest)
    kept = [index for index in range(len(HEADS)) if any(holds_figure(row.fields[index]) for row in rows)]
    return CellTable(
        heads=tuple(HEADS[index] for index in kept),
        text_columns=TEXT_COLUMNS,
        rows=tuple(replace(row, fields=tuple(row.fields[index] for index in kept)) for row in rows),
        totals=totals(cells),
        is_tall=len(cells) > _MANY_ROWS,
    )


def cell_rows(cells: Sequence[Priced], pick: Priced | None, money: MoneyFormat) -> list[CellRow]:
    """Build a row for every cell, in the order given."""
    machines = machine_labels(cells)
    several_studies = len({cell.summary.study for cell in cells}) > 1
    return [
        CellRow(
            index,
            value_of(cell.usd_billed),
            (
                *_identity(cell, machines if len(machines) > 1 else {}, show_study=several_studies),
                *_figures(cell, index, money),
                *_axes(cell),
            ),
            tuple(clean(warning) for warning in cell.summary.warnings),
            failed=cell.summary.outcome != "ok",
            picked=cell is pick,
        )
        for index, cell in enumerate(cells)
    ]


def _chosen_then_cheapest(row: CellRow) -> tuple[bool, bool, float]:
    return not row.picked, row.usd is None, row.usd or 0.0


def _identity(cell: Priced, machines: Mapping[str, str], *, show_study: bool) -> list[Field]:
    summary = cell.summary
    where = [clean(summary.study, 80)] * show_study + ([machines[summary.machine_id]] if machines else [])
    runs = f"{summary.num_ok} of {len(summary.records)} runs" if len(summary.records) > 1 else ""
    notes = ", ".join(filter(None, (runs, "unsteady" if summary.noise else "")))
    reason = clean(summary.reason or "", _MAX_REASON, is_message=True)
    return [
        text_field(clean(summary.cell, 160), summary.cell, ", ".join(where)),
        text_field(OUTCOMES[summary.outcome], summary.outcome, notes, reason),
    ]


def _figures(cell: Priced, index: int, money: MoneyFormat) -> list[Field]:
    summary, why = cell.summary, why_missing(cell)
    is_random = any(record.model is not None and record.model.origin == "random" for record in summary.records)
    no_accuracy = "the weights were random" if is_random and summary.num_ok else why
    no_training = _NO_AXIS if summary.kind == "baseline" else why

    def figure(column: CellColumn, reason: str, extra: str = "") -> Field:
        return measured_field(column.text(cell, money), column.value(cell), reason, extra)

    def estimated(column: CellColumn, reason: str) -> Field:
        return figure(column, reason, column.interval(cell, money))

    missed, lost = missed_label(cell), "lost again later" if summary.target_lost else ""
    spread = ", ".join(filter(None, (TIME_TO_TARGET_S.interval(cell, money), missed, lost)))
    to_target = figure(TIME_TO_TARGET_S, _why_no_target(cell), spread)
    return [
        estimated(ACCURACY, no_accuracy),
        figure(NUM_UPDATES, no_training),
        *(
            _amount(cell, index, column, money)
            for column in (USD_BILLED, USD_PER_RUN, USD_PER_1000_SAMPLES, USD_TO_TARGET)
        ),
        estimated(SAMPLES_PER_S, no_training),
        figure(MFU, no_training, "GPU's dense peak" if summary.config.on_gpu else "calibrated peak"),
        figure(PEAK_MEMORY, why, summary.peak_memory_source or ""),
        estimated(PREDICTED_PEAK_BYTES, _NOT_PREDICTED),
        figure(TRAIN_S, why),
        _whole_run(cell),
        replace(to_target, doubtful=bool(to_target.extra) and bool(missed or lost)),
        figure(MACRO_F1, no_accuracy),
    ]


def _whole_run(cell: Priced) -> Field:
    """Return the seconds of the newest run that was predicted, from order to end, beside the prediction."""
    predicted = [record for record in cell.summary.ok_records if record.predicted is not None]
    estimate = predicted_seconds(predicted[-1]) if predicted else None
    if estimate is None:
        return measured_field(None, None, _NOT_PREDICTED)
    spread = with_interval(seconds(estimate.value), interval(estimate, "seconds"))
    return measured_field(seconds(predicted[-1].duration_s), predicted[-1].duration_s, extra=f"predicted {spread}")


def _why_no_target(cell: Priced) -> str:
    target = cell.summary.target_accuracy
    if target is not None and cell.summary.num_missed_target:
        return f"{percent(target)} was not reached: {missed_label(cell)}"
    return "the study sets no target"


def _amount(cell: Priced, index: int, column: CellColumn, money: MoneyFormat) -> Field:
    missed = missed_label(cell) if column is USD_TO_TARGET else ""
    extra = ", ".join(filter(None, (column.interval(cell, money), basis_label(cell.price), missed)))
    why = clean(cell.missing or why_missing(cell))
    field = measured_field(column.text(cell, money), column.value(cell), why, extra)
    doubtful = cell.price is None or cell.price.is_example or disagrees(cell.price)
    return replace(field, doubtful=doubtful, cell=index, figure=column.name, rewrites_extra=True)


def _axes(cell: Priced) -> list[Field]:
    config = cell.summary.config
    if isinstance(config, BaselineConfig):
        return [Field("", None, title=_NO_AXIS, numeric=head not in TEXT_COLUMNS) for head in HEADS[-6:]]
    threads = f"{config.threads} threads" if config.threads else ""
    multiple = f"multiples of {config.pad_multiple}" if config.pad_multiple != 1 else ""
    return [
        Field(f"{config.named_batch_size}", config.named_batch_size, "" if config.batch_size else "global"),
        Field(f"{config.seq_len}", config.seq_len),
        text_field(config.precision, config.precision),
        text_field(config.device, config.device, threads),
        text_field(config.padding, config.padding, multiple),
        text_field(config.trainable, config.trainable),
    ]


def why_missing(cell: Priced) -> str:
    """Say why a cell has no figure."""
    summary = cell.summary
    if summary.num_ok == 0:
        return f"{OUTCOMES[summary.outcome]}: {clean(summary.reason or 'no reason recorded', _MAX_REASON, is_message=True)}"
    return "the runs left nothing to compute it from"
