"""summary.md: the report for a pull request (pure: text out)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from harness.analysis.estimate import value_of
from harness.decision.choice import failed
from harness.decision.ladder import Ladder, ladders
from harness.decision.memory_savings import oom_fixes
from harness.decision.scaling import Series, scaling_series
from harness.pricing.cost import Priced
from harness.pricing.price_rows import age_words
from harness.report.formatting import MoneyFormat, clean, interval, memory, number, percent, seconds
from harness.report.labels import describe, machine_labels
from harness.report.sections.cell_table import Field
from harness.report.sections.chunks import HEADS as CHUNK_HEADS
from harness.report.sections.chunks import ChunkWords, chunk_words
from harness.report.sections.details import MADE_UP, is_synthetic, warnings_by_text
from harness.report.sections.ladder import HEADS as RUNG_HEADS
from harness.report.sections.ladder import step_rows, step_sentences
from harness.report.sections.learning import HEADS as LEARNING_HEADS
from harness.report.sections.learning import Learning
from harness.report.sections.machines import Machines
from harness.report.sections.memory import oom_fix_sentences
from harness.report.sections.money import LINE_HEADS, Money
from harness.report.sections.scaling_words import communication_words, ratio_interval, ratio_words, scaling_sentences
from harness.report.sections.worth import WORTH_HEADS, WorthWords
from harness.report.series_labels import series_names

_MAX_ROWS = 30
_LONGEST_REASON = 200
# A backslash takes the meaning of these; the rest (mentions, tags, references) is written as an entity.
_MARKS = re.compile(r"([\\`*_\[\]|~])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&commat;", "#": "&num;", "://": "&colon;//"}


def markdown(
    cells: Sequence[Priced],
    sentences: Sequence[str],
    machines: Machines | None = None,
    spent: Money | None = None,
    worth: WorthWords | None = None,
    learned: Learning | None = None,
    *,
    money: MoneyFormat,
    generated_at: datetime,
) -> str:
    """A summary fit for a pull request."""
    parts = ["# Fine-tuning BERT: cost and performance", f"**{MADE_UP}**" if is_synthetic(cells) else ""]
    parts.append(" ".join(md(sentence) for sentence in sentences))
    parts.append(_md_machines(cells, money))
    parts += [_md_money(spent)] if spent is not None else []
    parts += [_md_worth(worth)] if worth is not None else []
    good = sorted((c for c in cells if c.summary.kind == "fine_tune" and c.summary.num_ok), key=_by_dollars)
    parts.append(_md_side_by_side(machines))
    parts += [_md_ladder(one, cells, money) for one in ladders(cells)]
    parts += [_md_learning(learned)] if learned is not None else []
    parts.append(_md_cells(good, money))
    parts.append(_md_chunks(chunk_words(cells, money)))
    parts.append(_md_scaling(scaling_series(cells), cells, money))
    parts.append(_md_baselines([c for c in cells if c.summary.kind == "baseline" and c.summary.num_ok], money))
    parts.append(_md_failed(failed(cells)))
    parts.append(_md_rescues(cells, money))
    parts.append(
        f"Written {generated_at:%Y-%m-%d %H:%M} UTC. Definitions: docs/METHOD.md. Every figure: cells.csv, report.html."
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def md(text: str, longest: int = 600) -> str:
    """Escape foreign text for one line or table cell of GitHub's Markdown."""
    with_entities = re.sub("[&<>@#]|://", lambda match: _ENTITIES[match[0]], clean(text, longest))
    return _MARKS.sub(r"\\\1", with_entities)


def _by_dollars(cell: Priced) -> tuple[bool, float, float, str]:
    cost = value_of(cell.usd_per_run)
    return (cost is None, cost or 0.0, cell.summary.train_s or 0.0, cell.summary.cell)


def _md_machines(cells: Sequence[Priced], money: MoneyFormat) -> str:
    lines = []
    for machine_id, label in machine_labels(cells).items():
        cell = next(c for c in cells if c.summary.machine_id == machine_id)
        price = cell.price
        if price is None:
            told = f"no price: {md(cell.missing or 'none was found')}"
        else:
            place = ", ".join(md(part) for part in (price.instance, price.provider, price.region) if part)
            dated = (price.as_of, age_words(price.age_days), price.source)
            origin = ", ".join(md(part) for part in dated if part)
            told = f"{money.hourly(price.usd_per_hour)} an hour, **{price.basis}**" + "".join(
                f"; {p}" for p in (place, origin, md(price.paid or "")) if p
            )
            told += f"; {md(price.note)}" if price.note else ""
        lines.append(f"- {md(label)}: {told}")
    return "\n".join(["## Machine and price", *lines]) if lines else ""


def _md_money(spent: Money) -> str:
    told = [*([spent.currency] if spent.currency else []), *spent.compared, *spent.buying, *spent.study]
    lead = f"Of {spent.subject}:" if spent.subject else ""
    table = _md_table(LINE_HEADS, [_md_fields(row) for row in spent.lines]) if spent.lines else ""
    lines = "\n".join(f"- {md(sentence)}" for sentence in told)
    return "\n\n".join(filter(None, ("## What it costs", md(lead), table, lines)))


def _md_worth(worth: WorthWords) -> str:
    said = " ".join(md(sentence) for sentence in (*worth.sentences, worth.marked))
    table = _md_table(WORTH_HEADS, [_md_fields(row) for row in worth.rows]) if worth.rows else ""
    return "\n\n".join(filter(None, ("## Is it worth it", said, table)))


def _md_ladder(ladder: Ladder, cells: Sequence[Priced], money: MoneyFormat) -> str:
    said = " ".join(md(sentence) for sentence in step_sentences(ladder, cells))
    table = _md_table(RUNG_HEADS, [_md_fields(row) for row in step_rows(ladder, cells, money)])
    return f"## The ladder\n\n{said}\n\n{table}"


def _md_chunks(words: ChunkWords | None) -> str:
    if words is None:
        return ""
    said = [f"- {md(sentence)}" for sentence in words.sentences]
    tables = [
        f"{md(label)}:\n\n{_md_table(CHUNK_HEADS, [_md_fields(row) for row in rows])}" for label, rows in words.tables
    ]
    return "\n\n".join(filter(None, ("## Data in chunks", "\n".join(said), *tables)))


def _md_learning(learned: Learning) -> str:
    said = "\n".join(f"- **{md(name)}**: {md(' '.join(sentences), 2_000)}" for name, sentences in learned.sentences)
    table = _md_table(LEARNING_HEADS, [_md_fields(row) for row in learned.rows])
    return f"## How much data is worth paying for\n\n{said}\n\n{table}"


def _md_fields(row: Sequence[Field]) -> list[str]:
    return [md(_md_figure(field.text, field.extra)) for field in row]


def _md_side_by_side(machines: Machines | None) -> str:
    if machines is None:
        return ""
    rows = [[_md_figure(md(field.text), md(field.extra.replace("; ", ", "))) for field in row] for row in machines.rows]
    said = [*machines.verdicts, *machines.cautions]
    differs = [f"- {md(line)}" for line in machines.differences]
    care = "\n\nRecords that stand side by side differ in\n\n" + "\n".join(differs) if differs else ""
    table = _md_table([md(head) for head in machines.heads], rows)
    return "## Machines side by side\n\n" + "\n\n".join(md(line) for line in said) + f"{care}\n\n{table}"


def _md_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = "|".join([" --- "] + [" ---: "] * (len(head) - 1))
    return "\n".join([f"| {' | '.join(head)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in rows)])


def _md_cells(cells: Sequence[Priced], money: MoneyFormat) -> str:
    if not cells:
        return ""
    machines = machine_labels(cells)
    rows = []
    for cell in cells[:_MAX_ROWS]:
        summary = cell.summary
        where = f" on {machines[summary.machine_id]}" if len(machines) > 1 else ""
        rate, accuracy = summary.samples_per_s, summary.accuracy
        rows.append([
            md(clean(summary.cell, 120) + where),
            _md_figure(number(rate.value if rate else None), interval(rate, "number")),
            percent(summary.mfu),
            memory(summary.peak_memory_bytes),
            _md_figure(percent(accuracy.value if accuracy else None), interval(accuracy, "percent")),
            f"{summary.num_updates:,}" if summary.num_updates is not None else "not measured",
            seconds(summary.train_s),
            money.amount(value_of(cell.usd_per_1000_samples)),
            money.amount(value_of(cell.usd_per_run)),
            cell.price.basis if cell.price is not None else "no price",
        ])  # fmt: skip
    head = (
        "Cell",
        "samples/s",
        "of peak (MFU)",
        "peak memory",
        "test accuracy",
        "updates",
        "training",
        "per 1,000 samples",
        "per run",
        "price",
    )
    left = f"\n\n{len(cells) - _MAX_ROWS} more in cells.csv." if len(cells) > _MAX_ROWS else ""
    return f"## Cells, cheapest run first\n\n{_md_table(head, rows)}{left}{_warned(cells)}"


def _warned(cells: Sequence[Priced]) -> str:
    lines = [f"- {md(warning)} ({md(about)})" for warning, about in warnings_by_text(cells)]
    return "\n\nTo be read with care:\n\n" + "\n".join(lines) if lines else ""


def _md_figure(value: str, spread: str) -> str:
    return f"{value} ({spread})" if spread else value


def _md_scaling(series: Sequence[Series], cells: Sequence[Priced], money: MoneyFormat) -> str:
    if not series:
        return ""
    rows = []
    for one, name in zip(series, series_names(series, cells), strict=True):
        for point in one.points:
            rate, speed_up, each = point.samples_per_s, point.speed_up, point.cell.usd_per_1000_samples
            rows.append([
                md(name),
                f"{point.num_devices}",
                f"{point.device_batch_size}",
                f"{point.global_batch_size}",
                _md_figure(number(rate.value), interval(rate, "number")),
                "the base" if point is one.base else _md_figure(ratio_words(speed_up.value), ratio_interval(speed_up)),
                percent(point.efficiency.value),
                _md_figure(money.amount(value_of(each)), money.interval(each)),
                communication_words(point),
            ])  # fmt: skip
    head = (
        *("Scaling", "devices", "batch a device", "global batch", "samples/s", "speed-up", "efficiency"),
        *("per 1,000 samples", "exposed communication"),
    )
    said = "\n\n".join(md(sentence) for sentence in scaling_sentences(series, cells))
    more = f"\n\n{len(rows) - _MAX_ROWS} more in cells.csv." if len(rows) > _MAX_ROWS else ""
    return f"## Scaling over devices\n\n{said}\n\n{_md_table(head, rows[:_MAX_ROWS])}{more}"


def _md_rescues(cells: Sequence[Priced], money: MoneyFormat) -> str:
    lines = [f"- {md(sentence)}" for sentence in oom_fix_sentences(oom_fixes(cells), cells, money)]
    return "\n".join(["## Out of memory, and what fits", "", *lines]) if lines else ""


def _md_baselines(cells: Sequence[Priced], money: MoneyFormat) -> str:
    rows = [
        [
            md(describe(cell, {})),
            percent(value_of(cell.summary.accuracy)),
            seconds(cell.summary.train_s),
            money.amount(value_of(cell.usd_per_run)),
            cell.price.basis if cell.price is not None else "no price",
        ]
        for cell in cells
    ]
    return (
        f"## Baselines\n\n{_md_table(('Baseline', 'test accuracy', 'training', 'per run', 'price'), rows)}"
        if rows
        else ""
    )


def _md_failed(cells: Sequence[Priced]) -> str:
    lines = [
        f"- {md(c.summary.cell)}: **{c.summary.outcome}**, {md(c.summary.reason or 'no reason recorded', _LONGEST_REASON)}"
        for c in cells[:_MAX_ROWS]
    ]
    more = [f"- {len(cells) - _MAX_ROWS} more in cells.csv"] if len(cells) > _MAX_ROWS else []
    # Those of which a run ended well have their warnings beside their figures.
    warned = _warned([cell for cell in cells if not cell.summary.num_ok])
    return "\n".join(["## Cells that failed", "", *lines, *more]) + warned if lines else ""
