"""The report's section on how much data is worth paying for, from synthetic records."""

from __future__ import annotations

import re

import pytest

from harness.analysis.curve_planning import MoreNeeded
from harness.decision.curve_verdict import CurveVerdict, Trend
from harness.decision.learning_curve import forecast_gains, learning_curves, measured_gain
from harness.report import write_report
from harness.report.formatting import USD
from harness.report.sections import learning
from harness.report.sections.learning import HEADS, curve_sentences, learning_section
from harness.schema.assumptions import Assumptions
from tests.make_learning import ALL_ROWS, SIZES, curve_records
from tests.make_priced import ASSUMED, AT, priced, study_records


@pytest.fixture(scope="module")
def cells():
    return priced(curve_records())


@pytest.fixture(scope="module")
def section(cells):
    return learning_section(cells, Assumptions(), USD)


def test_sentences_state_measured_and_forecast_gains_with_their_costs(cells, section):
    name, sentences = section.sentences[0]
    assert name == "16×64"
    gain = measured_gain(learning_curves(cells)[0])
    paid, labels = gain.seconds * ASSUMED.usd_per_hour / 3600, 6000 * 0.1
    assert sentences[0] == (
        f"From 2,000 to 8,000 examples buys {gain.accuracy.value:+.3f} ({gain.accuracy.low:.3f} to {gain.accuracy.high:.3f}) "
        f"of test accuracy for {USD.amount(paid)} of compute, as measured (from 1,000 +0.065 (0.049 to 0.081), from 500 +0.099 (0.080 to 0.118)); "
        f"at $0.100 a label (an example) the 6,000 more labels cost {USD.amount(labels)}."
    )
    (doubling,) = forecast_gains(learning_curves(cells)[0])
    assert sentences[1] == (
        f"Twice the examples, 16,000, would buy {doubling.accuracy.value:+.3f} ({doubling.accuracy.low:.3f} to "
        f"{doubling.accuracy.high:.3f}) for $0.0533 of compute, by the curves through 250 to 8,000 examples; at $0.100 a label "
        "(an example) the 8,000 more labels cost $800.00."
    )
    lead = r"[+-]0\.\d{3} \(-?0\.\d{3} to 0\.\d{3}\)"
    assert re.fullmatch(
        rf"Against the best baseline as measured, majority class, it is at {lead} and would be at {lead}\.",
        sentences[2],
    )
    assert sentences[3] == "The curve still rises."
    assert sentences[4] == (
        "Training on all 8,000 rows of the source is estimated from 2,000 at 16.7 min and $0.0533; it "
        "took 16.7 min, so that the estimate is off by +0.0%."
    )


def test_a_label_price_set_by_the_user_is_used_and_marked_as_theirs(cells):
    assumed = Assumptions.model_validate({"value": {"label_usd": 0.5}, "set_by_user": ["value.label_usd"]})
    assert (
        "at $0.500 a label (yours) the 6,000 more labels cost $3,000.00"
        in learning_section(cells, assumed, USD).sentences[0][1][0]
    )


def test_no_sentence_names_a_reachable_accuracy(section):
    """It could lie below the measured one: 0.840 and 0.848 in the records of the data study."""
    assert "reachable" not in str(section.sentences)


def test_a_flat_curve_is_called_flat():
    records = curve_records(laws={"head": (0.3, 0.01, 0.3)})
    sentences = dict(learning_section(priced(records), Assumptions(), USD).sentences)["16×64 head only"]
    assert sentences[3] == ("The curve has flattened: twice the examples buy 0.01 at most.")


def test_an_unclear_curve_is_called_so_with_what_would_settle_it(cells, monkeypatch):
    curve, tfidf = (learning_curves(cells)[index] for index in (0, 2))

    def verdict(judged, more):
        monkeypatch.setattr(learning, "judge_curve", lambda _: CurveVerdict(Trend.UNCLEAR, more))
        return [line for line in curve_sentences(judged, Assumptions(), USD) if line.startswith("These runs")]

    lead = "These runs can't show whether the curve has flattened"
    assert verdict(curve, MoreNeeded(seeds=4, examples=2)) == [
        f"{lead}; 4 times the seeds or 2 times the test examples probably would."
    ]
    assert verdict(curve, MoreNeeded(both=8)) == [
        f"{lead}; 8 times the seeds and the test examples together probably would."
    ]
    assert verdict(curve, MoreNeeded()) == [
        f"{lead}, nor would 16 times the seeds and test examples: measure a larger size."
    ]
    # Another seed changes nothing about TF-IDF.
    assert verdict(tfidf, MoreNeeded(seeds=4)) == [
        f"{lead}, nor would 16 times the test examples: measure a larger size."
    ]


def test_a_poor_fit_gives_no_forecast_but_the_reason():
    records = [record for record in curve_records() if record.data.train.num_rows <= 1000]
    assert learning_section(priced(records), Assumptions(), USD).sentences[0][1][1] == (
        "No forecast beyond what was measured: 3 numbers of examples were measured, and a fit needs 4."
    )


def test_all_rows_are_forecast_up_to_twice_the_measured_examples():
    def sentences(available):
        records = [record for record in curve_records(available=available) if record.data.train.num_rows <= 2000]
        return learning_section(priced(records), Assumptions(), USD).sentences[0][1]

    near, far = sentences(3000), sentences(50_000)
    assert near[1].startswith("Twice the examples, 4,000, would buy ")
    assert near[4].startswith("All 3,000 rows of the source would buy +0.0")
    assert (
        far[4] == "No forecast for all rows: 50,000 examples are more than 2 times the most that were measured, 2,000."
    )
    assert far[-1].startswith("Training on all 50,000 rows of the source is estimated from 2,000 at 1.74 h")
    assert far[-1].endswith(" and $0.333.")


def test_the_table_lists_every_size_with_estimated_and_measured_time_on_all_rows(section):
    assert len(section.sizes.rows) == 3 * len(SIZES) and {len(row) for row in section.sizes.rows} == {len(HEADS)}
    rows = [dict(zip(HEADS, row, strict=True)) for row in section.sizes.rows]
    assert [row["training examples"].sort for row in rows[:5]] == list(SIZES)
    assert rows[4]["training examples"].extra == "all rows"
    assert rows[1]["training on all rows, estimated"].sort == pytest.approx(1000)
    assert rows[1]["cost of that"].sort == pytest.approx(1000 * ASSUMED.usd_per_hour / 3600)
    assert rows[1]["estimate against measured"].sort == pytest.approx(0)
    assert rows[1]["estimate against measured"].extra == "took 16.7 min"
    assert rows[4]["estimate against measured"].sort is None
    assert rows[1]["test accuracy"].extra.endswith("test examples and 3 seeds")
    assert rows[-1]["model"].text == "TF-IDF with logistic regression"
    assert rows[-1]["training on all rows, estimated"].title == "a baseline has no samples a second"


def test_four_charts_plot_accuracy_over_examples_seconds_cost_and_cost_with_labels(cells, section):
    charts = {chart.key: chart.figure for chart in section.charts}
    assert list(charts) == [f"chart-learning-{name}" for name in ("samples", "seconds", "usd", "labels")]
    curve = learning_curves(cells)[0]
    measured, predicted, fitted, *_ = charts["chart-learning-samples"].data
    assert list(measured.x) == list(SIZES)
    assert list(measured.y) == [point.accuracy.value for point in curve.points]
    assert list(measured.error_y.array) == pytest.approx(
        [point.accuracy.high - point.accuracy.value for point in curve.points]
    )
    assert list(predicted.x) == [2 * ALL_ROWS]
    assert predicted.name == "16×64, forecast" and predicted.marker.symbol == "circle-open"
    (gain,) = forecast_gains(curve)
    assert predicted.y[0] == pytest.approx(curve.largest.accuracy.value + gain.accuracy.value)
    assert predicted.error_y.array[0] == pytest.approx(gain.accuracy.high - gain.accuracy.value)
    assert (fitted.x[0], *fitted.x[-2:]) == pytest.approx((SIZES[0], ALL_ROWS, 2 * ALL_ROWS))
    assert fitted.y[0] == pytest.approx(measured.y[0], abs=0.02) and fitted.y[-1] == predicted.y[0]
    assert charts["chart-learning-seconds"].data[0].x == pytest.approx([point.train_s for point in curve.points])
    paid, labelled = charts["chart-learning-usd"].data[0], charts["chart-learning-labels"].data[0]
    assert paid.x == pytest.approx([point.run_s * ASSUMED.usd_per_hour / 3600 for point in curve.points])
    assert [with_labels - compute for with_labels, compute in zip(labelled.x, paid.x, strict=True)] == pytest.approx(
        [0.1 * size for size in SIZES]
    )
    assert labelled.meta["labels"] == list(SIZES)
    assert any(trace.name == "majority class 50.0%" for trace in charts["chart-learning-usd"].data)


def test_without_a_price_only_examples_and_seconds_are_charted():
    section = learning_section(priced(curve_records(), None), Assumptions(), USD)
    assert [chart.key for chart in section.charts] == ["chart-learning-samples", "chart-learning-seconds"]
    assert " for 12.5 min more of a run, as measured" in section.sentences[0][1][0]


def test_page_and_summary_have_the_section_only_with_a_learning_curve(tmp_path, cells, section):
    page = write_report(cells, tmp_path, generated_at=AT).read_text(encoding="utf-8")
    assert 'id="chart-learning-labels"' in page and "How much data is worth paying for" in page
    assert section.sentences[0][1][0] in page
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "## How much data is worth paying for" in summary and "From 2,000 to 8,000 examples buys" in summary
    page = write_report(priced(study_records()), tmp_path, generated_at=AT).read_text(encoding="utf-8")
    assert "How much data is worth paying for" not in page
