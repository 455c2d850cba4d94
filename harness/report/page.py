"""The page: template, style, script, plotly and the figures, put together into one file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from harness import __version__
from harness.decision.choice import Choice, failed, measured
from harness.decision.ladder import ladders
from harness.decision.memory_savings import memory_savings, oom_fixes
from harness.decision.scaling import scaling_series
from harness.pricing.cost import Priced
from harness.pricing.prices import Price
from harness.report.charts.accuracy_curves import accuracy_curves
from harness.report.charts.bars import bars
from harness.report.charts.base import Chart, as_json, script_safe
from harness.report.charts.cost_accuracy import cost_and_accuracy
from harness.report.charts.heat_maps import heat_maps
from harness.report.charts.memory import memory_chart
from harness.report.charts.runs import runs_charts
from harness.report.charts.scaling import scaling_charts
from harness.report.csv_export import commit
from harness.report.formatting import MoneyFormat, clean, plural
from harness.report.labels import machine_labels
from harness.report.page_data import page_data
from harness.report.sections.answer import tfidf_cost
from harness.report.sections.assumptions import INPUT_HEADS
from harness.report.sections.cell_table import HEADS, MANY_ROWS, TEXT_COLUMNS, rows
from harness.report.sections.chunks import HEADS as CHUNK_HEADS
from harness.report.sections.chunks import chunk_words
from harness.report.sections.compute import HEADS as ROOFLINE_HEADS
from harness.report.sections.compute import MAX_ROWS as MOST_ROOFLINE_ROWS
from harness.report.sections.compute import roofline_rows, rooflines
from harness.report.sections.details import MADE_UP, is_synthetic, losses, places, sample, totals, warnings_by_text
from harness.report.sections.ladder import HEADS as RUNG_HEADS
from harness.report.sections.ladder import step_charts, step_rows, step_sentences
from harness.report.sections.learning import HEADS as LEARNING_HEADS
from harness.report.sections.learning import Learning
from harness.report.sections.machines import Machines
from harness.report.sections.memory import (
    HOLDER_HEADS,
    MAX_WAYS,
    WAY_HEADS,
    memory_users,
    memory_warnings,
    oom_fix_sentences,
    saving_rows,
)
from harness.report.sections.method import data_words, method, model_words, not_measured
from harness.report.sections.mistakes import MISTAKE_HEADS, mistakes
from harness.report.sections.money import CELL_HEADS, LINE_HEADS, Money
from harness.report.sections.other_prices import Moved
from harness.report.sections.scaling_table import HEADS as SCALING_HEADS
from harness.report.sections.scaling_table import scaling_rows
from harness.report.sections.scaling_words import scaling_sentences
from harness.report.sections.tiles import tiles
from harness.report.sections.worth import WORTH_HEADS, WorthWords
from harness.report.series_labels import MAX_SERIES
from harness.schema.assumptions import Assumptions
from harness.schema.record import Record

# Each uses what those before it define.
_SCRIPTS = (
    *("formulas", "wording", "recompute", "ranking", "address", "decision"),
    *("redraw", "scatter", "drawing", "panel", "tables", "machine_comparison", "table_cells", "page"),
)


@dataclass(frozen=True)
class Sections:
    """Sections that are words already; None where there is nothing to say."""

    money: Money
    worth: WorthWords
    machines: Machines | None
    elsewhere: Moved | None
    learning: Learning | None


def page(
    cells: Sequence[Priced],
    choice: Choice,
    sentences: Sequence[str],
    csv: str,
    assumed: Assumptions,
    choices: Mapping[str, Sequence[Price | None]],
    parts: Sections,
    records: Sequence[Record],
    *,
    generated_at: datetime,
) -> str:
    """Render the whole page.

    Args:
        cells: Every cell, in the order in which tables show them.
        choice: Among `cells`.
        sentences: The answer.
        csv: Offered for copying.
        assumed: Those under which `cells` was priced.
        choices: See `facts`.
        records: All, older runs of the same repeats too.
        generated_at: In UTC.
    """
    money = MoneyFormat(assumed.prices.currency)
    cost = cost_and_accuracy(cells, choice, money)
    maps = heat_maps(cells, money)
    compared, num_more = bars(cells, money)
    curves = accuracy_curves(cells, choice, money)
    scaling = _scaling(cells, money)
    memory = _memory(cells, money)
    arithmetic = _arithmetic(cells)
    climbed = _ladders(cells, money)
    runs, num_more_runs = runs_charts(cells, records)
    chunks = chunk_words(cells, money)
    charts = [
        *([cost] if cost is not None else []),
        *maps,
        *(chart for one in climbed for chart in one["charts"]),
        *compared,
        *(parts.machines.charts if parts.machines else ()),
        *(chart for group in (scaling["charts"].values() if scaling else []) for chart in group),
        *(arithmetic["charts"] if arithmetic else []),
        *([memory["chart"]] if memory and memory["chart"] else []),
        *(parts.learning.charts if parts.learning else ()),
        *curves,
        *([chunks.chart] if chunks else []),
        *runs,
    ]
    told = page_data(cells, choice, assumed, choices) | {"side": parts.machines.live if parts.machines else None}
    template = _environment().from_string(_read("page.html.j2"))
    return template.render(
        title="Fine-tuning BERT: cost and performance",
        subtitle=_subtitle(cells, generated_at),
        is_made_up=is_synthetic(cells),
        made_up_words=MADE_UP,
        sentences=sentences,
        tiles=tiles(choice, money),
        num_elsewhere=choice.num_elsewhere,
        model_words=model_words(cells),
        data_words=data_words(cells),
        places=places(cells, money),
        cost=cost,
        tfidf_cost=tfidf_cost(choice, money),
        money=parts.money,
        worth=parts.worth,
        money_heads={"line": LINE_HEADS, "cell": CELL_HEADS, "worth": WORTH_HEADS, "input": INPUT_HEADS},
        maps=_by_group(maps),
        bars=compared,
        num_more_bars=num_more,
        machines=parts.machines,
        elsewhere=parts.elsewhere,
        scaling=scaling,
        memory=memory,
        arithmetic=arithmetic,
        ladders=climbed,
        rung_heads=RUNG_HEADS,
        learning=parts.learning,
        learning_heads=LEARNING_HEADS,
        curves=curves,
        chunks=chunks,
        chunk_heads=CHUNK_HEADS,
        runs=runs,
        num_more_runs=num_more_runs,
        mistakes=mistakes(cells, choice.pick),
        mistake_heads=MISTAKE_HEADS,
        losses=losses(failed(cells), machine_labels(cells)),
        sample=sample(cells),
        heads=HEADS,
        text_columns=TEXT_COLUMNS,
        many_rows=MANY_ROWS,
        rows=rows(cells, choice.pick, money),
        warnings=warnings_by_text(cells),
        method=method(cells),
        not_measured=not_measured(cells),
        totals=totals(cells),
        footer=_footer(cells),
        figures=Markup(as_json(charts)),  # noqa: S704 - escaped by as_json
        csv=Markup(script_safe(json.dumps(csv))),  # noqa: S704 - escaped by script_safe
        facts=Markup(  # noqa: S704 - as csv
            script_safe(json.dumps(told, allow_nan=False, separators=(",", ":")))
        ),
        style=Markup(_read("page.css")),  # noqa: S704 - our own files
        scripts=[Markup(_read(f"{name}.js")) for name in _SCRIPTS],  # noqa: S704
        plotly=Markup(get_plotlyjs() if charts else ""),  # noqa: S704 - it holds no `</script`, which a test asks
    )


def _scaling(cells: Sequence[Priced], money: MoneyFormat) -> dict[str, Any] | None:
    """What the section on devices shows; None without a series."""
    series = scaling_series(cells)
    if not series:
        return None
    return {
        "sentences": scaling_sentences(series, cells),
        "charts": scaling_charts(series, cells, money),
        "num_more": max(0, len(series) - MAX_SERIES),
        "shares_cores": any(one.device == "cpu" for one in series),
        "heads": SCALING_HEADS,
        "rows": scaling_rows(series, cells, money),
    }


def _ladders(cells: Sequence[Priced], money: MoneyFormat) -> list[dict[str, Any]]:
    """What the section on ladders shows, one after the other."""
    return [
        {
            "name": one.study,
            "target": one.target,
            "sentences": step_sentences(one, cells),
            "charts": step_charts(one, index),
            "rows": step_rows(one, cells, money),
        }
        for index, one in enumerate(ladders(cells))
    ]


def _arithmetic(cells: Sequence[Priced]) -> dict[str, Any] | None:
    """What the section on arithmetic shows; None where no cell computed anything that is known."""
    rows = roofline_rows(cells)
    if not rows:
        return None
    return {
        "charts": rooflines(cells),
        "heads": ROOFLINE_HEADS,
        "rows": rows[:MOST_ROOFLINE_ROWS],
        "num_more": max(0, len(rows) - MOST_ROOFLINE_ROWS),
    }


def _memory(cells: Sequence[Priced], money: MoneyFormat) -> dict[str, Any] | None:
    """What the section on memory shows; None where no record says anything of it."""
    chart, num_more = memory_chart(cells)
    held, steps = memory_users(cells), memory_savings(cells)
    found = {
        "chart": chart,
        "num_more": num_more,
        "any_cap": any(
            record.cap is not None and record.cap.exact for cell in cells for record in cell.summary.records
        ),
        "warnings": memory_warnings(cells),
        "holders": held,
        "holder_heads": HOLDER_HEADS,
        "rescues": oom_fix_sentences(oom_fixes(cells), cells, money),
        "ways": saving_rows(steps, cells, money),
        "way_heads": WAY_HEADS,
        "num_more_ways": max(0, len(steps) - MAX_WAYS),
    }
    told = (chart, found["warnings"], held.rows, held.notes, found["rescues"], steps)
    return found if any(told) else None


def _environment() -> jinja2.Environment:
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _read(name: str) -> str:
    return files("harness.report.assets").joinpath(name).read_text(encoding="utf-8")


def _by_group(charts: Sequence[Chart]) -> dict[str, list[Chart]]:
    groups: dict[str, list[Chart]] = {}
    for chart in charts:
        groups.setdefault(chart.group or "", []).append(chart)
    return groups


def _subtitle(cells: Sequence[Priced], generated_at: datetime) -> str:
    studies = list(dict.fromkeys(clean(cell.summary.study, 60) for cell in cells))
    good, lost = len(measured(cells)), len(failed(cells))
    baselines = sum(cell.summary.kind == "baseline" for cell in cells)
    counts = [
        plural(good, "configuration") + " measured",
        *([plural(baselines, "baseline")] if baselines else []),
        *([f"{lost} failed or unsupported"] if lost else []),
    ]
    named = [f"Study {', '.join(studies)}"] if studies else []
    return " · ".join([*named, *counts, f"written {generated_at:%Y-%m-%d %H:%M} UTC"])


def _footer(cells: Sequence[Priced]) -> str:
    commits = {found for cell in cells for record in cell.summary.records if (found := commit(record)) is not None}
    told = f" Records by commit {clean(', '.join(sorted(commits)))}." if commits else ""
    return f"Written by harness {__version__}.{told}"
