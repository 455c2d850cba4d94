"""The choice among all measured ways: the cheapest to have of those that are good enough."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.decision.choice import Goal, choose, pareto_front
from harness.report.formatting import USD
from harness.report.sections.verdict import verdict_sentences
from harness.schema.assumptions import Assumptions
from harness.schema.record import Record
from tests.make_priced import ASSUMED, GPU_MACHINE, MACHINE, STATED, baseline, fine_tune, priced, study_records


def answers(record, correct):
    """Give a record's model these right and wrong answers."""
    test = (record.training or record.baseline).test
    predictions = [label if right else 1 - label for label, right in zip(test.labels, correct, strict=True)]
    part = "training" if record.training else "baseline"
    fields = record.model_dump()
    fields[part]["test"]["predictions"] = predictions
    return Record.model_validate(fields)


def noisy(accuracy, seed, num_examples=1000):
    """Right answers with this accuracy; examples that are hard for one way are mostly hard for another."""
    random = np.random.default_rng(seed)
    hard = np.random.default_rng(99).random(num_examples)
    own = random.random(num_examples)
    score = np.where(random.random(num_examples) < 0.7, hard, own)
    return score < np.sort(score)[round(accuracy * num_examples)]


def cells_of(*ways):
    """Cells of (batch, samples/s, accuracy, seed of the answers)."""
    return priced([answers(fine_tune(b, rate=rate), noisy(accuracy, seed)) for b, rate, accuracy, seed in ways])


def batch(way):
    return way.cell.summary.config.batch_size


class TestGoodEnough:
    def test_the_cheapest_within_a_point_is_chosen(self):
        choice = choose(cells_of((8, 10, 0.80, 1), (16, 20, 0.80, 2), (32, 40, 0.70, 3)))
        assert [batch(way) for way in choice.admitted] == [16, 8]
        assert (batch(choice.way), batch(choice.runner_up)) == (16, 8)
        assert choice.pick is choice.way.cell

    def test_a_lower_accuracy_is_not_admitted_because_its_interval_overlaps(self):
        # Unpaired intervals of 0.80 and 0.765 on 1,000 examples overlap (77.4 to 82.4, 73.8 to 79.0); on the same examples
        # they differ. The former rule took the cheaper.
        cells = cells_of((8, 10, 0.80, 1), (16, 40, 0.765, 2))
        low, high = cells[1].summary.accuracy, cells[0].summary.accuracy
        assert low.high > high.low
        assert batch(choose(cells).way) == 8

    def test_more_tolerance_admits_more(self):
        cells = cells_of((8, 10, 0.80, 1), (16, 40, 0.765, 2))
        assert batch(choose(cells, goal=Goal(tolerance=0.05)).way) == 16

    def test_the_upgrade_is_what_more_money_buys(self):
        cells = cells_of((8, 10, 0.80, 1), (16, 40, 0.765, 2))
        choice = choose(cells, goal=Goal(tolerance=0.05))
        upgrade = choice.upgrade
        usd = cells[0].usd_billed.value - cells[1].usd_billed.value
        assert batch(upgrade.way) == 8
        assert upgrade.gain.value == pytest.approx(0.035)
        assert upgrade.usd == pytest.approx(usd)
        assert upgrade.usd_per_point.value == pytest.approx(usd / 3.5)
        assert upgrade.usd_per_point.low == pytest.approx(usd / (100 * upgrade.gain.high))
        assert choice.difference(choice.best).value == pytest.approx(-0.035)

    def test_a_gain_that_may_be_0_has_no_highest_price_a_point(self):
        upgrade = choose(cells_of((8, 10, 0.805, 1), (16, 40, 0.80, 2))).upgrade
        assert upgrade.usd_per_point.high is None and upgrade.usd_per_point.low > 0


class TestTarget:
    def test_the_lower_end_must_reach_it(self):
        cells = cells_of((8, 10, 0.90, 1), (16, 40, 0.81, 2))
        choice = choose(cells, goal=Goal(target=0.80))
        assert batch(choice.way) == 8  # 0.81 (0.784 to 0.833) only may reach it

    def test_the_middle_may_reach_it_if_nothing_does_for_certain(self):
        choice = choose(cells_of((8, 10, 0.80, 1), (16, 40, 0.81, 2)), goal=Goal(target=0.80))
        assert [batch(way) for way in choice.admitted] == [16, 8]
        assert [reason.kind for reason in choice.verdict.reasons][-1] == "target_uncertain"
        assert choice.verdict.kind == "measure more"

    def test_a_target_that_nothing_reaches(self):
        choice = choose(cells_of((8, 10, 0.80, 1), (16, 40, 0.81, 2)), goal=Goal(target=0.9))
        assert choice.way is None
        assert choice.verdict.kind == "do not use yet"
        assert [reason.kind for reason in choice.verdict.reasons] == ["target_missed"]
        assert choice.pick.summary.config.batch_size == 16  # the best, to show its figures


class TestBaselines:
    def test_a_baseline_that_is_as_good_is_chosen(self):
        records = [answers(fine_tune(16), noisy(0.80, 1)), answers(baseline("tfidf"), noisy(0.80, 2))]
        choice = choose(priced(records))
        assert choice.way.kind == "tfidf"
        assert choice.pick.summary.cell == "baseline-tfidf"

    def test_the_frozen_head_of_the_default_records_is_not_chosen(self):
        # `recommend` called it the cheapest, the fastest and balanced: 61.5 %, the majority class's accuracy.
        choice = choose(priced(study_records()))
        assert choice.way.kind == "fine_tune"
        assert choice.way.cell.summary.config.trainable == "all"

    def test_the_majority_class_is_always_among_the_ways(self):
        choice = choose(cells_of((8, 10, 0.80, 1)))
        assert [way.kind for way in choice.ways] == ["fine_tune", "majority"]
        # 577 of 1,000 examples have the most common label.
        assert choice.majority == pytest.approx(0.577)

    def test_nothing_is_fine_tuned_nothing_is_chosen(self):
        choice = choose(priced([baseline("tfidf")]))
        assert (choice.way, choice.pick) == (None, None)

    def test_of_several_baselines_of_a_kind_the_one_with_most_rows_is_shown(self):
        small, large = baseline("tfidf", 0.65), baseline("tfidf", 0.70)
        fields = small.model_dump()
        fields["data"]["train"]["num_rows"] = 250
        fields["config"]["data"]["num_train"] = 250
        cells = priced([fine_tune(), Record.model_validate(fields), large])
        assert choose(cells).tfidf.summary.accuracy.value == pytest.approx(0.70)


HOSTED = {
    "prices": {"serving": {"hosted_usd_per_million": 10.0, "hosted_accuracy": 0.95}},
    "set_by_user": {"value.items_per_month", "prices.serving.hosted_accuracy"},
}


class TestHosted:
    def test_a_hosted_model_is_a_way_where_price_accuracy_and_texts_are_stated(self):
        cells = cells_of((8, 10, 0.80, 1))
        choice = choose(cells, Assumptions.model_validate(HOSTED))
        assert choice.way.kind == "hosted"
        # 100,000 texts a month over 12 months at 10 USD a million.
        assert choice.way.usd.value == pytest.approx(12.0)
        # The model loses the 15 points by which the hosted model is better.
        assert choice.ways[0].loss.mean == pytest.approx(0.15)

    def test_without_stated_texts_its_cost_is_unknown(self):
        stated = Assumptions.model_validate(HOSTED | {"set_by_user": {"prices.serving.hosted_accuracy"}})
        assert choose(cells_of((8, 10, 0.80, 1)), stated).way.kind == "fine_tune"


class TestMoney:
    def test_stated_texts_make_serving_count(self):
        # The head alone is trained for less, but both predict at one speed; the bills differ, and with 1,000 million texts
        # the slower predictor costs more.
        cells = cells_of((8, 10, 0.80, 1), (16, 20, 0.80, 2))
        values = Assumptions.model_validate(
            {"value": {"items_per_month": 1e9}, "set_by_user": {"value.items_per_month"}}
        )
        choice = choose(cells, values)
        assert choice.use.num_texts == 12e9
        expected = cells[1].usd_billed.value + 12_000 * cells[1].usd_per_million_predictions.value
        assert choice.way.usd.value == pytest.approx(expected)

    def test_a_cell_without_a_price_is_not_chosen_over_a_priced_one(self):
        records = [fine_tune(rate=20.0), fine_tune(rate=900.0, device="gpu", machine=GPU_MACHINE)]
        cells = priced(records, None, {MACHINE["id"]: STATED})
        assert choose(cells).pick.summary.machine_id == MACHINE["id"]

    def test_without_prices_the_fewest_seconds_win(self):
        cells = priced([fine_tune(rate=20.0), fine_tune(32, rate=40.0)], None)
        assert choose(cells).pick.summary.config.batch_size == 32

    def test_of_equal_costs_the_higher_score_wins(self):
        records = [answers(fine_tune(16), noisy(0.80, 1)), answers(fine_tune(16, 32), noisy(0.803, 1))]
        fields = records[1].model_dump()
        fields["training"]["steps"] = records[0].training.steps.model_dump()
        fields["phases"] = records[0].phases.model_dump()
        cells = priced([records[0], Record.model_validate(fields)])
        assert cells[0].usd_billed.value == cells[1].usd_billed.value
        assert choose(cells).pick.summary.config.seq_len == 32


class TestExamplePrices:
    """A slow machine beside a faster and more expensive one."""

    DEAR = replace(STATED, usd_per_hour=30.0, usd_per_hour_on_demand=30.0)

    def choice(self, slow, fast, **slow_fields):
        records = [
            fine_tune(rate=20.0, **slow_fields),
            fine_tune(rate=900.0, device="gpu", machine=GPU_MACHINE, **slow_fields),
        ]
        return choose(priced(records, None, {MACHINE["id"]: slow, GPU_MACHINE["id"]: fast}))

    def test_machines_of_known_prices_are_compared_by_cost(self):
        choice = self.choice(STATED, self.DEAR)
        assert (choice.in_dollars, choice.pick.summary.machine_id) == (True, MACHINE["id"])

    @pytest.mark.parametrize(("slow", "fast"), [(ASSUMED, DEAR), (STATED, replace(DEAR, basis="assumed"))])
    def test_an_example_price_ranks_no_machines_so_seconds_decide(self, slow, fast):
        choice = self.choice(slow, fast)
        assert (choice.in_dollars, choice.pick.summary.machine_id) == (False, GPU_MACHINE["id"])
        assert choice.way.usd is not None and choice.level == ()

    def test_without_accuracies_the_faster_machine_is_shown(self):
        assert self.choice(ASSUMED, self.DEAR, accuracy=None).pick.summary.machine_id == GPU_MACHINE["id"]
        assert self.choice(STATED, self.DEAR, accuracy=None).pick.summary.machine_id == MACHINE["id"]

    def test_more_accuracy_costs_time_instead_of_dollars(self):
        records = [
            answers(fine_tune(8, rate=900.0, device="gpu", machine=GPU_MACHINE), noisy(0.80, 1)),
            answers(fine_tune(16, rate=20.0), noisy(0.808, 2)),
        ]
        cells = priced(records, None, {MACHINE["id"]: ASSUMED, GPU_MACHINE["id"]: self.DEAR})
        choice = choose(cells)
        assert (batch(choice.way), batch(choice.upgrade.way)) == (8, 16)
        assert (choice.upgrade.usd, choice.upgrade.usd_per_point) == (None, None)

    def test_on_one_machine_it_ranks_the_cells(self):
        cells = priced([fine_tune(rate=20.0), fine_tune(32, rate=40.0)], ASSUMED)
        choice = choose(cells)
        assert (choice.in_dollars, batch(choice.way)) == (True, 32)

    def test_the_verdict_says_that_time_decided(self):
        choice = self.choice(ASSUMED, self.DEAR)
        cells = [way.cell for way in choice.ways if way.cell is not None]
        said = "Prices are examples, so machines are ranked by the time of a run, not by cost. State your prices."
        assert said in verdict_sentences(cells, choice, USD)
        known = self.choice(STATED, self.DEAR)
        assert said not in verdict_sentences(cells, known, USD)


class TestWithoutAccuracy:
    def test_the_cheapest_per_sample_is_shown(self):
        cells = priced([fine_tune(accuracy=None, rate=20.0), fine_tune(32, accuracy=None, rate=40.0)])
        choice = choose(cells)
        assert (choice.way, choice.best) == (None, None)
        assert choice.pick.summary.config.batch_size == 32
        assert choice.verdict.kind == "measure more"

    def test_nothing_measured_nothing_chosen(self):
        assert choose([]).pick is None
        assert choose(priced([fine_tune(outcome="oom", reason="x")])).pick is None


def test_cells_on_another_test_set_are_counted_and_left_out():
    other = fine_tune(32)
    fields = other.model_dump()
    fields["data"]["test"]["sha256"] = "f" * 64
    choice = choose(priced([fine_tune(8), fine_tune(16), Record.model_validate(fields)]))
    assert choice.num_elsewhere == 1
    assert {cell.summary.config.batch_size for cell in choice.compared} == {8, 16}


def test_a_recipe_on_another_machine_is_no_runner_up():
    records = [answers(fine_tune(16, machine=machine), noisy(0.8, 1)) for machine in (MACHINE, GPU_MACHINE)]
    assert (
        choose(
            priced([*records, answers(fine_tune(8, rate=5), noisy(0.8, 2))])
        ).runner_up.cell.summary.config.batch_size
        == 8
    )


def test_rare_classes_are_chosen_by_macro_f1():
    # Both get 95 % right; one by answering the common class alone.
    rare = [i % 20 == 0 for i in range(1000)]
    common_only = answers(fine_tune(16, rate=40), [True] * 1000)
    fields, balanced = common_only.model_dump(), fine_tune(8, rate=10).model_dump()
    labels = [int(not each) for each in rare]
    fields["training"]["test"] |= {"labels": labels, "predictions": [1] * 1000}
    mistakes = [label if i % 21 else 1 - label for i, label in enumerate(labels)]
    balanced["training"]["test"] |= {"labels": labels, "predictions": mistakes}
    cells = priced([Record.model_validate(fields), Record.model_validate(balanced)])
    assert choose(cells, goal=Goal("macro_f1")).way.cell.summary.config.batch_size == 8
    assert choose(cells).way.kind == "majority"


def test_the_pareto_front_is_sorted_by_cost():
    assert pareto_front([(3.0, 0.9), (1.0, 0.7), (2.0, 0.6), (2.0, 0.8)]) == [1, 3, 0]
