"""Write report.html: sections, charts and data in one self-contained file."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Literal

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
from harness.report.sections.details import (
    MADE_UP,
    MachineFacts,
    failures,
    is_synthetic,
    machine_facts,
    tokenized_example,
    warnings_by_text,
)
from harness.report.sections.finding import study_finding
from harness.report.sections.fold_findings import (
    assumptions_words,
    cells_words,
    compute_words,
    curves_words,
    example_words,
    failed_words,
    fastest_words,
    ladder_words,
    learning_words,
    machines_words,
    memory_words,
    method_words,
    mistakes_words,
    money_words,
    scaling_words,
    warnings_words,
)
from harness.report.sections.ladder import LadderSection, ladder_sections
from harness.report.sections.machines import Machines
from harness.report.sections.memory import memory_section
from harness.report.sections.method import MethodEntry, method, not_measured
from harness.report.sections.mistakes import mistakes_section
from harness.report.sections.model_and_data import data_descriptions, model_descriptions
from harness.report.sections.money import Money
from harness.report.sections.other_prices import OtherPricesSection
from harness.report.sections.scaling import Scaling, scaling_section
from harness.report.sections.tiles import Tile, tiles
from harness.report.sections.verdict import tfidf_cost
from harness.report.sections.worth import WorthSection
from harness.report.table import Table

# The page's scripts, each after the scripts that it depends on.
_SCRIPTS = (
    *("formulas", "wording", "recompute", "comparing", "ranking", "address", "decision"),
    *("redraw", "scatter", "panel", "labels", "drawing", "tables", "machine_comparison", "table_cells", "page"),
)


@dataclass(frozen=True)
class Section:
    """One section of the page.

    Attributes:
        key: Id of the section's element, and name of the section's template in assets/sections.
        heading: The section's title, also in the page's list of contents.
        content: The values that the template shows.
        charts: The charts that the template shows.
        finding: What the section found, in a few words beside its heading.
        is_fold: Whether the section can be folded; if not, it is always shown.
        opens: Whether the engineer's view begins with this section unfolded.
        view: The view that shows the section.
        needs_script: Whether the section is shown only where JavaScript runs.
        follows_prices: Whether the finding rests on prices or values that the reader can change.
        terms: Names of the figures in it, each with the anchor of its definition in docs/METHOD.md.
    """

    key: str
    heading: str
    content: object = None
    charts: Sequence[Chart] = ()
    finding: str = ""
    is_fold: bool = True
    opens: bool = False
    view: Literal["both", "decide", "engineer"] = "both"
    needs_script: bool = False
    follows_prices: bool = False
    terms: tuple[tuple[str, str], ...] = ()

    @property
    def css_class(self) -> str:
        """The classes that show the element in the section's view only."""
        view = "" if self.view == "both" else f"for-{self.view}"
        return " ".join(filter(None, (view, "for-script" if self.needs_script else "")))

    @property
    def definitions(self) -> list[MethodEntry]:
        """The links to the definitions of the section's figures."""
        return [MethodEntry(name, "", anchor) for name, anchor in self.terms]


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
    facts: Sequence[MachineFacts]
    machines: Machines | None
    other_prices: OtherPricesSection | None


@dataclass(frozen=True)
class _Money:
    costs: Money
    worth: WorthSection


@dataclass(frozen=True)
class _Curves:
    charts: Sequence[Chart]
    chunks: Chunks | None


@dataclass(frozen=True)
class _Method:
    entries: Sequence[MethodEntry]
    not_measured: Sequence[str]


@dataclass(frozen=True)
class _Varied:
    """What the study varies: sizes, ladders and numbers of devices."""

    maps: Sequence[Chart]
    ladders: Sequence[LadderSection]
    scaling: Scaling | None


_ACCURACY = ("accuracy", "accuracy")
_BILL = ("bill", "what-a-run-is-billed")
_SPEED = ("training speed", "throughput")
_MEMORY = ("peak memory", "peak-memory")
_TO_TARGET = ("time to target", "time-to-target")


def page(report: Report, csv: str) -> str:
    """Render the page; `csv` is the text of cells.csv, which the page offers for copying."""
    cells, money = report.cells, MoneyFormat(report.assumptions.prices.currency)
    varied = _Varied(heat_maps(cells, money), ladder_sections(cells, money), scaling_section(cells, money))
    sections = [
        *_first_sections(report, varied),
        *_main_sections(report),
        *_varied_sections(report, varied),
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
        plotly=_packed(get_plotlyjs()) if charts else "",
    )


def _first_sections(report: Report, varied: _Varied) -> Iterator[Section]:
    """Yield the sections of the first screen: the answer, cost against accuracy, and the study's finding."""
    cells, choice, money = report.cells, report.choice, MoneyFormat(report.assumptions.prices.currency)
    answer = _Answer(
        report.answer,
        report.alternatives,
        tiles(choice, money),
        choice.num_elsewhere,
        model_descriptions(cells),
        data_descriptions(cells),
    )
    yield Section(
        "answer",
        "The answer",
        answer,
        is_fold=False,
        terms=(_ACCURACY, _BILL, ("choice and verdict", "recommendation")),
    )
    chart = cost_and_accuracy(cells, choice, money)
    cost = _Cost(chart, tfidf_cost(choice, money))
    yield Section("cost", "Cost and accuracy", cost, [chart] if chart else [], is_fold=False)
    finding = study_finding(cells, varied.ladders, report.learning, varied.scaling, varied.maps)
    if finding is not None:
        charts = [finding.chart] if finding.chart is not None else []
        yield Section(
            "finding", "What the study found", finding, charts, is_fold=False, view="decide", needs_script=True
        )


def _main_sections(report: Report) -> Iterator[Section]:
    """Yield the sections that the engineer's view opens, money, and the assumptions."""
    cells, choice, money = report.cells, report.choice, MoneyFormat(report.assumptions.prices.currency)
    yield Section(
        "cells",
        "Every cell",
        cell_table(cells, choice.pick, money),
        finding=cells_words(cells),
        opens=True,
        terms=(_ACCURACY, _SPEED, _MEMORY, _TO_TARGET, ("share of the peak", "mfu"), ("dollars", "dollars")),
    )
    machines = _Machines(machine_facts(cells, money), report.machines, report.other_prices)
    yield Section(
        "machines",
        "Machines and prices",
        machines,
        report.machines.charts if report.machines else (),
        machines_words(cells),
        opens=True,
        terms=(("price", "price-basis"), ("machines compared", "machines-compared")),
    )
    if report.shortlist is not None:
        chart = report.shortlist.chart
        yield Section(
            "shortlist",
            "Machines to measure next",
            report.shortlist,
            [chart] if chart else [],
            report.shortlist.finding,
            terms=(("machines not measured", "machines-that-were-not-rented"),),
        )
    yield Section(
        "warnings",
        "Warnings",
        warnings_by_text(cells),
        finding=warnings_words(cells),
        opens=True,
        terms=(("warnings", "warnings"),),
    )
    failures_found = failures(failed(cells), machine_labels(cells))
    yield Section("failed", "Failures", failures_found, finding=failed_words(cells), opens=True)
    yield Section(
        "money",
        "Money",
        _Money(report.money, report.worth),
        finding=money_words(choice),
        follows_prices=True,
        terms=(_BILL, ("dollars", "dollars"), ("energy", "energy"), ("value model", "value-model")),
    )
    if choice.pick is not None:
        words = assumptions_words(report.assumptions)
        yield Section("assumptions", "Change every assumption", finding=words, needs_script=True)


def _varied_sections(report: Report, varied: _Varied) -> Iterator[Section]:
    """Yield the sections that compare cells: ladders, training sizes, devices, sizes and precisions."""
    cells, money = report.cells, MoneyFormat(report.assumptions.prices.currency)
    if varied.ladders:
        yield Section(
            "ladder",
            "Ladder",
            varied.ladders,
            [chart for ladder in varied.ladders for chart in ladder.charts],
            ladder_words([each.ladder for each in varied.ladders]),
            terms=(("ladder", "ladder"), _TO_TARGET),
        )
    if report.learning:
        yield Section(
            "learning",
            "How much data",
            report.learning,
            report.learning.charts,
            learning_words(report.learning.curves),
            terms=(("learning curve", "learning-curve"),),
        )
    if varied.scaling:
        charts = [chart for group in varied.scaling.charts.values() for chart in group]
        terms = (("scaling", "scaling"), ("exposed communication", "exposed-communication"))
        yield Section(
            "scaling", "Number of devices", varied.scaling, charts, scaling_words(varied.scaling.series), terms=terms
        )
    memory = memory_section(cells, money)
    if memory:
        yield Section(
            "memory",
            "Memory",
            memory,
            [memory.chart] if memory.chart else [],
            memory_words(cells),
            terms=(_MEMORY, ("parts of memory", "where-memory-went")),
        )
    if varied.maps:
        yield Section(
            "maps",
            "Batch and length",
            _by_group(varied.maps),
            varied.maps,
            fastest_words(cells),
            view="engineer",
            terms=(_SPEED, _MEMORY),
        )
    compared = _Charts(*bars(cells, money, report.choice.pick))
    if compared.charts:
        heading = "Precision and device"
        yield Section("compared", heading, compared, compared.charts, fastest_words(cells), view="engineer")


def _analysis_sections(report: Report) -> Iterator[Section]:
    """Yield the sections that explain cells: compute, learning, runs and mistakes."""
    cells, money = report.cells, MoneyFormat(report.assumptions.prices.currency)
    compute = compute_section(cells)
    curves = _Curves(accuracy_curves(cells, report.choice, money), chunks_section(cells, money))
    runs = _Charts(*runs_charts(cells, report.records))
    mistakes = mistakes_section(cells, report.choice.pick)
    if compute:
        terms = (("share of the peak", "mfu"), ("roofline", "roofline"))
        words = compute_words(cells)
        yield Section("arithmetic", "Arithmetic", compute, compute.charts, words, view="engineer", terms=terms)
    charts = [*curves.charts, *([curves.chunks.chart] if curves.chunks else [])]
    yield Section(
        "curves", "Accuracy over time", curves, charts, curves_words(cells), view="engineer", terms=(_ACCURACY,)
    )
    if runs.charts:
        words = f"{plural(len(runs.charts) + runs.num_more, 'cell')} with many runs"
        yield Section("runs", "Runs over dates", runs, runs.charts, words, view="engineer")
    if mistakes:
        words = mistakes_words(report.choice)
        yield Section(
            "mistakes", "Mistakes", mistakes, finding=words, view="engineer", terms=(("mistakes", "mistakes"),)
        )


def _record_sections(report: Report) -> Iterator[Section]:
    """Yield the sections that show how it was measured: an example and the method."""
    cells = report.cells
    example = tokenized_example(cells)
    words = "none" if example is None else example_words(example.num_real, example.num_tokens)
    yield Section("example", "Example of a text", example, finding=words, view="engineer")
    missing = not_measured(cells)
    yield Section("method", "Method", _Method(method(cells), missing), finding=method_words(len(missing)))


def _read(name: str) -> str:
    return files("harness.report.assets").joinpath(name).read_text(encoding="utf-8")


def _packed(script: str) -> str:
    """Compress a script to text, which takes 1.9 MB where plotly.js has 4.8; assets/drawing.js unpacks it."""
    return base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode()


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
