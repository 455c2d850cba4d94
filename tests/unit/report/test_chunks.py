"""Chunked training in the report: the accuracy of both orders after each chunk, with time and cost."""

from __future__ import annotations

import pytest

from harness.analysis.summarize import summarize
from harness.pricing.cost import price
from harness.report.formatting import USD
from harness.report.markdown import markdown
from harness.report.report import build_report
from harness.report.sections.chunks import HEADS, chunked_trainings, chunks_section
from harness.schema.assumptions import Assumptions
from harness.schema.training_record import Evaluation
from tests.make_priced import ASSUMED, AT
from tests.make_records import make_record

HOURLY = ASSUMED.usd_per_hour


def run(order, accuracies, *, seed=0, chunks=3, lr=1e-4):
    """Make a run with a test-set accuracy after each chunk of 10 s and one validation mid-chunk; each validation takes 2 s."""
    record = make_record(
        seed=seed, sections={"training": {"chunks": chunks, "chunk_order": order, "lr": lr}}, minutes=seed
    )
    points = [(5.0, 0.5, None), *((10.0 * number, accuracy, number) for number, accuracy in enumerate(accuracies, 1))]
    evaluations = tuple(
        Evaluation(
            train_s=at,
            num_samples_seen=16,
            num_updates=int(at),
            accuracy=0.99,
            macro_f1=0.99,
            evaluate_s=2.0,
            chunk=chunk,
            test_accuracy=accuracy if chunk else None,
        )
        for at, accuracy, chunk in points
    )
    return record.model_copy(update={"training": record.training.model_copy(update={"evaluations": evaluations})})


def cells_of(*records):
    return price(summarize(records), lambda _: ASSUMED)


def test_both_orders_are_compared_with_time_and_cost():
    cells = cells_of(run("shuffled", [0.6, 0.7, 0.8]), run("arrival", [0.7, 0.65, 0.75]))
    (chunked,) = chunked_trainings(cells)
    assert [result.accuracy for result in chunked.results["shuffled"].values()] == [0.6, 0.7, 0.8]
    last = chunked.results["arrival"][3]
    assert last.train_s == 30.0
    # 4 s of set-up, 30 s of training, and four validations of 2 s.
    assert last.usd == pytest.approx(HOURLY * 42 / 3600)
    section = chunks_section(cells, USD)
    (sentence,) = section.sentences
    assert "as it arrives, test accuracy ends at 75.0% after 30.0 s of training" in sentence
    assert (
        "on the same rows shuffled, at 80.0% after 30.0 s. From one chunk to the next it fell by up to 5.0 points"
        in sentence
    )
    assert (
        "(1 run each; the spread between runs is not known). With 1,000 test examples less than 4.0 points may"
        in sentence
    )
    assert [trace.name for trace in section.chart.figure.data] == ["shuffled", "as it arrives"]
    assert [list(trace.y) for trace in section.chart.figure.data] == [[0.6, 0.7, 0.8], [0.7, 0.65, 0.75]]
    ((_, table),) = section.tables
    rows = table.rows
    assert [len(row) for row in rows] == [len(HEADS)] * 3
    assert [field.text for field in rows[1]][:3] == ["2", "70.0%", "20.0 s"]
    assert [field.text for field in rows[1]][4:6] == ["65.0%", "20.0 s"]


def test_seeds_are_averaged_and_learning_rates_are_kept_separate():
    runs = [run("arrival", [0.6, 0.7, 0.8], seed=seed) for seed in range(3)]
    runs += [run("shuffled", [0.6 + seed / 10, 0.7, 0.8], seed=seed) for seed in range(3)]
    runs += [run("shuffled", [0.1, 0.2, 0.3], lr=2e-4)]
    lower_lr, higher_lr = chunked_trainings(cells_of(*runs))
    assert lower_lr.results["shuffled"][1].accuracy == pytest.approx(0.7)
    assert set(higher_lr.results) == {"shuffled"}
    (sentence,) = chunks_section(cells_of(*runs), USD).sentences
    assert "It never fell from one chunk to the next (3 runs each). With " in sentence


def test_runs_without_chunks_have_no_section():
    assert chunks_section(cells_of(make_record()), USD) is None
    assert "chunk" not in markdown(build_report(cells_of(make_record()), Assumptions(), generated_at=AT))


def test_the_summary_contains_the_heading_and_the_table():
    cells = cells_of(run("shuffled", [0.6, 0.7, 0.8]), run("arrival", [0.7, 0.65, 0.75]))
    text = markdown(build_report(cells, Assumptions(), generated_at=AT))
    assert "## Data in chunks" in text
    assert "| 2 | 70.0% | 20.0 s |" in text
