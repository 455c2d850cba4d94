"""The page as a file: complete, deterministic, escaped, small, and without network requests."""

from __future__ import annotations

import base64
import gzip
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs

from harness.analysis.estimate import value_of
from harness.decision.choice import choose
from harness.report import write_report
from harness.report.charts.accuracy_curves import accuracy_curves
from harness.report.charts.axes import cost_axis
from harness.report.charts.bars import bars
from harness.report.charts.base import chart_text, script_safe
from harness.report.charts.cost_accuracy import cost_and_accuracy
from harness.report.charts.heat_maps import heat_maps
from harness.report.csv_export import csv_text
from harness.report.formatting import USD
from harness.report.labels import common_values, short_labels
from harness.report.sections.cell_table import HEADS, cell_rows
from harness.report.sections.details import tokenized_example
from harness.report.sections.method import METHOD_URL
from tests.make_priced import ASSUMED, AT, TEXT, baseline, fine_tune, priced, study_records, two_machines

HOSTILE = "</script><script>alert(1)</script><b onclick='x'>\u2028\u2029\"&%{x}"


class Outline(HTMLParser):
    """Headings, references, ids, event handlers and scripts of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.headings: list[int] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.handlers: list[str] = []
        self.scripts = 0
        self.data: dict[str, str] = {}
        self._open: str | None = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        self.references += [named[key] for key in ("src", "href") if named.get(key)]
        self.handlers += [key for key in named if key.startswith("on")]
        self.ids += [named["id"]] if "id" in named else []
        self.scripts += tag == "script"
        self._open = named.get("id") if tag == "script" else None

    def handle_data(self, data):
        if self._open:
            self.data[self._open] = self.data.get(self._open, "") + data


def write(cells, out):
    return write_report(cells, out, generated_at=AT).read_text(encoding="utf-8")


def test_the_same_records_and_time_give_identical_files(tmp_path):
    for folder in ("one", "two"):
        write(priced(study_records()), tmp_path / folder)
    for name in ("report.html", "summary.md", "cells.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == ["cells.csv", "report.html", "summary.md"]


def test_an_old_report_is_replaced(tmp_path):
    write(priced(study_records()), tmp_path)
    write([], tmp_path)
    assert "no records were found" in (tmp_path / "summary.md").read_text(encoding="utf-8")


def test_the_page_references_nothing_external_and_has_a_valid_outline(tmp_path):
    text = write(priced(study_records()), tmp_path)
    page = Outline(text)
    assert page.handlers == []
    assert all(reference.startswith(("#", METHOD_URL)) for reference in page.references)
    assert {reference[1:] for reference in page.references if reference.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    assert "default-src 'none'" in text
    assert gzip.decompress(base64.b64decode(page.data["plotly"])).decode() == get_plotlyjs()
    assert json.loads(page.data["csv"]) == (tmp_path / "cells.csv").read_text(encoding="utf-8")


def test_links_to_the_method_point_to_existing_headings(tmp_path):
    anchors = set(re.findall(rf"{re.escape(METHOD_URL)}#([a-z-]+)", write(priced(study_records()), tmp_path)))
    always = {"throughput", "peak-memory", "accuracy", "time-to-target", "dollars", "price-basis"}
    always |= {
        "what-a-run-is-billed",
        "value-model",
        "mfu",
        "recommendation",
        "machines-compared",
        "warnings",
        "energy",
    }
    always |= {"where-memory-went", "roofline", "mistakes"}
    assert anchors == always | {"scaling", "exposed-communication"}
    headings = re.findall(r"^## (.+)$", Path("docs/METHOD.md").read_text(encoding="utf-8"), re.M)
    assert anchors <= {heading.lower().replace(" ", "-") for heading in headings}


def test_hostile_text_adds_no_script_or_event_handler(tmp_path):
    records = [
        fine_tune(cell=HOSTILE, text=HOSTILE, tokens=("[CLS]", HOSTILE, "[SEP]")),
        fine_tune(32, outcome="crashed", reason=HOSTILE),
        fine_tune(64, sections={"model": {"name": HOSTILE}}),
        baseline(),
    ]
    price = replace(ASSUMED, instance=HOSTILE, source=HOSTILE, note=HOSTILE)
    plain = Outline(write(priced(study_records()), tmp_path / "plain"))
    page = Outline(write(priced(records, price), tmp_path / "hostile"))
    assert page.scripts == plain.scripts
    assert page.handlers == []
    assert "<b onclick" not in page.data["figures"]
    assert "\u2028" not in page.data["figures"] + page.data["csv"]


def test_text_is_escaped_for_plotly_and_for_scripts():
    assert chart_text("<b>&\n") == "&lt;b&gt;&amp;"
    assert json.loads(script_safe(json.dumps(HOSTILE))) == HOSTILE
    assert not set("<>&\u2028\u2029") & set(script_safe(json.dumps(HOSTILE, ensure_ascii=False)))


@pytest.mark.parametrize(("number_of_cells", "most_bytes"), [(1, 2_500_000), (100, 3_000_000)])
def test_the_page_is_small(tmp_path, number_of_cells, most_bytes):
    records = [
        fine_tune(16 + i % 25, 32 + i // 25, rate=5.0 + i / 10, cell=f"cell-{i}") for i in range(number_of_cells)
    ]
    text = write(priced(records), tmp_path)
    assert len(text.encode()) < most_bytes
    assert text.count("cell-") >= number_of_cells


def test_an_empty_study_has_a_page_without_plotly(tmp_path):
    text = write([], tmp_path)
    assert "no records were found" in text
    assert 'id="plotly"' not in text


def test_every_row_has_a_field_for_every_head_in_order():
    cells = priced(study_records())
    for cell, row in zip(cells, cell_rows(cells, None, USD), strict=True):
        assert len(row.fields) == len(HEADS)
        fields = dict(zip(HEADS, row.fields, strict=True))
        assert fields["bill"].sort == value_of(cell.usd_billed)
        assert fields["a run"].sort == value_of(cell.usd_per_run)
        assert fields["updates"].sort == cell.summary.num_updates
        assert fields["peak memory"].sort == cell.summary.peak_memory_bytes
        assert fields["macro-F1"].sort == cell.summary.macro_f1
        assert fields["batch"].sort == getattr(cell.summary.config, "batch_size", None)
        if cell.usd_per_run is not None:
            assert "example" in fields["a run"].extra
        if cell.summary.outcome == "oom":
            assert "killed by the memory limit" in fields["test accuracy"].title


def test_without_stored_texts_the_page_shows_no_example_text(tmp_path):
    cells = priced([fine_tune(texts=False)])
    text = write(cells, tmp_path)
    assert TEXT not in text
    assert "quietly" not in text
    shown = tokenized_example(cells)
    assert shown.text is None
    assert shown.num_real == 14
    assert [token.mask for token in shown.tokens[12:16]] == [1, 1, 0, 0]


def test_padding_tokens_are_shown_and_truncated():
    shown = tokenized_example(priced([fine_tune(seq_len=512)]))
    assert shown.num_tokens == 512
    assert shown.num_hidden_pads == 512 - len(shown.tokens)
    assert (shown.tokens[-1].token, shown.tokens[-1].number, shown.tokens[-1].mask) == ("[PAD]", "0", 0)
    assert (shown.tokens[13].token, shown.tokens[13].number, shown.tokens[13].mask) == ("[SEP]", "102", 1)


def test_failed_cells_keep_their_place_in_the_heat_map():
    charts = heat_maps(priced(study_records()), USD)
    assert [chart.key for chart in charts] == ["chart-heat-0-speed", "chart-heat-0-memory", "chart-heat-0-usd"]
    figure = charts[0].figure
    assert list(figure.data[0].y) == ["8", "16", "32", "256"]
    assert figure.data[0].z[3][2] is None
    assert list(figure.data[1].text) == ["out of<br>memory"]
    assert charts[2].title == "Batch 32, 32 tokens costs least per 1,000 samples (example price)"


def test_one_row_has_heat_maps_and_one_cell_has_no_charts():
    row = priced([fine_tune(16, length) for length in (32, 64, 128)])
    assert len(heat_maps(row, USD)) == 3
    single = priced([fine_tune()])
    assert heat_maps(single, USD) == []
    assert bars(single, USD) == ([], 0)


def test_baselines_are_drawn_as_lines_and_the_pareto_front_is_drawn():
    cells = priced(study_records())
    figure = cost_and_accuracy(cells, choose(cells), USD).figure
    names = [trace.name for trace in figure.data]
    assert {"TF-IDF 69.7%", "majority class 57.7%", "front of cost and accuracy"} <= set(names)
    points = sum(len(trace.x) for trace in figure.data if "markers" in trace.mode)
    assert points == 12
    for chart in accuracy_curves(cells, choose(cells), USD):
        # The curves show validation accuracy, so these lines do too.
        assert {"TF-IDF 68.7%", "majority class 56.7%"} <= {trace.name for trace in chart.figure.data}


def test_the_frozen_encoders_accuracy_is_a_line():
    cells = priced([fine_tune(), baseline("features", 0.782)])
    names = [trace.name for trace in cost_and_accuracy(cells, choose(cells), USD).figure.data]
    assert "frozen encoder 78.2%" in names and not any("TF-IDF" in name for name in names)
    for chart in accuracy_curves(cells, choose(cells), USD):
        assert "frozen encoder 77.2%" in {trace.name for trace in chart.figure.data}


def test_a_curves_cost_includes_setup_and_training():
    cells = priced([fine_tune()])
    time, money = accuracy_curves(cells, choose(cells), USD)
    last_s, last_usd = time.figure.data[0].x[-1], money.figure.data[0].x[-1]
    assert last_usd == pytest.approx((last_s + cells[0].summary.setup_s) * 0.192 / 3600, rel=1e-9)


def test_bars_compare_cells_that_differ_only_in_precision_device_or_machine():
    records, prices = two_machines()
    charts, more = bars(priced(records, prices=prices), USD)
    assert more == 0
    assert [chart.key for chart in charts] == ["chart-bars-speed", "chart-bars-memory", "chart-bars-usd"]
    speed = charts[0].figure
    assert any(
        "unsupported" in text for trace in speed.data if trace.type == "bar" and trace.text for text in trace.text
    )
    assert max(x for trace in speed.data if trace.type == "bar" for x in trace.x if x) > 1000


def test_bars_have_their_names_above_and_the_choice_its_own_colour():
    # Two batch sizes at fp32 on one CPU, one of them at bf16 too; the fp16 cell failed.
    cells = priced([
        fine_tune(16),
        fine_tune(32),
        fine_tune(16, precision="bf16", rate=40.0),
        fine_tune(32, precision="fp16", outcome="unsupported", reason="no"),
    ])  # fmt: skip
    (speed, *_), num_more = bars(cells, USD, cells[2])
    assert num_more == 0
    assert speed.title == "batch 16, bf16, cpu trains fastest"
    drawn = {trace.meta["colour"]: trace for trace in speed.figure.data if trace.type == "bar" and trace.meta}
    assert list(drawn["pick"].x) == [cells[2].summary.samples_per_s.value]
    assert list(drawn["measure"].x) == [*(cell.summary.samples_per_s.value for cell in cells[:2]), None]
    names = speed.figure.data[-1]
    assert list(names.text) == [
        "batch 16, fp32, cpu",
        "batch 16, bf16, cpu",
        "batch 32, fp32, cpu",
        "batch 32, fp16, cpu",
    ]
    # A bar of 16 pixels below a line of 16, with 8 below: bars at 24, 64, 104, 144; names at 8, 48, 88, 128.
    assert list(names.y) == [8.0, 48.0, 88.0, 128.0]
    assert sorted([*drawn["pick"].y, *drawn["measure"].y]) == [24.0, 64.0, 104.0, 144.0]


def test_labels_include_the_study_name_where_studies_differ():
    lab = {"training": {"lr": 0.005, "epochs": 10.0, "optimizer": "sgd"}, "data": {"num_train": 1800}}
    cells = priced([fine_tune(16), fine_tune(32), fine_tune(16, study="lab", sections=lab)])
    assert sorted(short_labels(cells).values()) == ["16×64", "16×64 (lab)", "32×64"]
    assert [key for key in common_values(cells) if "." in key] == []


def test_widely_spread_costs_use_a_logarithmic_axis():
    assert cost_axis([1.0, 2.0], ends=[1.0, 2.0])["range"][0] < 1.0
    wide = cost_axis([0.001, 1.0], ends=[0.001, 1.0], unit="$")
    assert wide["type"] == "log"
    assert "$0.01" in wide["ticktext"]


def test_the_page_without_prices_says_so(tmp_path):
    text = write(priced([fine_tune(), fine_tune(32)], None), tmp_path)
    assert "dollars are not known" in text
    assert "seconds a training (no price)" in text
    assert "no price row has this machine" in csv_text(priced([fine_tune()], None))


def test_made_up_records_are_marked_in_page_and_summary_and_measured_ones_are_not(tmp_path):
    made_up = priced([fine_tune()])
    assert made_up[0].summary.records[0].is_made_up
    (record,) = made_up[0].summary.records
    measured = priced([record.model_copy(update={"is_made_up": False})])
    for cells, marked in ((made_up, True), (measured, False)):
        write_report(cells, tmp_path, generated_at=AT)
        page, summary = ((tmp_path / name).read_text() for name in ("report.html", "summary.md"))
        assert ('<body class="made-up">' in page) is marked
        assert ("no figure of theirs was measured" in page) is marked
        assert ("no figure of theirs was measured" in summary) is marked
