"""The three files of a report, from synthetic records."""

import csv
import io
import json
import re

import pytest

from harness.analysis.estimate import value_of
from harness.report import write_report
from tests.make_priced import AT, baseline, fine_tune, priced, study_records, two_machines

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)> | \u202e\u2028"


@pytest.fixture
def report(tmp_path):
    def write(cells):
        write_report(cells, tmp_path, generated_at=AT)
        return {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}

    return write


def rows_of(files):
    return list(csv.DictReader(io.StringIO(files["cells.csv"])))


def without_plotly(html):
    """Return the page without plotly.js, which is several megabytes of third-party text."""
    return "".join(part for part in re.split(r"(<script[^>]*>.*?</script>)", html, flags=re.S) if len(part) < 1_000_000)


def test_the_csv_has_every_cell_with_unrounded_figures(report):
    cells = priced(study_records())
    rows = rows_of(report(cells))
    assert len(rows) == len(cells) == 16
    for cell, row in zip(cells, rows, strict=True):
        summary = cell.summary
        assert row["cell"] == summary.cell
        assert row["outcome"] == summary.outcome
        for key, value in {
            "samples_per_s": summary.samples_per_s and summary.samples_per_s.value,
            "samples_per_s_low": summary.samples_per_s and summary.samples_per_s.low,
            "samples_per_s_high": summary.samples_per_s and summary.samples_per_s.high,
            "peak_memory_bytes": summary.peak_memory_bytes,
            "accuracy": summary.accuracy and summary.accuracy.value,
            "macro_f1": summary.macro_f1,
            "majority_accuracy": summary.majority_accuracy,
            "train_s": summary.train_s,
            "time_to_target_s": value_of(summary.time_to_target_s),
            "time_to_target_s_high": summary.time_to_target_s and summary.time_to_target_s.high,
            "usd_per_hour": 0.192,
            "usd_per_1000_samples": cell.usd_per_1000_samples and cell.usd_per_1000_samples.value,
            "usd_per_run": value_of(cell.usd_per_run),
            "usd_to_target": value_of(cell.usd_to_target),
        }.items():
            assert (float(row[key]) if row[key] else None) == (None if value is None else pytest.approx(value)), key
        assert row["price_basis"] == "assumed"


def test_failed_cells_have_a_reason_and_empty_figures(report):
    failed = {row["outcome"]: row for row in rows_of(report(priced(study_records()))) if row["outcome"] != "ok"}
    assert set(failed) == {"oom", "unsupported"}
    assert failed["oom"]["reason"] == "killed by the memory limit of 8.0 GiB at step 3"
    assert failed["oom"]["samples_per_s"] == failed["oom"]["usd_per_run"] == ""


def test_the_answer_is_the_cheapest_way_that_loses_at_most_a_point(report):
    files = report(priced(study_records()))
    (lead,) = [line for line in files["summary.md"].splitlines() if line.startswith("Measure more before you decide.")]
    assert "example" in lead
    assert "m5.xlarge" in lead
    # Batch 16 at 32 tokens is cheaper, but loses 3.5 points on the same examples; so does every other cheaper cell.
    assert "So far the choice is batch 16, 64 tokens, fp32, cpu:" in lead


def test_two_machines_are_named_with_their_own_prices(report):
    records, prices = two_machines()
    files = report(priced(records, prices=prices))
    assert "g5.xlarge trains fastest" in files["summary.md"]
    assert {(row["usd_per_hour"], row["price_basis"]) for row in rows_of(files)} == {
        ("0.192", "assumed"),
        ("1.006", "stated"),
    }


def test_the_same_records_give_identical_files(report):
    assert report(priced(study_records())) == report(priced(study_records()))


def test_untrusted_text_is_escaped_in_every_file(report):
    records = [
        fine_tune(text=HOSTILE, tokens=("[CLS]", HOSTILE, "[SEP]"), cell=HOSTILE),
        fine_tune(32, outcome="crashed", reason="=cmd|' /C calc'!A0"),
        fine_tune(8, outcome="crashed", reason=HOSTILE),
        baseline(),
    ]
    files = report(priced(records))
    page = without_plotly(files["report.html"])
    assert "<img src=x" not in page
    assert "alert(1)</script>" not in page
    assert any(row["reason"].startswith("'=cmd") for row in rows_of(files))
    (row,) = [line for line in files["summary.md"].splitlines() if line.startswith("| ") and "onerror" in line][:1]
    assert re.search(r"(?<!\\)<img", row) is None


def test_without_a_price_costs_are_empty_and_usd_per_hour_is_suggested(report):
    files = report(priced(study_records(), price=None))
    assert all(row["usd_per_run"] == "" and row["price_basis"] == "" for row in rows_of(files))
    assert "--usd-per-hour" in files["summary.md"]


@pytest.mark.parametrize(
    ("records", "phrase"),
    [
        ([], "no records were found"),
        ([fine_tune(outcome="oom", reason="out of memory")], "no fine-tuning cell ended well"),
        ([fine_tune()], "Measure next: TF-IDF with logistic regression and the frozen encoder's features"),
        ([fine_tune(accuracy=None), fine_tune(32, accuracy=None)], "Accuracy was not measured"),
        ([fine_tune(accuracy=0.56), fine_tune(32, accuracy=0.55)], "Do not use any of these yet"),
        ([fine_tune(accuracy=0.70), fine_tune(32, accuracy=0.6), baseline()], "So far the choice is TF-IDF"),
    ],
)
def test_the_answer_matches_the_measured_cells(report, records, phrase):
    assert phrase in report(priced(records))["summary.md"]


def test_the_page_contains_its_charts_and_references_no_url(report):
    page = report(priced(study_records()))["report.html"]
    assert len(page) < 3_000_000
    assert page.count('id="plotly"') == 1
    assert not re.search(r'(src|href)="(https?:)?//', without_plotly(page))
    figures = json.loads(re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.S)[1])
    assert len(figures) >= 4


def test_a_report_of_500_cells_stays_small(report):
    records = [
        fine_tune(batch, length, study="big", cell=f"cell-{batch}-{length}")
        for batch in range(1, 26)
        for length in range(16, 36)
    ]
    files = report(priced(records))
    assert len(rows_of(files)) == 500
    assert files["report.html"].count("cell-") >= 500
    assert (
        len(files["report.html"].encode()) < 2_200_000 + 500 * 5_600
    )  # plotly.js and the page's scripts, plus 5.6 kB per cell for its row, points, data and CSV
