"""The answer in sentences: the verdict, what it rests on, what to measure next."""

from __future__ import annotations

from dataclasses import replace

from harness.analysis.estimate import Estimate, overlap
from harness.decision.choice import choose, pareto_front
from harness.pricing.cost import Priced
from harness.report.formatting import USD, clean, interval, memory, percent, seconds
from harness.report.sections.answer import _places, answer
from harness.report.sections.tiles import tiles
from tests.make_priced import (
    STATED,
    baseline,
    fine_tune,
    priced,
    study_records,
    two_machines,
)
from tests.make_records import make_machine


def answer_text(cells: list[Priced]) -> str:
    return " ".join(answer(cells, choose(cells), USD))


def test_the_answer_states_cost_accuracy_and_price_basis():
    cells = priced(study_records())
    choice = choose(cells)
    first, *rest = answer(cells, choice, USD)
    assert first.startswith("Measure more before you decide. So far the choice is batch 16")
    assert USD.amount(choice.pick.usd_billed.value) in first
    assert "at an example $0.192 an hour, m5.xlarge" in first
    assert percent(choice.pick.summary.accuracy.value) in first
    assert interval(choice.pick.summary.accuracy, "percent") in first
    text = " ".join(rest)
    assert "the most common class (57.7%)" in text
    assert "TF-IDF with logistic regression (69.7%)" in text
    assert "It rests on 1,000 test examples, 1 run, 1 seed and 1 host, so it is about this trained model." in rest


def test_the_loss_the_runner_up_and_what_more_money_buys_are_stated():
    cells = priced([fine_tune(8, rate=10, accuracy=0.802), fine_tune(16, rate=20, accuracy=0.80)])
    choice = choose(cells)
    text = answer_text(cells)
    assert "It is the cheapest of the 2 ways (of 3) that are expected to lose at most 1.0 point." in text
    assert f"Its own expected loss against the best is {100 * choice.way.loss.mean:.1f} points" in text
    assert "Runner-up: batch 8, 64 tokens, fp32, cpu" in text
    assert (
        f"What more money buys: 0.2 points (-0.1 to +0.5) with the runner-up, for {USD.amount(choice.upgrade.usd)} more"
        in text
    )


def test_a_stated_price_is_labelled_stated_and_a_hardware_mismatch_is_reported():
    assert "at a stated $0.192 an hour" in answer_text(priced([fine_tune()], STATED))
    mismatched = replace(STATED, note="g5.xlarge has an A10G, none was seen")
    assert "the stated and the seen hardware disagree" in answer_text(priced([fine_tune()], mismatched))


def test_without_a_price_seconds_are_stated_and_usd_per_hour_is_suggested():
    cells = priced([fine_tune(rate=20.0), fine_tune(32, rate=40.0)], None)
    assert "dollars are not known (no price row has this machine; give --usd-per-hour)" in answer_text(cells)
    assert tiles(choose(cells), USD)[0].value == "not known"


def test_an_accuracy_not_above_the_majority_class_is_not_to_be_used():
    assert answer_text(priced([fine_tune(accuracy=0.56)])).startswith("Do not use any of these yet.")
    near = answer_text(priced([fine_tune(accuracy=0.577)]))
    assert "Nothing is shown to beat always answering with the most common class (57.7%)." in near


def test_a_baseline_that_is_as_good_is_the_choice():
    text = answer_text(priced([fine_tune(accuracy=0.70), baseline("tfidf", 0.697)]))
    assert "So far the choice is TF-IDF with logistic regression" in text


def test_missing_baselines_are_to_be_measured_next():
    assert (
        "Measure next: TF-IDF with logistic regression and the frozen encoder's features with logistic regression, "
        "on the same data" in answer_text(priced([fine_tune()]))
    )


def test_without_accuracy_the_cheapest_cell_per_sample_is_named():
    cells = priced([fine_tune(accuracy=None, rate=20.0), fine_tune(32, accuracy=None, rate=40.0)])
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
    assert "(example price)" in text
    gpu = fine_tune(rate=900.0, device="gpu")
    assert "Devices at their best" in answer_text(priced([*study_records(), gpu]))


def test_machines_are_ranked_only_beyond_the_spread_between_runs_and_the_sentence_names_it():
    """Single runs at 22 and 25 samples/s were ranked before; 10 % between runs is assumed."""
    other = make_machine(machine_id="xeon-2c-8g-000002").model_dump()

    def sentence(rate):
        (text,) = _places(priced([fine_tune(rate=22.0), fine_tune(rate=rate, machine=other)]), USD)
        return text

    assert sentence(25.0).endswith("; no significant difference (fewer than 3 runs, with 10 % between runs assumed).")
    assert "trains fastest" in sentence(32.0)
    assert sentence(32.0).endswith(" (fewer than 3 runs, with 10 % between runs assumed).")


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
    assert choice.best.score.value < 0.99


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
