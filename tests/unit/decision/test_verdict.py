"""Verdicts on synthetic records: each reason alone, and what to measure next."""

from __future__ import annotations

import pytest

from harness.decision.choice import Goal, choose
from harness.schema.assumptions import Assumptions
from harness.schema.record import Record
from tests.make_priced import baseline, fine_tune, priced
from tests.unit.decision.test_choice import answers, noisy


def with_baselines(*records):
    """Add both cheap baselines, well below the models."""
    features = baseline("tfidf", 0.66).model_dump()
    features["config"] |= {"classifier": "features", "model": {}, "seq_len": 64}
    features["cell"] = "baseline-features"
    return priced([*records, baseline("tfidf", 0.62), Record.model_validate(features)])


def good(batch=16, seed=1, accuracy=0.8, **more):
    return answers(fine_tune(batch, **more), noisy(accuracy, seed))


def kinds(verdict):
    return [reason.kind for reason in verdict.reasons]


def test_use_has_no_reasons_and_nothing_to_measure():
    verdict = choose(with_baselines(good())).verdict
    assert (verdict.kind, verdict.reasons, verdict.measure_next) == ("use", (), ())


def test_a_missing_cheap_baseline_is_to_be_measured():
    verdict = choose(priced([good(), baseline("tfidf", 0.62)])).verdict
    assert verdict.kind == "measure more"
    assert verdict.reasons[0].details == ("features",)
    (step,) = verdict.measure_next
    assert (step.kind, step.cells) == ("baselines", ("features",))
    assert step.usd > 0 and step.seconds > 0


@pytest.mark.parametrize("accuracy", [0.55, 0.577, 0.59])
def test_what_is_not_shown_to_beat_the_majority_class_is_not_used(accuracy):
    # 57.7 % have the most common label; 0.59 is above it by less than its interval.
    verdict = choose(with_baselines(good(accuracy=accuracy))).verdict
    assert verdict.kind in ("do not use yet", "use")
    choice = choose(priced([good(accuracy=accuracy)]))
    assert choice.verdict.kind == "do not use yet"
    assert kinds(choice.verdict) == ["majority_not_beaten"]


def test_the_test_examples_that_would_show_a_gain_over_the_majority_class():
    # 0.59 against 0.577: an example's difference has a variance of about 0.45, so that 1.96^2 x 0.45 / 0.013^2 = 10,000.
    (step,) = choose(priced([good(accuracy=0.59)])).verdict.measure_next
    assert step.kind in ("test_examples", "accuracy")
    if step.kind == "test_examples":
        assert step.num_test > 5_000


def test_values_of_the_user_under_which_it_loses_money():
    worthless = {"value": {"right_usd": 0.0, "wrong_usd": 1.0}}
    cells = with_baselines(good())
    assert choose(cells, Assumptions.model_validate(worthless)).verdict.kind == "use"  # examples stop nobody
    given = Assumptions.model_validate(worthless | {"set_by_user": {"value.wrong_usd"}})
    assert choose(cells, given).verdict.kind == "use"  # nor does one value among examples
    needed = {"value.wrong_usd", "value.right_usd", "value.items_per_month"}
    given = Assumptions.model_validate(worthless | {"set_by_user": needed})
    verdict = choose(cells, given).verdict
    assert (verdict.kind, kinds(verdict)) == ("do not use yet", ["loses_money"])


def test_a_loss_that_is_not_excluded_and_what_would_exclude_it():
    # Few examples: 100 leave more than 2 points open between models of 0.80 and 0.81.
    def short(record):
        fields = record.model_dump()
        part = "training" if record.training else "baseline"
        test = fields[part]["test"]
        fields[part]["test"] |= {"labels": test["labels"][::10], "predictions": test["predictions"][::10]}
        return Record.model_validate(fields)

    records = [short(good(8, 1, 0.80, rate=40)), short(good(16, 2, 0.80, rate=20)), short(good(32, 3, 0.80))]
    choice = choose(priced(records))
    assert "loss_not_excluded" in kinds(choice.verdict)
    assert choice.way.loss.largest > 0.02
    step = choice.verdict.measure_next[-1]
    assert step.kind == "test_examples"
    assert step.num_test > 100
    assert step.num_seeds == 3
    assert step.settings == ("training.seeds=[0, 1, 2]", f"data.num_test={step.num_test}")
    # Three seeds of both cells are trained anew, since the test set is another.
    bills = [way.usd.value for way in choice.ways if way.name in step.cells]
    assert step.usd == pytest.approx(3 * sum(bills))


def test_a_warning_that_would_stop_an_engineer_stops_the_verdict():
    fields = good().model_dump()
    losses = fields["training"]["steps"]["loss"]
    fields["training"]["steps"]["loss"] = list(reversed(losses))
    verdict = choose(with_baselines(Record.model_validate(fields))).verdict
    assert (verdict.kind, kinds(verdict)) == ("measure more", ["alarm"])
    assert "did not fall" in verdict.reasons[0].details[0]
    assert verdict.measure_next[0].num_seeds == 3


def test_seeds_that_narrow_the_loss_are_counted_from_the_variances_seen():
    records = [good(8, seed, rate=40, accuracy=a) for seed, a in ((1, 0.80),)]
    several = [
        answers(fine_tune(16, seed=seed), noisy(accuracy, 10 + seed))
        for seed, accuracy in enumerate((0.76, 0.80, 0.84))
    ]
    choice = choose(with_baselines(*records, *several), goal=Goal(tolerance=0.004))
    steps = [step for step in choice.verdict.measure_next if step.kind in ("seeds", "test_examples")]
    assert all(3 <= step.num_seeds <= 10 for step in steps)
