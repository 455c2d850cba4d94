"""cells.csv and summary.md: computed figures, empty where not measured, and nothing executable."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

import pytest

from harness.analysis.estimate import value_of
from harness.decision.choice import choose
from harness.report.csv_export import csv_text
from harness.report.formatting import USD
from harness.report.markdown import markdown, md
from harness.report.report import build_report
from harness.report.sections.answer import answer
from harness.report.sections.cell_table import HEADS, cell_rows, cell_table
from harness.schema.assumptions import Assumptions
from harness.schema.host_record import Load
from harness.schema.probe_record import Predicted
from tests.make_priced import ASSUMED, AT, baseline, fine_tune, priced, study_records
from tests.make_records import MIB, make_record

REQUIRED_COLUMNS = [
    "cell",
    "outcome",
    "reason",
    "batch_size",
    "seq_len",
    "precision",
    "device",
    "padding",
    "trainable",
    "samples_per_s",
    "samples_per_s_low",
    "samples_per_s_high",
    "peak_memory_bytes",
    "accuracy",
    "macro_f1",
    "majority_accuracy",
    "train_s",
    "time_to_target_s",
    "usd_per_hour",
    "usd_per_1000_samples",
    "usd_per_run",
    "usd_to_target",
    "price_basis",
]


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_every_cell_is_a_csv_row_with_its_figures():
    cells = priced(study_records())
    rows = read(csv_text(cells))
    heads = next(csv.reader(io.StringIO(csv_text(cells))))
    assert set(REQUIRED_COLUMNS) <= set(heads)
    assert len(heads) == len(set(heads))
    assert [row["cell"] for row in rows] == [cell.summary.cell for cell in cells]
    for cell, row in zip(cells, rows, strict=True):
        summary = cell.summary
        assert row["outcome"] == summary.outcome
        assert row["price_basis"] == "assumed"
        for column, value in (
            ("usd_per_run", value_of(cell.usd_per_run)),
            ("usd_to_target", value_of(cell.usd_to_target)),
            ("accuracy", summary.accuracy.value if summary.accuracy else None),
            ("samples_per_s_high", summary.samples_per_s.high if summary.samples_per_s else None),
            ("peak_memory_bytes", summary.peak_memory_bytes),
            ("num_updates", summary.num_updates),
        ):
            assert (float(row[column]) if row[column] else None) == value, column


def test_unmeasured_figures_are_empty_and_not_zero():
    row = read(csv_text(priced([fine_tune(outcome="oom", reason="too large")], None)))[0]
    assert row["reason"] == "too large"
    figures = ("samples_per_s", "accuracy", "peak_memory_bytes", "train_s", "usd_per_hour", "usd_per_run", "macro_f1")
    assert {row[column] for column in figures} == {""}
    assert row["missing_price"].endswith("--usd-per-hour")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1"])
def test_no_text_field_starts_a_spreadsheet_formula(text):
    row = read(csv_text(priced([fine_tune(outcome="crashed", reason=text, cell=text)])))[0]
    assert row["reason"].startswith("'")
    assert row["cell"].startswith("'")


def test_line_breaks_and_quotes_stay_in_their_field():
    rows = read(csv_text(priced([fine_tune(outcome="crashed", reason='a "b",\nc;\r\nd')])))
    assert [row["reason"] for row in rows] == ['a "b", c; d']


def test_the_summary_contains_answer_price_cells_baselines_and_failures():
    cells = priced(study_records())
    text = markdown(build_report(cells, Assumptions(), generated_at=AT))
    assert answer(cells, choose(cells), USD)[0].split(" (")[0] in text
    assert "$0.192 an hour, **example**; m5.xlarge, aws, us-east-1" in text
    table = [line for line in text.splitlines() if line.startswith("| b")]
    assert len(table) == 12
    assert all(line.endswith("| example |") for line in table)
    dollars = [float(line.split("|")[9].strip(" $")) for line in table]
    assert dollars == sorted(dollars)
    assert "TF-IDF with logistic regression | 69.7%" in text
    assert "**oom**, killed by the memory limit" in text
    assert "**unsupported**" in text


def test_the_baseline_features_is_named_with_its_length_and_device():
    cells = priced([fine_tune(), baseline("tfidf", 0.697), baseline("features", 0.782)])
    features = read(csv_text(cells))[-1]
    shown = [features[name] for name in ("kind", "model", "seq_len", "device", "batch_size", "accuracy", "train_s")]
    assert shown == ["baseline", "features", "64", "cpu", "", "0.782", "9.0"]
    text = markdown(build_report(cells, Assumptions(), generated_at=AT))
    assert "| frozen encoder + logistic regression | 78.2% |" in text.replace("\\", "")


def test_hostile_text_adds_no_column_link_or_mention_to_the_summary():
    hostile = "a|b `c` <img src=x> @someone #12 https://example.org [x](y)\n| d |"
    cells = priced([fine_tune(cell=hostile), fine_tune(32, outcome="crashed", reason=hostile), baseline()])
    text = markdown(replace(build_report(cells, Assumptions(), generated_at=AT), answer=[hostile]))
    head, _, row = next(
        text.splitlines()[i : i + 3] for i, line in enumerate(text.splitlines()) if line.startswith("| Cell |")
    )
    assert row.replace("\\|", "").count("|") == head.count("|")
    assert "<img" not in text
    assert "@someone" not in text
    assert "https://" not in text


def test_markdown_syntax_is_escaped():
    assert md("a|b*c_[d]<e>@f #1") == "a\\|b\\*c\\_\\[d\\]&lt;e&gt;&commat;f &num;1"


def test_hardware_mismatch_and_warnings_are_in_the_summary():
    price = replace(ASSUMED, basis="stated", note="stated 1 GPU, saw none")
    cells = priced([fine_tune()], price)
    with_warnings = [replace(c, summary=replace(c.summary, warnings=("too few steps",))) for c in cells]
    text = markdown(build_report(with_warnings, Assumptions(), generated_at=AT))
    assert "stated 1 GPU, saw none" in text
    assert "too few steps (16×64)" in text


def test_an_empty_study_has_a_summary():
    assert "no records were found" in markdown(build_report([], Assumptions(), generated_at=AT))
    assert read(csv_text([])) == []


def test_a_cell_with_cpu_steal_is_marked_unsteady():
    load = {"available_memory_bytes": 1, "system_busy_s": None, "cell_s": None, "parent_s": 0.0, "steal_s": 1e4}
    disturbed = fine_tune()
    disturbed = disturbed.model_copy(update={"load": Load(**load)})
    calm, failed = fine_tune(32), fine_tune(64, outcome="oom", reason="too large")
    unsteady = {row["cell"]: row["unsteady"] for row in read(csv_text(priced([disturbed, calm, failed])))}
    assert unsteady == {disturbed.cell: "true", calm.cell: "false", failed.cell: ""}
    (shown,) = cell_rows(priced([disturbed]), None, USD)
    assert shown.fields[1].extra == "unsteady"


def test_runs_that_missed_the_target_stand_beside_seconds_and_dollars():
    sections = {"training": {"target_accuracy": 0.75}}
    reached, missed = {"evaluations": [(20.0, 0.76, 1.0)]}, {"evaluations": [(20.0, 0.7, 1.0)]}
    runs = [
        make_record(seed=seed, minutes=10 * seed, sections=sections, training=reached if seed else missed)
        for seed in range(3)
    ]
    cells = [*priced(runs), *priced([run.model_copy(update={"cell": "none"}) for run in runs[:1]])]
    some, none = (dict(zip(HEADS, row.fields, strict=True)) for row in cell_rows(cells, None, USD))
    assert some["to target"].extra.endswith(", 1 of 3 runs missed it") and some["to target"].doubtful
    assert some["to target"].text == "47.5 s" and re.match(r"[\d.]+ s to [\d.]+ min, ", some["to target"].extra)
    assert some["cost to target"].extra.endswith(", 1 of 3 runs missed it")
    assert none["to target"].title == "75.0% was not reached: 1 of 1 run missed it"
    rows = read(csv_text(cells))
    assert [(row["num_reached_target"], row["num_missed_target"]) for row in rows] == [("2", "1"), ("0", "1")]
    assert float(rows[0]["time_to_target_s_low"]) < float(rows[0]["time_to_target_s"]) == (45 + 25 + 25) / 2


def test_what_was_predicted_stands_beside_what_was_measured():
    predicted = Predicted(
        seconds=40, seconds_low=35, seconds_high=46, samples_per_s=20, samples_per_s_low=18, samples_per_s_high=22,
        peak_bytes=900 * MIB, peak_bytes_low=800 * MIB, peak_bytes_high=1000 * MIB, basis="probe",
    )  # fmt: skip
    record = make_record().model_copy(update={"predicted": predicted, "duration_s": 42.0})
    table = cell_table(priced([record]), None, USD)
    fields = dict(zip(table.heads, table.rows[0].fields, strict=True))
    assert (fields["whole run"].text, fields["whole run"].extra) == ("42.0 s", "predicted 40.0 s (35.0 s to 46.0 s)")
    assert (fields["predicted peak"].text, fields["predicted peak"].extra) == ("900 MiB", "800 MiB to 1,000 MiB")


def test_columns_of_predictions_are_left_out_where_nothing_was_predicted():
    assert {"whole run", "predicted peak"}.isdisjoint(cell_table(priced([make_record()]), None, USD).heads)
