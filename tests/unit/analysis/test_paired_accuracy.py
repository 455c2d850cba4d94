"""Two sides' scores on the same test examples: variances by hand, McNemar's test, seeds that both sides share."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from harness.analysis.paired_accuracy import pair_scores, relative_disagreement
from harness.store.record_files import load_records
from tests.make_records import make_baseline, make_record, make_test

LADDER = Path(__file__).parents[3] / "results/reference/amd-epyc-2c-24g-dbbbf2/ladder"
NO_DROPOUT = "lr=0.0001-attention_dropout=0-hidden_dropout=0"
TOP3 = "b16-s128-bf16-cpu-grouped-top3-lr=0.0003-attention_dropout=0-hidden_dropout=0"


def run(wrong, *, seed=0, repeat=0, num_test=1000):
    """Make a run that is wrong on these of the test examples."""
    test = make_test(1.0, num_test)
    predictions = [1 - label if index in set(wrong) else label for index, label in enumerate(test["labels"])]
    return make_record(seed=seed, repeat=repeat, training={"test": test | {"predictions": predictions}})


@cache
def ladder():
    return tuple(load_records([LADDER]).records)


def ladder_cell(name):
    return [record for record in ladder() if record.cell == name]


class TestRecipes:
    def test_the_variance_is_that_over_examples_plus_that_of_each_sides_seeds(self):
        # A: 200 wrong with both seeds. B: 150 and 170 wrong, of which 150 are A's.
        a = [run(range(200), seed=seed) for seed in (0, 1)]
        b = [run(range(150), seed=7), run([*range(150), *range(500, 520)], seed=9)]
        paired = pair_scores(a, b)
        assert (paired.a, paired.b, paired.num_seeds) == (0.8, pytest.approx(0.84), (2, 2))
        # An example's difference: 1 for 50 examples, -1/2 for 20, else 0.
        squares = 50 + 20 / 4 - 1000 * 0.04**2
        (examples, df_examples), *of_seeds = paired.variances
        assert examples == pytest.approx((squares + 1) / 1000**2) and df_examples == 999
        # B's seeds differ by 2 points, (0.02^2 / 2), of which single answers explain 20 x 0.5 / 1000 - 0.02^2 / 2 each.
        residual = (20 * 0.5 - 1000 * 0.02**2 / 2) / 999
        measured = 0.02**2 / 2 - residual / 1000
        prior = [0.001 * math.sqrt(p * (1 - p)) for p in (0.8, 0.84)]
        # One degree of freedom of the prior a side, beside one of the two seeds.
        assert of_seeds[0] == (pytest.approx(prior[0] / 2 / 2), 2)
        assert of_seeds[1] == (pytest.approx((measured + prior[1]) / 2 / 2), 2)
        total = examples + of_seeds[0][0] + of_seeds[1][0]
        df = total**2 / (examples**2 / 999 + of_seeds[0][0] ** 2 / 2 + of_seeds[1][0] ** 2 / 2)
        assert paired.p_value == pytest.approx(2 * stats.t.sf(0.04 / math.sqrt(total), df))
        assert paired.difference.high - 0.04 == pytest.approx(stats.t.ppf(0.975, df) * math.sqrt(total))
        assert paired.judged == "recipes"
        assert paired.difference.basis == "paired over 1,000 test examples, between 2 and 2 seeds"
        assert paired.variance_of_seed == pytest.approx(2 * (of_seeds[0][0] + of_seeds[1][0]))
        assert paired.variance_of_example == pytest.approx(1000 * examples)

    def test_repeats_of_a_seed_are_no_seeds(self):
        a = [run(range(200), repeat=repeat) for repeat in range(3)]
        paired = pair_scores(a, [run(range(150), seed=1), run(range(150), seed=2)])
        assert (paired.num_seeds, paired.judged) == ((1, 2), "trained models")

    def test_macro_f1_has_an_interval_too(self):
        a, b = ([run(range(size), seed=seed) for seed in seeds] for size, seeds in ((200, (0, 1)), (150, (2, 3))))
        paired = pair_scores(a, b, "macro_f1")
        assert paired.b - paired.a == pytest.approx(b[0].training.test.macro_f1 - a[0].training.test.macro_f1)
        assert paired.judged == "recipes" and paired.difference.low < paired.b - paired.a < paired.difference.high


class TestTrainedModels:
    def test_one_model_a_side_is_compared_by_mcnemars_exact_test(self):
        # B repairs 40 of A's errors and makes 10 of its own. The seeds' numbers don't matter.
        paired = pair_scores([run(range(200))], [run([*range(40, 200), *range(500, 510)], seed=3)])
        assert paired.p_value == pytest.approx(stats.binomtest(10, 50, 0.5).pvalue)
        assert paired.judged == "trained models" and paired.variance_of_seed is None
        # Half an example more for each kind of disagreement.
        half = stats.t.ppf(0.975, 999) * math.sqrt(50 - 1000 * 0.03**2 + 1) / 1000
        assert paired.difference.low == pytest.approx(0.03 - half)
        assert paired.difference.basis == "paired over 1,000 test examples: of these trained models"

    def test_one_model_against_several_leaves_the_seeds_out(self):
        several = [run(range(120, 300), seed=seed) for seed in (1, 2, 3)]
        paired = pair_scores([run(range(200))], several)
        error = math.sqrt(220 - 1000 * 0.02**2 + 1) / 1000
        assert paired.p_value == pytest.approx(2 * stats.t.sf(abs(0.82 - 0.8) / error, 999))
        assert (paired.num_seeds, paired.judged) == ((1, 3), "trained models")

    def test_macro_f1_of_one_model_a_side_has_no_exact_test(self):
        paired = pair_scores([run(range(200))], [run(range(150))], "macro_f1")
        assert paired.exact_p_value is None and 0 < paired.p_value < 1e-6

    def test_other_test_examples_baselines_and_failures_are_not_compared(self):
        assert pair_scores([run(range(9))], [run(range(9), num_test=500)]) is None
        assert pair_scores([run(range(9))], [make_baseline()]) is None
        assert pair_scores([run(range(9))], [make_record(outcome="oom", reason="killed")]) is None
        both = [run(range(9), num_test=500), run(range(9), seed=1), run(range(9), seed=2)]
        assert pair_scores(both, both).num_examples == 1000


class TestSharedSeeds:
    def test_disagreement_relative_to_other_seeds(self):
        # Models of one seed disagree on 1 of 4 examples, of different seeds on 2 of 4.
        a = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
        b = np.array([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0]])
        assert relative_disagreement(a, b) == pytest.approx(1.0)
        b[0, 2] = 0.0
        assert relative_disagreement(a, b) == pytest.approx((0 + 1) / (2 + 1))
        assert relative_disagreement(a[:1].repeat(2, axis=0), a[:1].repeat(2, axis=0)) == 0

    def test_bf16_is_compared_with_fp32_seed_by_seed(self):
        # The five models differ on 2 of 2,500 answers; as independent seeds they are known to 2.5 points only.
        fp32, bf16 = (
            ladder_cell(f"b16-s128-{precision}-cpu-grouped-all-{NO_DROPOUT}") for precision in ("fp32", "bf16")
        )
        paired = pair_scores(fp32, bf16)
        assert paired.difference.basis == "paired over 500 test examples and 5 seeds"
        assert -0.006 < paired.difference.low < paired.difference.value < paired.difference.high < 0.006
        turned = [record.model_copy(update={"config": record.config.model_copy(update={"seed": 4 - seed})})
                  for seed, record in enumerate(sorted(bf16, key=lambda record: record.config.seed))]  # fmt: skip
        apart = pair_scores(fp32, turned)
        assert apart.difference.basis == "paired over 500 test examples, between 5 and 5 seeds"
        assert apart.difference.high > 0.02

    def test_seeds_that_one_side_lacks_are_left_out_if_the_others_are_paired(self):
        paired = pair_scores(ladder_cell(TOP3), ladder_cell(f"{TOP3}-compile=True-seeds=0_1"))
        assert paired.num_seeds == (2, 2)
        # The answers of seeds 0 and 1 are nearly the same; all five against two were 0.5 points apart.
        assert paired.difference.value == pytest.approx(0.001)
        assert paired.difference.high < 0.01

    def test_seeds_of_other_recipes_are_independent_even_with_the_same_numbers(self):
        paired = pair_scores(
            ladder_cell("b16-s128-fp32-cpu-max-all-lr=0.0001"), ladder_cell("b16-s128-fp32-cpu-grouped-all-lr=0.0001")
        )
        assert paired.difference.basis == "paired over 500 test examples, between 5 and 5 seeds"

    def test_identical_answers_leave_half_an_example_of_each_kind(self):
        same = [run(range(200), seed=seed) for seed in (0, 1)], [run(range(200), seed=seed) for seed in (0, 1)]
        paired = pair_scores(*same)
        assert paired.p_value == 1.0
        assert paired.difference.high == pytest.approx(stats.t.ppf(0.975, 999) / 1000)
