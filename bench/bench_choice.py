"""Simulate the choice among measured ways: accuracy lost and dollars paid, against an oracle that knows the truth.

Run: .venv/bin/python bench/bench_choice.py rules [TRIALS]   prints results/reference/choice.md (60 trials a row: 15 minutes)
     .venv/bin/python bench/bench_choice.py looks [TRIALS]   prints results/reference/looks.md (300 trials a row: 10 minutes)

A trial draws true accuracies and costs of 2 to 40 ways, trains each with 1 to 5 seeds and tests all on the same 300 to
5,000 examples. Answers come from a latent difficulty that ways and seeds share, so that two models of equal accuracy
disagree on about one example in eight, as those of results/reference do. The oracle takes the cheapest of the ways
that truly lose at most the tolerance. The rules are this project's; its former one (the cheapest whose interval overlaps
that of the highest, Student's t between three or more seeds); the highest measured; and the one-standard-error rule (the
cheapest within one standard error of the highest).

`looks` follows "what to measure next" up to five times, as a user would who stops at the first verdict `use`. A `use` is
false if the chosen way truly loses more than twice the tolerance, or is truly no better than the majority class.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from harness.analysis.accuracy import estimate_score, score_noise
from harness.analysis.estimate import Estimate, t_quantile, wilson_interval
from harness.analysis.expected_loss import DEFAULT_TOLERANCE, admitted, expected_losses
from harness.decision.choice import compare_ways
from harness.decision.verdict import SERIOUS_LOSS, judge
from harness.decision.ways import Way, noise_of
from harness.schema.assumptions import Assumptions

SEED = 20261130
MEAN_ACCURACY = 0.80
SEED_SD = 0.01  # standard deviation of a seed's true accuracy
SHARED = 0.7  # share of the latent variance that all models share: the difficulty of an example
OF_WAY = 0.1  # share that the seeds of one way share
COST_SD = 0.5  # standard deviation of the logarithm of a way's cost
MAX_SEEDS, MAX_EXAMPLES, NUM_LOOKS = 10, 20_000, 5
MAJORITY = 0.6
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


def draw_world(random: np.random.Generator, num_ways: int, spread: float, *, better_costs_more: bool = False) -> World:
    """Draw true accuracies with a standard deviation of `spread`, and costs; sorted alike if `better_costs_more`."""
    accuracy = MEAN_ACCURACY + spread * random.standard_normal(num_ways)
    usd = np.exp(COST_SD * random.standard_normal(num_ways))
    return World(np.sort(accuracy), np.sort(usd)) if better_costs_more else World(accuracy, usd)


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
    better_costs_more: bool = False,
) -> dict[str, tuple[float, float]]:
    """Return each rule's mean accuracy lost, and its mean cost over the oracle's."""
    random = np.random.default_rng([SEED, num_ways, num_examples, num_seeds, round(1e4 * spread)])
    outcomes: dict[str, list[tuple[float, float]]] = {name: [] for name in RULES}
    for _ in range(num_trials):
        world = draw_world(random, num_ways, spread, better_costs_more=better_costs_more)
        scores = measure(random, world.accuracy, num_examples, num_seeds)
        for name, rule in RULES.items():
            way = rule(scores, world.usd)
            lost = float(world.accuracy.max() - world.accuracy[way])
            outcomes[name].append((lost, float(world.usd[way] / world.oracle_usd)))
    return {name: tuple(np.mean(rows, axis=0)) for name, rows in outcomes.items()}


@dataclass
class Laboratory:
    """Ways whose answers are drawn once, and of which more seeds and test examples can be looked at.

    Attributes:
        accuracy: True accuracy of each recipe, shape `(num_ways,)`.
        of_seeds: True accuracy of each trained model, shape `(num_ways, MAX_SEEDS)`.
        answers: For each way, right answers of each seed, shape `(MAX_SEEDS, MAX_EXAMPLES)`.
        usd: Cost of each way.
        num_seeds: Seeds looked at so far, by way.
        num_examples: Test examples looked at so far.
    """

    accuracy: np.ndarray
    of_seeds: np.ndarray
    answers: list[np.ndarray]
    usd: np.ndarray
    num_seeds: list[int]
    num_examples: int

    def ways(self) -> list[Way]:
        """Return the ways as measured so far, with a majority class."""
        ways = []
        for answers, usd, num_seeds in zip(self.answers, self.usd, self.num_seeds, strict=True):
            scores = answers[:num_seeds, : self.num_examples]
            ways.append(Way("fine_tune", None, estimate_score(scores), scores, Estimate(usd, None, None, ""), 1.0))
        majority = (np.arange(self.num_examples) % 10 < 10 * MAJORITY).astype(float)[None]
        return [*ways, Way("majority", None, estimate_score(majority), majority, Estimate(0.0, None, None, ""), 0.0)]


def open_laboratory(
    random: np.random.Generator, num_ways: int, spread: float, mean: float, seed_sd: float, start: tuple[int, int]
) -> Laboratory:
    """Draw ways and all their answers; `start` has the seeds and the test examples of the first look."""
    accuracy = mean + spread * random.standard_normal(num_ways)
    of_seeds = np.clip(accuracy[:, None] + seed_sd * random.standard_normal((num_ways, MAX_SEEDS)), 0.01, 0.99)
    shared = math.sqrt(SHARED) * random.standard_normal(MAX_EXAMPLES)
    answers = []
    for seeds in of_seeds:
        threshold = np.array([NORMAL.inv_cdf(each) for each in seeds])[:, None]
        of_way = math.sqrt(OF_WAY) * random.standard_normal(MAX_EXAMPLES)
        own = math.sqrt(1 - SHARED - OF_WAY) * random.standard_normal((MAX_SEEDS, MAX_EXAMPLES))
        answers.append((shared + of_way + own < threshold).astype(np.float32))
    usd = np.exp(COST_SD * random.standard_normal(num_ways))
    return Laboratory(accuracy, of_seeds, answers, usd, [start[0]] * num_ways, start[1])


def look(laboratory: Laboratory) -> tuple[str, int, bool]:
    """Return the verdict, the chosen way, and whether it is about recipes; then measure what is to be measured next.

    The baselines count as measured: they are no matter of chance.
    """
    ways = compare_ways(laboratory.ways())
    losses = [way.loss for way in ways if way.loss is not None]
    way = min((ways[index] for index in admitted(losses)), key=lambda each: each.usd.value)
    best = max(ways, key=lambda each: each.score.value)
    baselines = [replace(best, kind=kind) for kind in ("tfidf", "features")]
    verdict = judge(way, best, ways, [*ways, *baselines], DEFAULT_TOLERANCE, None, Assumptions())
    chosen = next(index for index, each in enumerate(ways) if each is way)
    others = [index for index, each in enumerate(ways) if each is not way and each.kind == "fine_tune"]
    rival = min(others, key=lambda index: ways[index].loss.mean)
    is_of_recipes = noise_of(ways).is_of_recipes
    for step in verdict.measure_next:
        for index in {chosen, rival} if way.kind == "fine_tune" else ():
            laboratory.num_seeds[index] = min(MAX_SEEDS, max(laboratory.num_seeds[index], step.num_seeds or 1))
        laboratory.num_examples = min(MAX_EXAMPLES, max(laboratory.num_examples, step.num_test or 0))
    return verdict.kind, chosen, is_of_recipes


def follow(laboratory: Laboratory) -> tuple[int | None, bool]:
    """Look up to five times; return the number of the look that said `use` (None if none did), and whether it was false."""
    for number in range(1, NUM_LOOKS + 1):
        kind, chosen, is_of_recipes = look(laboratory)
        if kind == "use":
            # One seed of each way is judged as what it is: these trained models.
            truth = laboratory.accuracy if is_of_recipes else laboratory.of_seeds[:, 0]
            is_false = truth.max() - truth[chosen] > SERIOUS_LOSS * DEFAULT_TOLERANCE or truth[chosen] <= MAJORITY
            return number, bool(is_false)
    return None, False


def print_looks(num_trials: int) -> None:
    """Print the table of false verdicts `use` after up to five looks."""
    print(f"Up to five looks, {num_trials} trials a row; the majority class has {100 * MAJORITY:g} %.\n")
    print(
        "| ways | first look: test examples, seeds | true mean | true spread | seed spread | `use` | false `use` | looks until `use`, mean |"
    )
    print("|---:|---|---:|---:|---:|---:|---:|---:|")
    totals = [0, 0, 0]
    for num_ways, start in ((3, (1, 300)), (3, (1, 1000)), (8, (1, 300)), (8, (1, 1000)), (8, (3, 1000))):
        for mean, spread, seed_sd in (
            *((0.80, 0.0, 0.01), (0.80, 0.01, 0.01), (0.80, 0.02, 0.01), (0.80, 0.03, 0.02)),
            *((MAJORITY - 0.02, 0.0, 0.01), (MAJORITY, 0.0, 0.0)),
        ):
            random = np.random.default_rng([SEED, num_ways, start[1], start[0], round(1e4 * spread), round(1e4 * mean)])
            outcomes = [
                follow(open_laboratory(random, num_ways, spread, mean, seed_sd, start)) for _ in range(num_trials)
            ]
            used = [number for number, _ in outcomes if number is not None]
            num_false = sum(is_false for _, is_false in outcomes)
            looks = f"{np.mean(used):.1f}" if used else "-"
            print(
                f"| {num_ways} | {start[1]:,}, {start[0]} | {100 * mean:g} | {100 * spread:g} | {100 * seed_sd:g} | "
                f"{100 * len(used) / num_trials:.0f} % | {100 * num_false / num_trials:.1f} % | {looks} |",
                flush=True,
            )
            totals = [totals[0] + num_trials, totals[1] + len(used), totals[2] + num_false]
    print(f"| all | | | | | {100 * totals[1] / totals[0]:.0f} % | {100 * totals[2] / totals[0]:.1f} % | |")


def print_rules(num_trials: int) -> None:
    """Print the table of the rules."""
    print(f"Mean accuracy lost in points, and cost over the oracle's; {num_trials} trials a row, tolerance 1 point.\n")
    print("| ways | test examples | seeds | true spread | " + " | ".join(RULES) + " |")
    print("|---:|---:|---:|---|" + "---:|" * len(RULES))
    losses: dict[str, list[float]] = {name: [] for name in RULES}
    costs: dict[str, list[float]] = {name: [] for name in RULES}
    for num_ways in (2, 5, 10, 40):
        for num_examples in (300, 1000, 5000):
            for num_seeds in (1, 3, 5):
                for spread, better_costs_more in ((0.0, False), (0.01, False), (0.03, False), (0.03, True)):
                    trials = num_trials if num_ways * num_examples * num_seeds < 400_000 else max(20, num_trials // 2)
                    row = simulate(
                        num_ways, num_examples, num_seeds, spread, trials, better_costs_more=better_costs_more
                    )
                    fields = [f"{100 * lost:.2f}, {usd:.2f}" for lost, usd in row.values()]
                    truth = f"{100 * spread:g}" + (", better costs more" if better_costs_more else "")
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


def main() -> None:
    """Print the table that the arguments name."""
    what = sys.argv[1] if len(sys.argv) > 1 else "rules"
    num_trials = int(sys.argv[2]) if len(sys.argv) > 2 else {"rules": 60, "looks": 300}[what]
    {"rules": print_rules, "looks": print_looks}[what](num_trials)


if __name__ == "__main__":
    main()
