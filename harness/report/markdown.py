"""Text of summary.md, the report for a pull request (pure)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.analysis.estimate import value_of
from harness.decision.cells import failed
from harness.decision.ladder import Ladder, ladders
from harness.decision.memory_savings import oom_fixes
from harness.decision.scaling import ScalingPoint, Series, scaling_series
from harness.pricing.cost import Priced
from harness.pricing.price_rows import age_words
from harness.pricing.prices import Price
from harness.report.cell_columns import (
    ACCURACY,
    MFU,
    NUM_UPDATES,
    PEAK_MEMORY,
    SAMPLES_PER_S,
    TRAIN_S,
    USD_PER_1000_SAMPLES,
    USD_PER_RUN,
    CellColumn,
)
from harness.report.formatting import MoneyFormat, clean, interval, number, percent, with_interval
from harness.report.labels import basis_label, basis_word, describe, machine_labels
from harness.report.report import Report
from harness.report.sections.chunks import Chunks, chunks_section
from harness.report.sections.details import MADE_UP, is_synthetic, warnings_by_text
from harness.report.sections.ladder import step_sentences, step_table
from harness.report.sections.learning import Learning
from harness.report.sections.machines import Machines
from harness.report.sections.memory import oom_fix_sentences
from harness.report.sections.money import Money
from harness.report.sections.scaling import communication_text, ratio_interval, ratio_text, scaling_sentences
from harness.report.sections.worth import WorthSection
from harness.report.series_labels import series_names
from harness.report.table import Table

_MAX_ROWS = 30
_MAX_REASON = 200
# A backslash stops these characters from formatting text; entities stop tags, mentions, references and links.
_MARKS = re.compile(r"([\\`*_\[\]|~])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&commat;", "#": "&num;", "://": "&colon;//"}

# For each column: its head, its quantity, and whether the interval is shown.
_CELL_COLUMNS: tuple[tuple[str, CellColumn, bool], ...] = (
    ("samples/s", SAMPLES_PER_S, True),
    ("of peak (MFU)", MFU, False),
    ("peak memory", PEAK_MEMORY, False),
    ("test accuracy", ACCURACY, True),
    ("updates", NUM_UPDATES, False),
    ("training", TRAIN_S, False),
    ("per 1,000 samples", USD_PER_1000_SAMPLES, False),
    ("per run", USD_PER_RUN, False),
)
_BASELINE_COLUMNS: tuple[tuple[str, CellColumn, bool], ...] = (
    ("test accuracy", ACCURACY, False),
    ("training", TRAIN_S, False),
    ("per run", USD_PER_RUN, False),
)
_SCALING_HEADS = (
    *("Scaling", "devices", "batch a device", "global batch", "samples/s", "speed-up", "efficiency"),
    *("per 1,000 samples", "exposed communication"),
)


def markdown(report: Report) -> str:
    """Write a summary for a pull request."""
    cells, money = report.cells, MoneyFormat(report.assumptions.prices.currency)
    fine_tuned = [cell for cell in cells if cell.summary.kind == "fine_tune" and cell.summary.num_ok]
    baselines = [cell for cell in cells if cell.summary.kind == "baseline" and cell.summary.num_ok]
    parts = [
        "# Fine-tuning BERT: cost and performance",
        f"**{MADE_UP}**" if is_synthetic(cells) else "",
        " ".join(map(md, report.answer)),
        _machine_prices(cells, money),
        _money(report.money),
        _worth(report.worth),
        _machines(report.machines) if report.machines else "",
        *(_ladder(ladder, cells, money) for ladder in ladders(cells)),
        _learning(report.learning) if report.learning else "",
        _cells(sorted(fine_tuned, key=_by_cost), money),
        _chunks(chunks_section(cells, money)),
        _scaling(scaling_series(cells), cells, money),
        _baselines(baselines, money),
        _failed(failed(cells)),
        _oom_fixes(cells, money),
        f"Written {report.generated_at:%Y-%m-%d %H:%M} UTC. Definitions: docs/METHOD.md. "
        "Every figure: cells.csv, report.html.",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def md(text: str, longest: int = 600, *, is_message: bool = False) -> str:
    """Escape untrusted text for one line or table field of GitHub's Markdown; see `clean` for what is cut out."""
    flat = clean(text, longest, is_message=is_message)
    with_entities = re.sub("[&<>@#]|://", lambda match: _ENTITIES[match[0]], flat)
    return _MARKS.sub(r"\\\1", with_entities)


def _lines(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table of escaped text, all columns but the first aligned to the right."""
    rule = "|".join([" --- "] + [" ---: "] * (len(heads) - 1))
    return "\n".join([f"| {' | '.join(heads)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in rows)])


def _table(table: Table, separator: str = "; ") -> str:
    """Write a table; empty without rows. A field's extra lines follow its text in brackets, joined by `separator`."""
    rows = [
        [md(with_interval(field.text, field.extra.replace("; ", separator))) for field in row] for row in table.rows
    ]
    return _lines([md(head) for head in table.heads], rows) if rows else ""


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {md(sentence)}" for sentence in sentences)


def _paragraphs(*paragraphs: str) -> str:
    return "\n\n".join(filter(None, paragraphs))


def _by_cost(cell: Priced) -> tuple[bool, float, float, str]:
    cost = value_of(cell.usd_per_run)
    return (cost is None, cost or 0.0, cell.summary.train_s or 0.0, cell.summary.cell)


def _machine_prices(cells: Sequence[Priced], money: MoneyFormat) -> str:
    lines = []
    for machine_id, label in machine_labels(cells).items():
        cell = next(cell for cell in cells if cell.summary.machine_id == machine_id)
        price = f"no price: {md(cell.missing or 'none was found')}" if cell.price is None else _price(cell.price, money)
        lines.append(f"- {md(label)}: {price}")
    return "\n".join(["## Machine and price", *lines]) if lines else ""


def _price(price: Price, money: MoneyFormat) -> str:
    place = ", ".join(md(part) for part in (price.instance, price.provider, price.region) if part)
    origin = ", ".join(md(part) for part in (price.as_of, age_words(price.age_days), price.source) if part)
    amount = f"{money.hourly(price.usd_per_hour)} an hour, **{basis_word(price)}**"
    return "; ".join(filter(None, (amount, place, origin, md(price.paid or ""), md(price.note or ""))))


def _money(section: Money) -> str:
    sentences = [*([section.currency] if section.currency else []), *section.compared, *section.buying, *section.study]
    lead = md(f"Of {section.subject}:") if section.subject else ""
    return _paragraphs("## What it costs", lead, _table(section.lines), _bullets(sentences))


def _worth(section: WorthSection) -> str:
    text = " ".join(md(sentence) for sentence in (*section.sentences, section.marked))
    return _paragraphs("## Is it worth it", text, _table(section.models))


def _ladder(ladder: Ladder, cells: Sequence[Priced], money: MoneyFormat) -> str:
    text = " ".join(md(sentence) for sentence in step_sentences(ladder, cells))
    return _paragraphs("## The ladder", text, _table(step_table(ladder, cells, money)))


def _chunks(section: Chunks | None) -> str:
    if section is None:
        return ""
    tables = [f"{md(label)}:\n\n{_table(table)}" for label, table in section.tables]
    return _paragraphs("## Data in chunks", _bullets(section.sentences), *tables)


def _learning(section: Learning) -> str:
    lines = [f"- **{md(name)}**: {md(' '.join(sentences), 2_000)}" for name, sentences in section.sentences]
    return _paragraphs("## How much data is worth paying for", "\n".join(lines), _table(section.sizes))


def _machines(section: Machines) -> str:
    sentences = "\n\n".join(md(line) for line in (*section.verdicts, *section.cautions))
    differences = _bullets(section.differences)
    care = f"Records that stand side by side differ in\n\n{differences}" if differences else ""
    return _paragraphs("## Machines side by side\n\n" + sentences, care, _table(section.types, ", "))


def _figures(cell: Priced, columns: Sequence[tuple[str, CellColumn, bool]], money: MoneyFormat) -> list[str]:
    """Format these columns of a cell, then the basis of its price."""
    figures = [
        with_interval(column.text(cell, money), column.interval(cell, money) if shows_interval else "")
        for _, column, shows_interval in columns
    ]
    return [*figures, basis_label(cell.price)]


def _cells(cells: Sequence[Priced], money: MoneyFormat) -> str:
    if not cells:
        return ""
    machines = machine_labels(cells)
    rows = []
    for cell in cells[:_MAX_ROWS]:
        where = f" on {machines[cell.summary.machine_id]}" if len(machines) > 1 else ""
        rows.append([md(clean(cell.summary.cell, 120) + where), *_figures(cell, _CELL_COLUMNS, money)])
    table = _lines(["Cell", *(head for head, _, _ in _CELL_COLUMNS), "price"], rows)
    return _paragraphs("## Cells, cheapest run first", table, _more(len(cells)), _warnings(cells))


def _more(num_rows: int) -> str:
    return f"{num_rows - _MAX_ROWS} more in cells.csv." if num_rows > _MAX_ROWS else ""


def _warnings(cells: Sequence[Priced]) -> str:
    lines = [f"- {md(warning)} ({md(labels)})" for warning, labels in warnings_by_text(cells)]
    return "To be read with care:\n\n" + "\n".join(lines) if lines else ""


def _scaling(every_series: Sequence[Series], cells: Sequence[Priced], money: MoneyFormat) -> str:
    if not every_series:
        return ""
    rows = [
        [md(name), *_scaling_row(point, series, money)]
        for series, name in zip(every_series, series_names(every_series, cells), strict=True)
        for point in series.points
    ]
    sentences = [md(sentence) for sentence in scaling_sentences(every_series, cells)]
    table = _lines(_SCALING_HEADS, rows[:_MAX_ROWS])
    return _paragraphs("## Scaling over devices", *sentences, table, _more(len(rows)))


def _scaling_row(point: ScalingPoint, series: Series, money: MoneyFormat) -> list[str]:
    rate, speed_up, cost = point.samples_per_s, point.speed_up, point.cell.usd_per_1000_samples
    is_base = point is series.base
    return [
        f"{point.num_devices}",
        f"{point.device_batch_size}",
        f"{point.global_batch_size}",
        with_interval(number(rate.value), interval(rate, "number")),
        "the base" if is_base else with_interval(ratio_text(speed_up.value), ratio_interval(speed_up)),
        percent(point.efficiency.value),
        with_interval(money.amount(value_of(cost)), money.interval(cost)),
        communication_text(point),
    ]


def _oom_fixes(cells: Sequence[Priced], money: MoneyFormat) -> str:
    sentences = oom_fix_sentences(oom_fixes(cells), cells, money)
    return _paragraphs("## Out of memory, and what fits", _bullets(sentences)) if sentences else ""


def _baselines(cells: Sequence[Priced], money: MoneyFormat) -> str:
    rows = [[md(describe(cell, {})), *_figures(cell, _BASELINE_COLUMNS, money)] for cell in cells]
    heads = ["Baseline", *(head for head, _, _ in _BASELINE_COLUMNS), "price"]
    return _paragraphs("## Baselines", _lines(heads, rows)) if rows else ""


def _failed(cells: Sequence[Priced]) -> str:
    if not cells:
        return ""
    lines = [
        f"- {md(cell.summary.cell)}: **{cell.summary.outcome}**, "
        f"{md(cell.summary.reason or 'no reason recorded', _MAX_REASON, is_message=True)}"
        for cell in cells[:_MAX_ROWS]
    ]
    more = [f"- {len(cells) - _MAX_ROWS} more in cells.csv"] if len(cells) > _MAX_ROWS else []
    # Cells with a successful run are left out here: the section with their figures lists their warnings.
    warnings = _warnings([cell for cell in cells if not cell.summary.num_ok])
    return _paragraphs("## Cells that failed", "\n".join([*lines, *more]), warnings)
