"""Verdicts on accuracy and macro F1 of two sides: rules, Holm, what would decide, and relabelled seeds of records."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from harness.analysis.summarize import summarize
from harness.decision.compare import CompareOptions, compare
from harness.decision.compare_scores import ONE_SEED
from harness.decision.pairing import pair_cells
from harness.errors import Unavailable
from harness.pricing.cost import price
from harness.store.record_files import load_records
from tests.make_records import make_record, make_test

REFERENCE = Path(__file__).parents[3] / "results/reference/amd-epyc-2c-24g-dbbbf2"


def run(wrong, *, seed=0, batch_size=16):
    """Make a run that is wrong on these of 1,000 test examples."""
    test = make_test(1.0)
    predictions = [1 - label if index in set(wrong) else label for index, label in enumerate(test["labels"])]
    return make_record(
        seed=seed, axes={"batch_size": batch_size}, training={"test": test | {"predictions": predictions}}
    )


def comparison(a, b, **options):
    sides = [price(summarize(side), lambda _: Unavailable("no price is needed")) for side in (a, b)]
    return compare(pair_cells(*sides), CompareOptions(**options))


def accuracy(a, b, **options):
    return comparison(a, b, **options).cells[0].figures.get("accuracy")


class TestOneSeed:
    def test_significant_differences_are_of_these_trained_models(self):
        # B repairs 40 of A's 200 errors and makes 10 of its own.
        a, b = [run(range(200))], [run([*range(40, 200), *range(500, 510)])]
        judged = accuracy(a, b)
        assert (judged.a, judged.b, judged.change.value) == (0.8, 0.83, pytest.approx(0.03))
        assert judged.p_value == pytest.approx(2.386e-5, rel=1e-3)
        assert (judged.verdict, judged.reason) == ("better", ONE_SEED)
        assert (judged.num_seeds, judged.judged) == ((1, 1), "trained models")
        assert accuracy(b, a).verdict == "worse"

    def test_other_seeds_are_compared_as_well(self):
        # A seed without a partner was not compared at all.
        assert accuracy([run(range(200))], [run(range(100), seed=4)]).verdict == "better"

    def test_no_difference_within_the_margin(self):
        assert accuracy([run(range(200))], [run(range(200))]).verdict == "no difference"
        judged = accuracy([run(range(200))], [run(range(2, 202))], accuracy_margin=0.01)
        assert (judged.verdict, judged.reason) == ("no difference", ONE_SEED)
        assert accuracy([run(range(200))], [run(range(2, 202))], accuracy_margin=0.003).verdict == "cannot tell"

    def test_equal_accuracy_with_other_errors_is_undecided_and_needs_examples(self):
        judged = accuracy([run(range(200))], [run(range(200, 400))])
        assert (judged.change.value, judged.verdict) == (0.0, "cannot tell")
        assert judged.reason == "the interval holds 0 and leaves the margin"
        # (1.96 / 0.01)^2 x 0.401 = 15,404 examples bring the interval within a point, rounded up to two digits.
        assert (judged.would_decide.num_seeds, judged.would_decide.num_test) == (3, 16_000)


class TestRecipes:
    def test_a_clear_difference_from_two_seeds_on(self):
        a = [run(range(250), seed=seed) for seed in (0, 1)]
        b = [run(range(100), seed=seed) for seed in (2, 3)]
        judged = accuracy(a, b)
        assert (judged.verdict, judged.reason, judged.judged) == ("better", None, "recipes")
        assert accuracy(b, a).verdict == "worse"

    def test_two_significant_seeds_do_not_make_a_recipe_better(self):
        # McNemar per seed, with Holm: p of 6e-5 and 2e-8, "better". The seeds of A alone differ by 2 points.
        a = [run(range(200), seed=0), run(range(180), seed=1)]
        b = [run(range(170), seed=0), run(range(140), seed=1)]
        judged = accuracy(a, b)
        assert judged.change.value == pytest.approx(0.035)
        assert judged.verdict == "cannot tell"

    def test_more_seeds_decide_a_difference_that_stays_as_measured(self):
        a = [run(range(200), seed=0), run(range(180), seed=1)]
        b = [run(range(170), seed=2), run(range(140), seed=3)]
        judged = accuracy(a, b)
        plan = judged.would_decide
        assert plan.num_test is None and plan.settings == (f"training.seeds={list(range(plan.num_seeds))}",)
        assert 3 <= plan.num_seeds <= 6

    def test_seeds_that_differ_too_much_are_said_not_to_decide(self):
        a = [run(range(400), seed=0), run(range(200), seed=1)]
        b = [run(range(200), seed=2), run(range(400), seed=3)]
        judged = accuracy(a, b)
        assert judged.would_decide is None
        assert judged.reason == "the interval holds 0 and leaves the margin; 10 seeds a side would not change that"

    def test_verdicts_are_corrected_for_the_number_of_cells(self):
        # B repairs 15 errors and makes 4: p = 0.019 of one cell, and 0.058 of three.
        def side(wrong):
            sizes = {8: wrong, 16: range(200), 32: range(200)}
            return [run(errors, batch_size=size) for size, errors in sizes.items()]

        won = [*range(15, 200), *range(500, 504)]
        assert accuracy([run(range(200))], [run(won)], accuracy_margin=0.001).verdict == "better"
        found = comparison(side(range(200)), side(won), accuracy_margin=0.001).cells
        (judged,) = [cell.figures["accuracy"] for cell in found if cell.a.summary.config.batch_size == 8]
        assert (judged.verdict, judged.reason) == ("cannot tell", "clear alone, but not among 3 cells")
        assert judged.p_value == pytest.approx(3 * 0.01921, rel=1e-3)
        # Excluding 0 among three cells: (2.394 / 0.011)^2 x 0.0199 = 943 examples at an error of 0.05 / 3.
        z = 2.3940
        assert judged.would_decide.num_seeds == 3
        assert judged.would_decide.num_test is None and (z / 0.011) ** 2 * 0.019879 < 1000

    def test_macro_f1_is_compared_instead(self):
        a, b = ([run(range(size), seed=seed) for seed in (0, 1)] for size in (250, 100))
        figures = comparison(a, b, metric="macro_f1").cells[0].figures
        assert "accuracy" not in figures
        assert figures["macro_f1"].verdict == "better"
        assert figures["macro_f1"].a == pytest.approx(a[0].training.test.macro_f1)

    def test_other_test_rows_are_not_compared(self):
        other = run(range(100))
        split = other.data.test.model_copy(update={"sha256": "1" * 64})
        other = other.model_copy(update={"data": other.data.model_copy(update={"test": split})})
        assert accuracy([run(range(200))], [other]) is None


def renumbered(records):
    return [
        record.model_copy(update={"config": record.config.model_copy(update={"seed": seed})})
        for seed, record in enumerate(records)
    ]


def without_steps(record):
    """Drop all but twelve steps, which take longer to summarize than all else."""
    steps = record.training.steps
    short = {
        name: getattr(steps, name)[:12] for name in ("num_samples", "num_real_tokens", "num_padded_tokens", "loss")
    }
    short |= {"seconds": tuple(rank[:12] for rank in steps.seconds), "num_token_pairs": steps.num_token_pairs[:12]}
    training = record.training.model_copy(update={"steps": steps.model_copy(update=short)})
    return record.model_copy(update={"training": training})


def test_no_recipe_of_the_reference_records_is_better_than_itself():
    """All ways to split the five seeds of 15 recipes into two and three, or two and two.

    McNemar's test per seed called one side better or worse in 126 of these 375 comparisons, and in 9 of 30 that an audit
    made of one recipe.
    """
    verdicts = Counter()
    for folder in ("data", "ladder"):
        for summary in summarize(load_records([REFERENCE / folder]).records):
            if summary.kind != "fine_tune" or summary.num_ok < 5:
                continue
            seeds = [without_steps(record) for record in sorted(summary.ok_records, key=lambda run: run.config.seed)]
            for a in combinations(range(5), 2):
                rest = [seed for seed in range(5) if seed not in a]
                for b in (rest, *combinations(rest, 2)):
                    if len(b) == 3 or a < tuple(b):
                        sides = [renumbered([seeds[seed] for seed in side]) for side in (a, b)]
                        verdicts[accuracy(*sides).verdict] += 1
    assert verdicts.total() == 375
    assert verdicts["better"] + verdicts["worse"] == 2  # 250 rows: seeds of 0.62, 0.63, 0.64 against 0.66 and 0.67
