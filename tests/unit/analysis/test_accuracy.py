"""Accuracy's interval: test examples and seeds in one variance, checked by hand, by scipy, by simulation, on records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.analysis.accuracy import (
    estimate_difference,
    estimate_score,
    example_scores,
    score_noise,
    scores_by_seed,
    seed_variance,
)
from harness.analysis.summarize import summarize
from harness.schema.training_record import TestEvaluation
from harness.store.record_files import load_records
from tests.make_records import make_baseline, make_record

REFERENCE = Path(__file__).parents[3] / "results/reference/amd-epyc-2c-24g-dbbbf2"


def simulated(random, accuracy, num_examples, num_seeds, seed_sd):
    """Simulate seeds of one recipe; each example's difficulty is shared by the seeds."""
    of_seeds = np.clip(accuracy + seed_sd * random.standard_normal(num_seeds), 0.01, 0.99)
    # A uniform difficulty that seeds share in part: half of the examples have one for all seeds.
    shared = random.random(num_examples) < 0.5
    difficulty = np.where(shared, random.random(num_examples), random.random((num_seeds, num_examples)))
    return (difficulty < of_seeds[:, None]).astype(float)


class TestCoverage:
    @pytest.mark.parametrize("num_seeds", [2, 3, 5, 10])
    @pytest.mark.parametrize(
        ("num_examples", "seed_sd"), [(300, 0.0), (300, 0.02), (1000, 0.01), (5000, 0.0), (5000, 0.02)]
    )
    def test_the_interval_covers_in_93_percent_or_more(self, num_seeds, num_examples, seed_sd):
        # Student's t between seeds alone covers in 69 to 89 % here, and less often with more seeds.
        random = np.random.default_rng([num_seeds, num_examples, round(seed_sd * 1000)])
        num_trials = 300 if num_examples < 5000 else 150
        covered = 0
        for _ in range(num_trials):
            estimate = estimate_score(simulated(random, 0.8, num_examples, num_seeds, seed_sd))
            covered += estimate.low <= 0.8 <= estimate.high
        # Two standard deviations of the simulation below 93 %.
        assert covered / num_trials >= 0.93 - 2 * (0.93 * 0.07 / num_trials) ** 0.5

    def test_three_seeds_that_differ_by_5_points_are_covered_too(self):
        # 89.5 % of 400 trials with a prior that did not give way to a larger measured variance.
        random = np.random.default_rng(7)
        estimates = [estimate_score(simulated(random, 0.8, 1000, 3, 0.05)) for _ in range(400)]
        assert sum(estimate.low <= 0.8 <= estimate.high for estimate in estimates) / 400 >= 0.92

    def test_differences_of_equal_recipes_exclude_0_in_at_most_6_percent(self):
        random = np.random.default_rng(3)
        wrong, num_trials = 0, 600
        for _ in range(num_trials):
            both = simulated(random, 0.8, 500, 6, 0.0)
            estimate = estimate_difference(both[:3], both[3:])
            wrong += not estimate.low <= 0 <= estimate.high
        assert wrong / num_trials <= 0.06


class TestOnRecords:
    def test_the_data_cell_of_2000_rows_is_unsure_by_its_1000_examples(self):
        # It was shown as 0.811 (0.807 to 0.815): Student's t between five seeds, which saw the same 1,000 examples.
        records = load_records([REFERENCE / "data"]).records
        cells = {summary.cell: summary.accuracy for summary in summarize(records)}
        accuracy = cells["b16-s64-fp32-cpu-grouped-all-num_train=2000-lr=0.0001"]
        assert accuracy.value == pytest.approx(0.8108, abs=1e-12)
        assert 0.021 < accuracy.value - accuracy.low < 0.028
        assert 0.020 < accuracy.high - accuracy.value < 0.027
        assert accuracy.basis == "over 1,000 test examples and 5 seeds"

    def test_all_rows_beat_the_bf16_cell_of_the_default_study(self):
        # The report over all records recommended 0.801, since its interval overlaps that of 0.848.
        data = load_records([REFERENCE / "data"]).records
        default = load_records([REFERENCE / "default"]).records
        best = [r for r in data if r.cell == "b16-s64-fp32-cpu-grouped-all-num_train=all-lr=0.0001"]
        bf16 = [r for r in default if r.cell == "b16-s64-bf16-cpu-grouped-all"]
        gain = estimate_difference(scores_by_seed(bf16), scores_by_seed(best))
        assert gain.value == pytest.approx(0.047, abs=1e-12)
        assert gain.low > 0.015


class TestEstimate:
    def test_repeats_of_a_seed_are_averaged_first(self):
        runs = [make_record(seed=0, repeat=i, training={"accuracy": 0.7}) for i in range(3)]
        scores = scores_by_seed([*runs, make_record(seed=1, training={"accuracy": 0.8})])
        assert scores.shape == (2, 1000)
        assert scores.mean() == pytest.approx(0.75, abs=1e-12)

    def test_the_variance_is_that_over_examples_plus_that_between_seeds(self):
        # Two seeds of 0.5 on four examples, half of which both get right: no variance beyond single answers is measured,
        # so that the prior's 2 degrees of freedom stand beside 1: 2/3 of 0.001 sqrt(0.5 x 0.5).
        scores = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0]])
        seeds = seed_variance(scores)
        assert seeds.of_one == pytest.approx(2 / 3 * 0.0005)
        assert seeds.degrees_of_freedom == 3
        assert seed_variance(scores[:1]) is None

    def test_the_prior_gives_way_to_seeds_that_differ_more(self):
        # 0.7 and 0.8 of 1,000 examples: 0.005 between the seeds, less what single answers add. Of the prior's 2 degrees
        # of freedom (prior / measured)^2 are left: 0.016. With both of them the variance was 0.0019.
        scores = np.zeros((2, 1000))
        scores[0, :700] = scores[1, :800] = 1
        measured = 0.1**2 / 2 - (100 * 0.5 - 1000 * 0.1**2 / 2) / 999 / 1000
        prior = 0.001 * (0.75 * 0.25) ** 0.5
        weight = 2 * (prior / measured) ** 2
        seeds = seed_variance(scores)
        assert seeds.degrees_of_freedom == pytest.approx(1 + weight)
        assert seeds.of_one == pytest.approx((measured + weight * prior) / (1 + weight))
        assert 0.0048 < seeds.of_one < measured

    def test_one_seed_is_of_this_trained_model(self):
        assert (
            estimate_score(np.array([[1.0, 0.0, 1.0]])).basis == "over 3 test examples, one seed: of this trained model"
        )

    def test_a_perfect_score_has_wilsons_interval(self):
        # Wilson, 20 of 20: low end 20 / (20 + z^2).
        estimate = estimate_score(np.ones((3, 20)))
        assert (estimate.low, estimate.high) == (pytest.approx(20 / (20 + 1.959964**2), abs=1e-6), 1.0)

    def test_a_way_with_one_seed_gets_the_typical_variance_between_seeds_of_the_others(self):
        random = np.random.default_rng(1)
        several, single = simulated(random, 0.8, 1000, 5, 0.03), simulated(random, 0.8, 1000, 1, 0.0)
        noise = score_noise([several, single, single], [True, True, False])
        assert noise.of_seeds[1] > noise.of_seeds[0] > 0
        assert noise.of_seeds[2] == 0  # a baseline has no seed
        assert noise.is_of_recipes
        assert not score_noise([single, single], [True, True]).is_of_recipes

    def test_test_examples_are_shared_so_that_their_part_cancels_in_differences(self):
        random = np.random.default_rng(2)
        scores = simulated(random, 0.8, 1000, 1, 0.0)
        other = scores.copy()
        other[0, :30] = 1 - other[0, :30]
        noise = score_noise([scores, other], [True, True])
        of_difference = noise.covariance[0, 0] + noise.covariance[1, 1] - 2 * noise.covariance[0, 1]
        assert of_difference == pytest.approx(float((other - scores).var()) / 1000)
        assert of_difference < 0.2 * noise.covariance[0, 0]


class TestMacroF1:
    def test_the_mean_of_the_scores_is_macro_f1(self):
        metrics = pytest.importorskip("sklearn.metrics")
        random = np.random.default_rng(4)
        labels = random.choice(3, size=400, p=[0.9, 0.07, 0.03])
        predictions = np.where(random.random(400) < 0.8, labels, random.choice(3, size=400))
        test = TestEvaluation(evaluate_s=1.0, labels=tuple(map(int, labels)), predictions=tuple(map(int, predictions)))
        expected = metrics.f1_score(labels, predictions, average="macro")
        assert example_scores(test, "macro_f1").mean() == pytest.approx(expected, abs=1e-12)

    def test_the_interval_of_a_rare_class_is_that_of_a_bootstrap(self):
        # First-order influence against 2,000 resamples of the examples: 5 % of the width.
        random = np.random.default_rng(5)
        labels = random.choice(2, size=2000, p=[0.9, 0.1])
        predictions = np.where(random.random(2000) < 0.9, labels, 1 - labels)

        def macro_f1(rows):
            test = TestEvaluation(
                evaluate_s=1.0, labels=tuple(map(int, labels[rows])), predictions=tuple(map(int, predictions[rows]))
            )
            return test.macro_f1

        test = TestEvaluation(evaluate_s=1.0, labels=tuple(map(int, labels)), predictions=tuple(map(int, predictions)))
        spread = example_scores(test, "macro_f1").std() / 2000**0.5
        drawn = [macro_f1(random.integers(0, 2000, 2000)) for _ in range(500)]
        assert spread == pytest.approx(float(np.std(drawn)), rel=0.1)

    def test_rare_classes_are_chosen_by_the_same_code(self):
        estimate = estimate_score(scores_by_seed([make_record(training={"accuracy": 0.8})], "macro_f1"))
        assert estimate.low < estimate.value < estimate.high

    def test_baselines_have_scores_too(self):
        assert scores_by_seed([make_baseline(accuracy=0.7)]).mean() == pytest.approx(0.7)
        assert scores_by_seed([make_record(outcome="oom", reason="x")]) is None
