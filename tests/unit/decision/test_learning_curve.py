"""Learning curves: their cells, measured and forecast gains, training on all rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.analysis.curve_likelihood import fit_curves, p_value
from harness.analysis.power_law import PowerLaw
from harness.dataset.corpus import load_corpus
from harness.decision.learning_curve import (
    forecast_gains,
    forecast_lead,
    learning_curves,
    measured_gain,
    run_seconds,
    train_seconds,
    whole_error,
)
from harness.schema.cells import BaselineConfig
from harness.schema.expansion import expand
from harness.schema.settings import DataSettings
from harness.schema.study_file import load_study
from harness.workflows.priced_records import load_priced
from tests.make_learning import ALL_ROWS, LAWS, SIZES, curve_records, data_of
from tests.make_priced import ASSUMED, priced
from tests.make_records import make_machine, make_record

SETUP_AND_EVALUATION_S = 4.0 + 10.0  # as make_record has them


@pytest.fixture(scope="module")
def cells():
    return priced(curve_records())


def test_subsets_are_nested_up_to_all_rows_beside_the_same_validation_and_test_rows():
    corpora = [load_corpus(DataSettings(num_train=num, num_val=20, num_test=30)) for num in (250, 1000, "all")]
    rows = [list(zip(corpus.texts["train"], corpus.labels["train"], strict=True)) for corpus in corpora]
    assert rows[0] == rows[1][:250] and rows[1] == rows[2][:1000]
    assert len(rows[2]) == corpora[0].facts.num_train_available > 10_000
    for split in ("val", "test"):
        assert len({getattr(corpus.facts, split).sha256 for corpus in corpora}) == 1


def test_the_study_of_data_has_every_size_of_three_models():
    cells = expand(load_study(Path("bench/data.toml")))
    sizes = {}
    for cell in cells:
        config = cell.config
        name = config.classifier if isinstance(config, BaselineConfig) else config.trainable
        sizes.setdefault(name, set()).add(config.data.num_train)
    few = {250, 500, 1000, 2000}
    assert sizes == {
        "majority": {"all"}, "tfidf": {*few, 4000, "all"}, "features": {*few, 4000, "all"}, "all": {*few, 4000, "all"}, "head": {*few, "all"},
    }  # fmt: skip
    trained = [cell.config for cell in cells if cell.config.kind == "fine_tune"]
    assert {config.seed for config in trained if config.data.num_train in few} == {0, 1, 2, 3, 4}
    assert {
        (config.training.chunk_order, config.seed, config.data.num_train)
        for config in trained
        if config.training.chunks == 5
    } == {("shuffled", 0, "all"), ("arrival", 0, "all")}


def test_curves_are_the_cells_that_differ_in_training_rows_and_seeds_alone(cells):
    whole, head, tfidf = learning_curves(cells)
    assert [point.num_train for point in whole.points] == list(SIZES)
    assert [point.num_seeds for point in whole.points] == [3] * 5
    assert [point.num_seeds for point in tfidf.points] == [1] * 5
    assert (head.largest.cell.summary.config.trainable, tfidf.largest.cell.summary.kind) == ("head", "baseline")
    assert [point.accuracy for point in whole.points] == [
        cell.summary.accuracy for cell in cells if getattr(cell.summary.config, "trainable", "") == "all"
    ]
    assert 1 - whole.errors.error == pytest.approx([point.accuracy.value for point in whole.points])


def test_two_sizes_are_no_curve_and_other_test_sets_and_machines_are_curves_of_their_own():
    records = curve_records()
    assert learning_curves(priced([one for one in records if one.data.train.num_rows <= 500])) == []
    elsewhere = [one.model_copy(update={"machine": make_machine(machine_id="other-000001")}) for one in records]
    assert len(learning_curves(priced([*records, *elsewhere]))) == 6
    other_test = [
        one.model_copy(
            update={"data": one.data.model_copy(update={"test": one.data.test.model_copy(update={"sha256": "f" * 64})})}
        )
        for one in records
        if one.data.train.num_rows > 500
    ]
    mixed = [one for one in records if one.data.train.num_rows <= 500]
    assert len(learning_curves(priced([*mixed, *other_test]))) == 3  # of the three larger sizes each


def test_a_cell_without_accuracy_is_on_no_curve():
    records = [
        make_record(
            sections={"data": {"num_train": size}, "model": {"init": "random"}},
            training={"accuracy": None},
            data=data_of(size),
        )
        for size in SIZES
    ]
    assert learning_curves(priced(records)) == []


def test_the_measured_gain_is_between_the_two_largest_sizes(cells):
    whole = learning_curves(cells)[0]
    gain = measured_gain(whole)
    assert (gain.start, gain.end, gain.is_measured) == (2000, ALL_ROWS, True)
    start, end = whole.points[-2:]
    assert gain.accuracy.value == pytest.approx(end.accuracy.value - start.accuracy.value)
    assert gain.accuracy.low < gain.accuracy.value < gain.accuracy.high
    # Both runs have the same set-up and evaluations: 2 epochs at 16 samples/s are left.
    assert gain.seconds == pytest.approx((ALL_ROWS - 2000) * 2 / 16)
    assert gain.usd == pytest.approx(gain.seconds * ASSUMED.usd_per_hour / 3600)


def test_twice_as_many_rows_are_forecast_if_all_were_measured(cells):
    whole = learning_curves(cells)[0]
    assert isinstance(whole.law, PowerLaw) and whole.whole is whole.largest
    (gain,) = forecast_gains(whole)
    assert (gain.start, gain.end, gain.is_measured) == (ALL_ROWS, 2 * ALL_ROWS, False)
    assert gain.accuracy == whole.law.gain(2 * ALL_ROWS)
    _, scale, exponent = LAWS["all"]
    truth = scale * (ALL_ROWS**-exponent - (2 * ALL_ROWS) ** -exponent)
    assert gain.accuracy.low <= truth <= gain.accuracy.high
    assert gain.seconds == pytest.approx(ALL_ROWS * 2 / 16)
    assert gain.usd == pytest.approx(gain.seconds * ASSUMED.usd_per_hour / 3600)
    assert train_seconds(whole, 2 * ALL_ROWS) == pytest.approx(2 * ALL_ROWS * 2 / 16)
    assert run_seconds(whole, 2 * ALL_ROWS) == pytest.approx(2 * ALL_ROWS * 2 / 16 + SETUP_AND_EVALUATION_S)


@pytest.mark.parametrize(("available", "ends"), [(3000, [4000, 3000]), (4000, [4000]), (8001, [4000]), (2000, [4000])])
def test_all_rows_are_forecast_too_if_they_are_less_than_twice_the_largest_size(available, ends):
    parts = [one for one in curve_records(available=available) if one.data.train.num_rows <= 2000]
    whole = learning_curves(priced(parts))[0]
    assert isinstance(whole.law, PowerLaw)
    gains = forecast_gains(whole)
    assert ([gain.end for gain in gains], whole.whole is not None) == (ends, available == 2000)
    values = [gain.accuracy.value for gain in gains]
    assert values == sorted(values, reverse=True)


def test_a_model_is_compared_with_the_best_baseline_on_its_test_set(cells):
    whole, head, tfidf = learning_curves(cells)
    best = max(
        (cell for cell in cells if cell.summary.kind == "baseline"), key=lambda cell: cell.summary.accuracy.value
    )
    assert whole.baseline is head.baseline is best and tfidf.baseline is None
    lead = whole.errors.lead()
    assert lead.value == pytest.approx(whole.largest.accuracy.value - best.summary.accuracy.value)
    then = forecast_lead(whole)
    assert then.value == pytest.approx(lead.value + forecast_gains(whole)[0].accuracy.value)
    assert then.high - then.low > lead.high - lead.low
    assert forecast_lead(tfidf) is None


@pytest.fixture(scope="module")
def reviews():
    """The curves of the data study: 250 to 11,517 reviews, five seeds up to 2,000, three above."""
    return learning_curves(load_priced([Path("results/reference/amd-epyc-2c-24g-dbbbf2/data")]).cells)


def test_the_smallest_size_is_dropped_and_twice_the_examples_gain_about_a_point(reviews):
    """All six sizes fitted at p = 0.022, and gave +0.002 (-0.057 to 0.065) and "about 1,000 reviews are enough"."""
    whole = reviews[0]
    assert whole.law.smallest == 500 and whole.law.p_value > 0.5
    assert p_value(fit_curves(whole.errors, 11517), 6) < 0.1
    (gain,) = forecast_gains(whole)
    assert gain.end == 23034
    assert gain.accuracy.value == pytest.approx(0.012, abs=0.002)
    assert (gain.accuracy.low, gain.accuracy.high) == pytest.approx((0.003, 0.027), abs=0.004)


def test_no_forecast_is_below_what_was_measured(reviews):
    """The reachable accuracy was 0.840, below the measured 0.848."""
    for curve in reviews:
        assert all(gain.accuracy.low >= 0 for gain in forecast_gains(curve))


def test_the_lead_over_tfidf(reviews):
    whole, head, tfidf = reviews
    assert whole.baseline.key == head.baseline.key == tfidf.largest.cell.key
    assert whole.errors.lead().value == pytest.approx(0.848 - 0.782)
    then = forecast_lead(whole)
    assert then.value == pytest.approx(0.078, abs=0.002) and then.low > 0
    assert forecast_lead(head).low < 0 < forecast_lead(head).high  # the frozen encoder is not clearly below TF-IDF


def test_estimates_of_training_on_all_rows_are_compared_with_the_measurement(cells):
    whole, _, tfidf = learning_curves(cells)
    for point in whole.points:
        # Every step of these records takes 1 s for 16 samples.
        assert point.whole_s.value == pytest.approx(ALL_ROWS * 2 / 16)
    truth = whole.largest.train_s
    assert whole_error(whole, whole.points[1]) == pytest.approx(ALL_ROWS * 2 / 16 / truth - 1)
    assert whole_error(whole, whole.largest) is None
    assert all(point.whole_s is None and whole_error(tfidf, point) is None for point in tfidf.points)


def test_repeats_of_a_seed_are_averaged():
    records = curve_records()
    again = [one.model_copy(update={"repeat": 1}) for one in records if one.config.kind == "fine_tune"]
    one, other = (learning_curves(priced(found))[0] for found in (records, [*records, *again]))
    assert [point.num_seeds for point in other.points] == [3] * 5
    assert np.allclose(one.errors.covariance, other.errors.covariance)


def test_models_are_compared_with_the_tfidf_of_most_rows(cells):
    from harness.decision.choice import choose

    chosen = choose(cells)
    assert chosen.tfidf.summary.records[-1].data.train.num_rows == ALL_ROWS
    best = max(
        cell.summary.accuracy.value for cell in cells if getattr(cell.summary.config, "classifier", "") == "tfidf"
    )
    assert chosen.tfidf.summary.accuracy.value == best
    (largest,) = [cell for cell in cells if getattr(cell.summary.config, "trainable", "") == "all"][-1:]
    points = 100 * (largest.summary.accuracy.value - best)
    assert largest.usd_per_accuracy_point.value == pytest.approx(largest.usd_billed.value / points)
