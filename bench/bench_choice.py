"""Simulate the choice among measured ways: accuracy lost and dollars paid, against an oracle that knows the truth.

Run: .venv/bin/python bench/bench_choice.py [TRIALS]     prints results/reference/choice.md (100 trials a row: 12 minutes)

A trial draws true accuracies and costs of 2 to 40 ways, trains each with 1 to 5 seeds and tests all on the same 300 to
5,000 examples. Answers come from a latent difficulty that ways and seeds share, so that two models of equal accuracy
disagree on about one example in eight, as those of results/reference do. The oracle takes the cheapest of the ways
that truly lose at most the tolerance. The rules are this project's; its former one (the cheapest whose interval overlaps
that of the highest, Student's t between three or more seeds); the highest measured; and the one-standard-error rule (the
cheapest within one standard error of the highest).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from harness.analysis.accuracy import estimate_score, score_noise
from harness.analysis.estimate import t_quantile, wilson_interval
from harness.analysis.expected_loss import DEFAULT_TOLERANCE, admitted, expected_losses

NUM_TRIALS = 100
SEED = 20261130
MEAN_ACCURACY = 0.80
SEED_SD = 0.01  # standard deviation of a seed's true accuracy
SHARED = 0.7  # share of the latent variance that all models share: the difficulty of an example
OF_WAY = 0.1  # share that the seeds of one way share
COST_SD = 0.5  # standard deviation of the logarithm of a way's cost
NORMAL = NormalDist()

Scores = Sequence[np.ndarray]
Rule = Callable[[Scores, np.ndarray], int]


@dataclass(frozen=True)
class World:
    """The truth of a trial: each way's accuracy and cost, shape `(num_ways,)`."""

    accuracy: np.ndarray
    usd: np.ndarray

    @property
    def oracle_usd(self) -> float:
        """Cost of the cheapest way that loses at most the tolerance."""
        return float(self.usd[self.accuracy >= self.accuracy.max() - DEFAULT_TOLERANCE].min())


def draw_world(random: np.random.Generator, num_ways: int, spread: float, *, dearer_is_better: bool = False) -> World:
    """Draw true accuracies with a standard deviation of `spread`, and costs; sorted alike if `dearer_is_better`."""
    accuracy = MEAN_ACCURACY + spread * random.standard_normal(num_ways)
    usd = np.exp(COST_SD * random.standard_normal(num_ways))
    return World(np.sort(accuracy), np.sort(usd)) if dearer_is_better else World(accuracy, usd)


def measure(
    random: np.random.Generator, accuracy: np.ndarray, num_examples: int, num_seeds: int, seed_sd: float = SEED_SD
) -> list[np.ndarray]:
    """Train and test each way: for each, whether each seed's model labels each example rightly.

    Returns:
        For each way, an array of shape `(num_seeds, num_examples)`.
    """
    shared = math.sqrt(SHARED) * random.standard_normal(num_examples)
    measured = []
    for true in accuracy:
        of_seeds = np.clip(true + seed_sd * random.standard_normal(num_seeds), 0.01, 0.99)
        threshold = np.array([NORMAL.inv_cdf(each) for each in of_seeds])[:, None]
        of_way = math.sqrt(OF_WAY) * random.standard_normal(num_examples)
        own = math.sqrt(1 - SHARED - OF_WAY) * random.standard_normal((num_seeds, num_examples))
        measured.append((shared + of_way + own < threshold).astype(float))
    return measured


def this_rule(scores: Scores, usd: np.ndarray) -> int:
    """Take the cheapest way whose expected loss is within the tolerance."""
    losses = expected_losses(score_noise(scores, [True] * len(scores)))
    return min(admitted(losses), key=lambda way: usd[way])


def overlap_rule(scores: Scores, usd: np.ndarray) -> int:
    """Take the cheapest way whose interval overlaps that of the highest, as this project did before."""
    ends = [_former_interval(way) for way in scores]
    low = ends[_highest(scores)][0]
    return min((way for way, (_, high) in enumerate(ends) if high >= low), key=lambda way: usd[way])


def highest_rule(scores: Scores, usd: np.ndarray) -> int:
    """Take the highest measured."""
    return _highest(scores)


def one_standard_error_rule(scores: Scores, usd: np.ndarray) -> int:
    """Take the cheapest within one standard error of the highest (L. Breiman et al., CART (1984), section 3.4.3)."""
    highest = _highest(scores)
    estimate = estimate_score(scores[highest])
    bound = estimate.value - ((estimate.high or 0.0) - (estimate.low or 0.0)) / 2 / t_quantile(math.inf)
    return min((way for way, each in enumerate(scores) if each.mean() >= bound), key=lambda way: usd[way])


RULES: dict[str, Rule] = {
    "this": this_rule,
    "overlap": overlap_rule,
    "highest": highest_rule,
    "one SE": one_standard_error_rule,
}


def _highest(scores: Scores) -> int:
    return int(np.argmax([way.mean() for way in scores]))


def _former_interval(way: np.ndarray) -> tuple[float, float]:
    by_seed = way.mean(axis=1)
    over_examples = wilson_interval(float(by_seed.mean()), way.shape[1])
    examples = (over_examples.low or 0.0, over_examples.high or 1.0)
    if len(by_seed) == 1:
        return examples
    half = t_quantile(len(by_seed) - 1) * float(by_seed.std(ddof=1)) / math.sqrt(len(by_seed))
    seeds = (float(by_seed.mean()) - half, float(by_seed.mean()) + half)
    return seeds if len(by_seed) > 2 or seeds[1] - seeds[0] > examples[1] - examples[0] else examples


def simulate(
    num_ways: int,
    num_examples: int,
    num_seeds: int,
    spread: float,
    num_trials: int,
    *,
    dearer_is_better: bool = False,
) -> dict[str, tuple[float, float]]:
    """Return each rule's mean accuracy lost, and its mean cost over the oracle's."""
    random = np.random.default_rng([SEED, num_ways, num_examples, num_seeds, round(1e4 * spread)])
    outcomes: dict[str, list[tuple[float, float]]] = {name: [] for name in RULES}
    for _ in range(num_trials):
        world = draw_world(random, num_ways, spread, dearer_is_better=dearer_is_better)
        scores = measure(random, world.accuracy, num_examples, num_seeds)
        for name, rule in RULES.items():
            way = rule(scores, world.usd)
            lost = float(world.accuracy.max() - world.accuracy[way])
            outcomes[name].append((lost, float(world.usd[way] / world.oracle_usd)))
    return {name: tuple(np.mean(rows, axis=0)) for name, rows in outcomes.items()}


def main() -> None:
    """Print the table."""
    num_trials = int(sys.argv[1]) if len(sys.argv) > 1 else NUM_TRIALS
    print(f"Mean accuracy lost in points, and cost over the oracle's; {num_trials} trials a row, tolerance 1 point.\n")
    print("| ways | test examples | seeds | true spread | " + " | ".join(RULES) + " |")
    print("|---:|---:|---:|---|" + "---:|" * len(RULES))
    losses: dict[str, list[float]] = {name: [] for name in RULES}
    costs: dict[str, list[float]] = {name: [] for name in RULES}
    for num_ways in (2, 5, 10, 40):
        for num_examples in (300, 1000, 5000):
            for num_seeds in (1, 3, 5):
                for spread, dearer in ((0.0, False), (0.01, False), (0.03, False), (0.03, True)):
                    trials = num_trials if num_ways * num_examples * num_seeds < 400_000 else max(20, num_trials // 2)
                    row = simulate(num_ways, num_examples, num_seeds, spread, trials, dearer_is_better=dearer)
                    fields = [f"{100 * lost:.2f}, {usd:.2f}" for lost, usd in row.values()]
                    truth = f"{100 * spread:g}" + (", dearer is better" if dearer else "")
                    print(
                        f"| {num_ways} | {num_examples:,} | {num_seeds} | {truth} | {' | '.join(fields)} |", flush=True
                    )
                    for name, (lost, usd) in row.items():
                        losses[name].append(lost)
                        costs[name].append(usd)
    means = [f"{100 * np.mean(losses[name]):.2f}, {np.mean(costs[name]):.2f}" for name in RULES]
    worst = [f"{100 * max(losses[name]):.2f}, {max(costs[name]):.2f}" for name in RULES]
    print(f"| all | | | mean of the rows | {' | '.join(means)} |")
    print(f"| all | | | worst row | {' | '.join(worst)} |")


if __name__ == "__main__":
    main()
