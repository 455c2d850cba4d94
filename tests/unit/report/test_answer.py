"""The answer: which cell is chosen, what it is compared with, and that overlapping intervals are not ranked."""

from __future__ import annotations

from dataclasses import replace

from harness.analysis.estimate import Estimate
from harness.decision.choice import choose, overlap, pareto_front
from harness.pricing.cost import Priced
from harness.report.formatting import USD, clean, interval, memory, percent, seconds
from harness.report.sections.answer import answer
from harness.report.sections.tiles import tiles
from tests.make_priced import (
    ASSUMED,
    GPU_MACHINE,
    MACHINE,
    STATED,
    baseline,
    fine_tune,
    priced,
    study_records,
    two_machines,
)


def answer_text(cells: list[Priced]) -> str:
    return " ".join(answer(cells, choose(cells), USD))


def test_the_cheapest_cell_whose_accuracy_interval_overlaps_the_best_is_chosen():
    cells = priced(study_records())
    choice = choose(cells)
    assert choice.best is not None
    assert choice.pick is not None
    low = choice.best.summary.accuracy.low
    rivals = [cell for cell in choice.compared if cell.summary.accuracy.high >= low]
    assert {cell.key for cell in choice.rivals} == {cell.key for cell in rivals}
    assert choice.pick.usd_per_run.value == min(cell.usd_per_run.value for cell in rivals)
    # The frozen encoder is cheaper, but its accuracy is clearly lower.
    assert min(cell.usd_per_run.value for cell in choice.compared) < choice.pick.usd_per_run.value


def test_the_answer_states_cost_accuracy_and_price_basis():
    cells = priced(study_records())
    pick = choose(cells).pick
    first, second, *_ = answer(cells, choose(cells), USD)
    assert USD.amount(pick.usd_per_run.value) in first
    assert "at an assumed $0.192 an hour, m5.xlarge" in first
    assert percent(pick.summary.accuracy.value) in first
    assert interval(pick.summary.accuracy, "percent") in first
    assert "intervals overlap" in second
    assert "57.7%" in answer_text(cells)
    assert "TF-IDF with logistic regression 69.7%" in answer_text(cells)


def test_a_stated_price_is_labelled_stated_and_a_hardware_mismatch_is_reported():
    assert "at a stated $0.192 an hour" in answer_text(priced([fine_tune()], STATED))
    mismatched = replace(STATED, note="g5.xlarge has an A10G, none was seen")
    assert "the stated and the seen hardware disagree" in answer_text(priced([fine_tune()], mismatched))


def test_without_a_price_cells_are_ranked_by_seconds_and_usd_per_hour_is_suggested():
    cells = priced([fine_tune(rate=20.0), fine_tune(32, rate=40.0)], None)
    assert choose(cells).pick.summary.config.batch_size == 32
    assert "dollars are not known (no price row has this machine; give --usd-per-hour)" in answer_text(cells)
    assert tiles(choose(cells), USD)[0].value == "not known"


def test_a_faster_cell_without_a_price_is_not_chosen_over_a_priced_one():
    records = [fine_tune(rate=20.0), fine_tune(rate=900.0, device="gpu", machine=GPU_MACHINE)]
    cells = priced(records, None, {MACHINE["id"]: ASSUMED})
    assert choose(cells).pick.summary.machine_id == MACHINE["id"]


def test_a_single_cell_is_called_the_only_configuration_measured():
    assert "only configuration measured" in answer_text(priced([fine_tune()]))


def test_a_cell_whose_cost_interval_overlaps_the_chosen_ones_is_listed_as_level():
    cells = priced([fine_tune(16, rate=22.0, accuracy=0.78), fine_tune(32, rate=22.0, accuracy=0.79)])
    with_wide_intervals = [replace(c, usd_per_run=Estimate(1.0, 0.5, 1.5, "between 3 runs")) for c in cells]
    assert len(choose(with_wide_intervals).level) == 1
    assert not choose(priced([fine_tune(16, rate=10.0), fine_tune(32, rate=40.0)])).level


def test_an_accuracy_not_above_the_majority_class_or_tfidf_is_reported():
    assert "Do not use it yet" in answer_text(priced([fine_tune(accuracy=0.585), fine_tune(32, accuracy=0.57)]))
    assert "within the noise" in answer_text(priced([fine_tune(accuracy=0.71), baseline("tfidf", 0.697)]))


def test_without_accuracy_the_cheapest_cell_per_sample_is_chosen():
    cells = priced([fine_tune(accuracy=None, rate=20.0), fine_tune(32, accuracy=None, rate=40.0)])
    assert choose(cells).best is None
    assert choose(cells).pick.summary.config.batch_size == 32
    assert "Accuracy was not measured" in answer_text(cells)
    assert tiles(choose(cells), USD)[1].value == "not measured"


def test_studies_with_no_records_or_only_failed_cells_say_so():
    assert "no records were found" in answer_text([])
    assert "1 cell failed" in answer_text(priced([fine_tune(outcome="oom", reason="too large")]))
    assert tiles(choose([]), USD) == []


def test_machines_and_devices_are_compared():
    records, prices = two_machines()
    text = answer_text(priced(records, prices=prices))
    assert "Machines at their best" in text
    assert "g5.xlarge trains fastest" in text
    assert "(stated price)" in text
    assert "(assumed price)" in text
    gpu = fine_tune(rate=900.0, device="gpu")
    assert "Devices at their best" in answer_text(priced([*study_records(), gpu]))


def test_devices_in_a_scaling_series_are_not_compared_a_second_time():
    text = answer_text(priced(study_records()))
    assert "Devices at their best" not in text
    assert "Over devices, " in text


def test_a_cell_with_a_different_test_set_is_excluded():
    other = fine_tune(32, accuracy=0.99)
    data = other.data
    with_other_test_set = other.model_copy(update={"data": data.model_copy(update={"test": data.train})})
    choice = choose(priced([fine_tune(8), fine_tune(16), with_other_test_set]))
    assert choice.num_elsewhere == 1
    assert choice.best.summary.accuracy.value < 0.99


def test_interval_overlap_and_pareto_front():
    assert overlap(Estimate(0.7, 0.6, 0.8, ""), Estimate(0.85, 0.8, 0.9, ""))
    assert not overlap(Estimate(0.7, 0.6, 0.8, ""), Estimate(0.85, 0.81, 0.9, ""))
    assert not overlap(Estimate(0.7, None, None, ""), Estimate(0.85, None, None, ""))
    assert not overlap(None, Estimate(0.85, None, None, ""))
    assert pareto_front([(3, 0.8), (1, 0.6), (2, 0.5), (2, 0.7), (4, 0.8)]) == [1, 3, 0]


def test_amounts_seconds_bytes_and_intervals_are_formatted():
    assert [USD.amount(v) for v in (None, 0.0, 1e-9, 0.000123, 0.00267, 0.0664, 1.006, 1234.5, 12345.6)] == [
        "not measured", "$0", "<$0.000001", "$0.00012", "$0.00267", "$0.0664", "$1.01", "$1,234.50", "$12,346",
    ]  # fmt: skip
    assert [USD.hourly(v) for v in (0.0416, 0.192, 1.0, 32.7726)] == ["$0.0416", "$0.192", "$1.00", "$32.7726"]
    assert [seconds(v) for v in (None, 0.00004, 0.123, 34.5, 300.0, 7200.0)] == [
        "not measured", "<0.001 s", "0.12 s", "34.5 s", "5.00 min", "2.00 h",
    ]  # fmt: skip
    assert [memory(v) for v in (None, 700 * 2**20, 3 * 2**30)] == ["not measured", "700 MiB", "3.00 GiB"]
    assert interval(Estimate(100.0, 99.99, 100.01, ""), "number") == "±0.01%"
    assert interval(Estimate(100.0, None, None, ""), "number") == ""


def test_untrusted_text_becomes_one_line_of_at_most_600_characters():
    assert clean("a\n\tb\u202ec\x00d") == "a b\ufffdc\ufffdd"
    assert len(clean("x" * 10_000)) == 600
