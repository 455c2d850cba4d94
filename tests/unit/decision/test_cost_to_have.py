"""Costs of having a model: only what the user states counts, by hand."""

from __future__ import annotations

import pytest

from harness.decision.cost_to_have import Use, stated_use, usd_to_have
from harness.pricing.cost import Priced
from harness.schema.assumptions import load_assumptions
from tests.make_priced import baseline, fine_tune, priced


def stated(tmp_path, prices="", value=""):
    (tmp_path / "prices.toml").write_text(prices)
    (tmp_path / "value.toml").write_text(value)
    return stated_use(load_assumptions(tmp_path / "prices.toml", tmp_path / "value.toml"))


def test_examples_do_not_count(tmp_path):
    assert stated(tmp_path) == Use(1.0, 0.0, None, 0.0, None)


@pytest.mark.parametrize(
    ("prices", "value", "use"),
    [
        ("[retraining]\nper_month = 2", "", Use(24.0, 0.0, None, 0.0, 12)),
        ("[retraining]\ntrials_per_kept = 5", "", Use(5.0, 0.0, None, 0.0, None)),
        ("[retraining]\nper_month = 0", "", Use(1.0, 0.0, None, 0.0, 12)),  # it is trained once all the same
        ("", "items_per_month = 1000\nhorizon_months = 6", Use(1.0, 6000.0, None, 0.0, 6)),
        ("", "label_usd = 0.2", Use(1.0, 0.0, None, 0.2, None)),
        ("", "label_usd = 0.2\nnum_labels = 500", Use(1.0, 0.0, 500, 0.2, None)),
    ],
)
def test_what_the_files_state_counts(tmp_path, prices, value, use):
    assert stated(tmp_path, prices, value) == use


def test_labels_are_those_of_the_training_rows_unless_their_number_is_stated():
    (cell,) = priced([fine_tune()])
    bill = cell.usd_billed.value
    assert usd_to_have(cell, Use()).value == bill
    assert usd_to_have(cell, Use(label_usd=0.2)).value == pytest.approx(bill + 2000 * 0.2)
    assert usd_to_have(cell, Use(num_labels=500, label_usd=0.2)).value == pytest.approx(bill + 100)
    serving = cell.usd_per_million_predictions.value
    assert usd_to_have(cell, Use(3, 5_000_000)).value == pytest.approx(3 * bill + 5 * serving)
    assert usd_to_have(cell, Use(3)).low == pytest.approx(3 * cell.usd_billed.low)


def test_the_majority_class_costs_nothing_and_without_a_price_nothing_is_known():
    (majority,) = priced([baseline("majority")])
    assert usd_to_have(majority, Use(label_usd=1.0)).value == 0.0
    (unpriced,) = priced([fine_tune()], None)
    assert isinstance(unpriced, Priced) and usd_to_have(unpriced, Use()) is None
