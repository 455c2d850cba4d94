"""Write report.html: sections, charts and data in one self-contained file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from harness import __version__
from harness.decision.cells import failed, measured
from harness.pricing.cost import Priced
from harness.report.charts.accuracy_curves import accuracy_curves
from harness.report.charts.bars import bars
from harness.report.charts.base import Chart, as_json, script_safe
from harness.report.charts.cost_accuracy import cost_and_accuracy
from harness.report.charts.heat_maps import heat_maps
from harness.report.charts.runs import runs_charts
from harness.report.formatting import MoneyFormat, clean, plural
from harness.report.labels import commit_label, machine_labels
from harness.report.page_data import page_data
from harness.report.report import Report
from harness.report.sections.cell_table import cell_table
from harness.report.sections.chunks import Chunks, chunks_section
from harness.report.sections.compute import compute_section
from harness.report.sections.details import MADE_UP, failures, is_synthetic, machine_facts, tokenized_example
from harness.report.sections.ladder import ladder_sections
from harness.report.sections.machines import Machines
from harness.report.sections.memory import memory_section
from harness.report.sections.method import MethodEntry, method, not_measured
from harness.report.sections.mistakes import mistakes_section
from harness.report.sections.model_and_data import data_descriptions, model_descriptions
from harness.report.sections.other_prices import OtherPricesSection
from harness.report.sections.scaling import scaling_section
from harness.report.sections.tiles import Tile, tiles
from harness.report.sections.verdict import tfidf_cost
from harness.report.table import Table

# The page's scripts, each after the scripts that it depends on.
_SCRIPTS = (
    *("formulas", "wording", "recompute", "comparing", "ranking", "address", "decision"),
    *("redraw", "scatter", "drawing", "panel", "tables", "machine_comparison", "table_cells", "page"),
)


@dataclass(frozen=True)
class Section:
    """One section of the page.

    Attributes:
        key: Id of the section's element, and name of the section's template in assets/sections.
        heading: The section's title in the page's list of contents.
        content: The values that the template shows.
        charts: The charts that the template shows.
        needs_script: Whether the section is shown only where JavaScript runs.
    """

    key: str
    heading: str
    content: object = None
    charts: Sequence[Chart] = ()
    needs_script: bool = False


@dataclass(frozen=True)
class _Answer:
    sentences: Sequence[str]
    alternatives: Table
    tiles: Sequence[Tile]
    num_elsewhere: int
    models: Sequence[str]
    data: Sequence[str]


@dataclass(frozen=True)
class _Cost:
    chart: Chart | None
    tfidf_cost: str


@dataclass(frozen=True)
class _Charts:
    charts: Sequence[Chart]
    num_more: int


@dataclass(frozen=True)
class _Machines:
    machines: Machines | None
    other_prices: OtherPricesSection | None


@dataclass(frozen=True)
class _Curves:
    charts: Sequence[Chart]
    chunks: Chunks | None


@dataclass(frozen=True)
class _Method:
    entries: Sequence[MethodEntry]
    not_measured: Sequence[str]


def page(report: Report, csv: str) -> str:
    """Render the page; `csv` is the text of cells.csv, which the page offers for copying."""
    cells = report.cells
    sections = [
        *_decision_sections(report),
        *_comparison_sections(report),
        *_analysis_sections(report),
        *_record_sections(report),
    ]
    charts = [chart for section in sections for chart in section.charts]
    data = page_data(cells, report.choice, report.assumptions, report.prices, report.plain)
    data["side"] = report.machines.recompute if report.machines else None
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        title="Fine-tuning BERT: cost and performance",
        subtitle=_subtitle(cells, report.generated_at),
        is_made_up=is_synthetic(cells),
        made_up_words=MADE_UP,
        sections=sections,
        footer=_footer(cells),
        figures=Markup(as_json(charts)),  # noqa: S704 - escaped by as_json
        csv=_json_markup(csv),
        facts=_json_markup(data),
        style=Markup(_read("page.css")),  # noqa: S704 - our own files
        scripts=[Markup(_read(f"{name}.js")) for name in _SCRIPTS],  # noqa: S704
        plotly=Markup(get_plotlyjs() if charts else ""),  # noqa: S704 - a test checks that it holds no `</script`
    )


def _decision_sections(report: Report) -> Iterator[Section]:
    """Yield the sections that a decision needs: the answer, its costs and its value."""
    cells, choice, money = report.cells, report.choice, MoneyFormat(report.assumptions.prices.currency)
    headline = tiles(choice, money)
    answer = _Answer(
        report.answer,
        report.alternatives,
        headline,
        choice.num_elsewhere,
        model_descriptions(cells),
        data_descriptions(cells),
    )
    chart = cost_and_accuracy(cells, choice, money)
    yield Section("answer", "Answer", answer)
    yield Section("cost", "Cost against accuracy", _Cost(chart, tfidf_cost(choice, money)), [chart] if chart else [])
    if headline:
        yield Section("what-if", "What if", needs_script=True)
    yield Section("money", "What it costs", report.money)
    yield Section("worth", "Is it worth it", report.worth)
    yield Section("machine", "Machine and price", machine_facts(cells, money))


def _comparison_sections(report: Report) -> Iterator[Section]:
    """Yield the sections that compare cells: sizes, ladders, precisions, devices and machines."""
    cells, money = report.cells, MoneyFormat(report.assumptions.prices.currency)
    maps, ladders, scaling = heat_maps(cells, money), ladder_sections(cells, money), scaling_section(cells, money)
    compared = _Charts(*bars(cells, money))
    machines = _Machines(report.machines, report.other_prices)
    if maps:
        yield Section("maps", "Batch and length", _by_group(maps), maps)
    if ladders:
        yield Section("ladder", "Ladder", ladders, [chart for ladder in ladders for chart in ladder.charts])
    if compared.charts:
        yield Section("compared", "Precision and devices", compared, compared.charts)
    if machines.machines or machines.other_prices:
        heading = "Machines side by side" if machines.machines else "Other machines"
        yield Section("machines", heading, machines, machines.machines.charts if machines.machines else ())
    if scaling:
        charts = [chart for group in scaling.charts.values() for chart in group]
        yield Section("scaling", "Over devices", scaling, charts)


def _analysis_sections(report: Report) -> Iterator[Section]:
    """Yield the sections that explain cells: compute, memory, learning, runs and mistakes."""
    cells, money = report.cells, MoneyFormat(report.assumptions.prices.currency)
    compute, memory, learning = compute_section(cells), memory_section(cells, money), report.learning
    curves = _Curves(accuracy_curves(cells, report.choice, money), chunks_section(cells, money))
    runs = _Charts(*runs_charts(cells, report.records))
    mistakes = mistakes_section(cells, report.choice.pick)
    if compute:
        yield Section("arithmetic", "Arithmetic", compute, compute.charts)
    if memory:
        yield Section("memory", "Memory", memory, [memory.chart] if memory.chart else [])
    if learning:
        yield Section("learning", "How much data", learning, learning.charts)
    yield Section("curves", "Over time", curves, [*curves.charts, *([curves.chunks.chart] if curves.chunks else [])])
    if runs.charts:
        yield Section("runs", "Runs over dates", runs, runs.charts)
    if mistakes:
        yield Section("mistakes", "Mistakes", mistakes)


def _record_sections(report: Report) -> Iterator[Section]:
    """Yield the sections that show records: failures, an example, every cell and the method."""
    cells, money = report.cells, MoneyFormat(report.assumptions.prices.currency)
    yield Section("failed", "Failed cells", failures(failed(cells), machine_labels(cells)))
    yield Section("example", "Example", tokenized_example(cells))
    yield Section("cells", "Every cell", cell_table(cells, report.choice.pick, money))
    yield Section("method", "Method", _Method(method(cells), not_measured(cells)))


def _read(name: str) -> str:
    return files("harness.report.assets").joinpath(name).read_text(encoding="utf-8")


def _json_markup(value: object) -> Markup:
    """Write JSON for a script element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Markup(script_safe(text))  # noqa: S704 - escaped by script_safe


def _by_group(charts: Iterable[Chart]) -> dict[str, list[Chart]]:
    groups: dict[str, list[Chart]] = {}
    for chart in charts:
        groups.setdefault(chart.group or "", []).append(chart)
    return groups


def _subtitle(cells: Sequence[Priced], generated_at: datetime) -> str:
    studies = list(dict.fromkeys(clean(cell.summary.study, 60) for cell in cells))
    num_baselines = sum(cell.summary.kind == "baseline" for cell in cells)
    num_failed = len(failed(cells))
    parts = [
        f"Study {', '.join(studies)}" if studies else "",
        plural(len(measured(cells)), "configuration") + " measured",
        plural(num_baselines, "baseline") if num_baselines else "",
        f"{num_failed} failed or unsupported" if num_failed else "",
        f"written {generated_at:%Y-%m-%d %H:%M} UTC",
    ]
    return " · ".join(filter(None, parts))


def _footer(cells: Sequence[Priced]) -> str:
    labels = (commit_label(record) for cell in cells for record in cell.summary.records)
    commits = sorted({label for label in labels if label is not None})
    records = f" Records by commit {clean(', '.join(commits))}." if commits else ""
    return f"Written by harness {__version__}.{records}"
