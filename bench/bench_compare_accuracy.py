"""Simulate how often `harness compare` calls a recipe better or worse than itself, and how often it finds a difference.

Run: .venv/bin/python bench/bench_compare_accuracy.py          a minute: 2,000 trials drawn over the whole range
     .venv/bin/python bench/bench_compare_accuracy.py table    prints results/reference/compare-accuracy.md: 15 minutes of a core

Each trial makes records of a recipe's seeds on both sides, numbers the seeds anew from 0, and compares them by the
functions that the command calls (`summarize`, `price`, `pair_cells`, `compare`). Answers are drawn as in bench_choice.py,
around a true accuracy of 0.8; `spread` is the standard deviation of the seeds' true accuracies.
"""

from __future__ import annotations

import functools
import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests.make_records

from bench_choice import measure

from harness.analysis.summarize import summarize
from harness.decision.compare import compare
from harness.decision.measure_next import MAX_SEEDS
from harness.decision.metric_verdict import CANNOT_TELL, NO_DIFFERENCE, MetricVerdict
from harness.decision.pairing import pair_cells
from harness.errors import Unavailable
from harness.pricing.cost import Priced, price
from harness.schema.record import Record
from harness.schema.training_record import TestEvaluation
from tests.make_records import make_record

SEED = 20261204
ACCURACY = 0.8
SPREADS, MORE_SPREADS = (0.0, 0.005, 0.01, 0.02), (0.03, 0.05)
SEEDS, MORE_SEEDS = ((2, 2), (2, 3), (3, 3), (5, 5), (2, 10), (10, 10)), ((1, 1), (1, 5))
NUM_EXAMPLES = (300, 1000, 5000)
DIFFERENCES = (0.01, 0.02, 0.03)
FALSE_ALARMS = ("better", "worse")
_MAX_FOLLOWED = 20_000  # test examples of a plan that is followed

_RECORD = make_record(training={"seconds": [1.0] * 12})


@functools.cache
def _labels(num_examples: int) -> tuple[int, ...]:
    return tuple(index % 2 for index in range(num_examples))


def make_run(correct: np.ndarray, seed: int) -> Record:
    """Make a run that answers these test examples correctly; unchecked, since checking takes longer than comparing."""
    labels = _labels(len(correct))
    predictions = np.where(correct > 0, labels, 1 - np.array(labels))
    test = TestEvaluation.model_construct(
        evaluate_s=1.0, labels=labels, predictions=tuple(predictions.tolist()), probabilities=()
    )
    return _RECORD.model_copy(
        update={
            "config": _RECORD.config.model_copy(update={"seed": seed}),
            "training": _RECORD.training.model_copy(update={"test": test}),
        }
    )


def make_side(scores: np.ndarray) -> list[Priced]:
    """Summarize and price a side's runs, whose seeds are numbered from 0."""
    runs = [make_run(correct, seed) for seed, correct in enumerate(scores)]
    return price(summarize(runs), lambda _: Unavailable("no price is needed"))


def judge(a: np.ndarray, b: np.ndarray) -> MetricVerdict:
    """Compare two sides' answers, shape `(num_seeds, num_examples)`, as the command does."""
    (cell,) = compare(pair_cells(make_side(a), make_side(b))).cells
    return cell.figures["accuracy"]


def run_trial(
    random: np.random.Generator, num_seeds: tuple[int, int], num_examples: int, spread: float, difference: float = 0.0
) -> str:
    """Return the verdict on two sides, B's true accuracy being higher by `difference`; without one, on one recipe."""
    if difference == 0:
        (scores,) = measure(random, np.array([ACCURACY]), num_examples, sum(num_seeds), spread)
        return judge(scores[: num_seeds[0]], scores[num_seeds[0] :]).verdict
    true = np.array([ACCURACY, ACCURACY + difference])
    a, b = measure(random, true, num_examples, max(num_seeds), spread)
    return judge(a[: num_seeds[0]], b[: num_seeds[1]]).verdict


def draw_trials(num_trials: int, seed: int = SEED) -> Counter[str]:
    """Count verdicts on one recipe over the whole range: spread, seeds a side, and test examples are drawn anew."""
    random = np.random.default_rng(seed)
    verdicts: Counter[str] = Counter()
    for _ in range(num_trials):
        num_seeds = int(random.integers(2, 11)), int(random.integers(2, 11))
        num_examples = round(math.exp(random.uniform(math.log(300), math.log(5000))))
        verdicts[run_trial(random, num_seeds, num_examples, random.uniform(0, 0.02))] += 1
    return verdicts


def count_row(
    num_trials: int, num_seeds: tuple[int, int], num_examples: int, spread: float, difference: float = 0.0
) -> Counter[str]:
    """Count the verdicts of a row's trials; half as many with 5,000 examples."""
    random = np.random.default_rng([SEED, *num_seeds, num_examples, round(1e4 * spread), round(1e4 * difference)])
    trials = num_trials if num_examples <= 1000 else num_trials // 2
    return Counter(run_trial(random, num_seeds, num_examples, spread, difference) for _ in range(trials))


def share(verdicts: Counter[str], names: Sequence[str]) -> float:
    """Return the percentage of trials with any of these verdicts."""
    return 100 * sum(verdicts[name] for name in names) / verdicts.total()


def print_false_alarms(num_trials: int) -> None:
    """Print how often one recipe is called better or worse than itself."""
    print("One recipe against itself: percentage of trials with `better` or `worse`\n")
    print("| spread, points | seeds | " + " | ".join(f"{count:,} examples" for count in NUM_EXAMPLES) + " |")
    print("|---:|---|" + "---:|" * len(NUM_EXAMPLES))
    rates = []
    for spread in (*SPREADS, *MORE_SPREADS):
        for num_seeds in (*SEEDS, *MORE_SEEDS):
            trials = num_trials if spread == SPREADS[-1] else num_trials // 3  # where the rate is highest
            rows = [count_row(trials, num_seeds, count, spread) for count in NUM_EXAMPLES]
            row = [f"{share(verdicts, FALSE_ALARMS):.1f}" for verdicts in rows]
            print(f"| {100 * spread:g} | {num_seeds[0]} and {num_seeds[1]} | {' | '.join(row)} |", flush=True)
            if spread in SPREADS and num_seeds in SEEDS:
                rates += [share(verdicts, FALSE_ALARMS) for verdicts in rows]
    print(f"\nUp to 2 points and from two seeds a side: mean {np.mean(rates):.1f} %, highest {max(rates):.1f} %.\n")


def print_power(num_trials: int) -> None:
    """Print how often a true difference is found; in brackets how often the wrong side is called better."""
    print(
        "| difference, points | spread, points | seeds | " + " | ".join(f"{n:,} examples" for n in NUM_EXAMPLES) + " |"
    )
    print("|---:|---:|---|" + "---:|" * len(NUM_EXAMPLES))
    for difference in (0.0, *DIFFERENCES):
        for spread in SPREADS[1:]:
            for num_seeds in ((2, 2), (3, 3), (5, 5), (10, 10)):
                rows = [count_row(num_trials, num_seeds, count, spread, difference) for count in NUM_EXAMPLES]
                found = NO_DIFFERENCE if difference == 0 else "better"
                row = [f"{share(each, [found]):.0f} ({share(each, ['worse']):.1f})" for each in rows]
                if difference == 0:
                    row = [f"{share(each, [found]):.0f}, {share(each, [CANNOT_TELL]):.0f}" for each in rows]
                fields = f"{100 * difference:g} | {100 * spread:g} | {num_seeds[0]} and {num_seeds[1]}"
                print(f"| {fields} | {' | '.join(row)} |", flush=True)


def follow_plan(random: np.random.Generator, num_seeds: int, spread: float, difference: float) -> tuple[str, str]:
    """Return the verdict with 1,000 examples, and the one after what it asked for was measured.

    More seeds are added to the first ones; a larger test set is drawn anew, with its seeds. Without a plan, or with one
    that asks for more than `_MAX_FOLLOWED` examples, the verdict stays.
    """
    true = np.array([ACCURACY, ACCURACY + difference])
    a, b = measure(random, true, 1000, MAX_SEEDS, spread)
    first = judge(a[:num_seeds], b[:num_seeds])
    plan = first.would_decide
    if first.verdict != CANNOT_TELL or plan is None or (plan.num_test or 0) > _MAX_FOLLOWED:
        return first.verdict, first.verdict
    if plan.num_test is not None:
        a, b = measure(random, true, plan.num_test, plan.num_seeds, spread)
    return first.verdict, judge(a[: plan.num_seeds], b[: plan.num_seeds]).verdict


def print_plans(num_trials: int) -> None:
    """Print how many trials are decided after they followed once what the verdict asked for."""
    print(
        "| difference, points | spread, points | seeds | decided at first | decided after one plan | of these, wrongly |"
    )
    print("|---:|---:|---:|---:|---:|---:|")
    for difference in (0.0, *DIFFERENCES):
        for spread in (0.005, 0.01):
            for num_seeds in (2, 3):
                random = np.random.default_rng([SEED, num_seeds, round(1e4 * spread), round(1e4 * difference)])
                trials = [follow_plan(random, num_seeds, spread, difference) for _ in range(num_trials)]
                before, after = (sum(pair[index] != CANNOT_TELL for pair in trials) for index in (0, 1))
                # Within the margin of a point, `no difference` is right up to 1 point, and only there.
                wrong = {0.0: ("better", "worse"), 0.01: ("worse",)}.get(difference, ("worse", NO_DIFFERENCE))
                errors = sum(last in wrong for _, last in trials)
                fields = (100 * difference, 100 * spread, num_seeds, before, after, errors)
                row = [f"{field:g}" for field in fields[:3]] + [
                    f"{100 * field / num_trials:.0f} %" for field in fields[3:]
                ]
                print(f"| {' | '.join(row)} |", flush=True)


def main() -> None:
    """Print the counts over the whole range, or the tables."""
    if "table" not in sys.argv[1:]:
        verdicts = draw_trials(2000)
        rate = share(verdicts, FALSE_ALARMS)
        print(f"{verdicts.total():,} trials of one recipe against itself: {dict(verdicts)}; false alarms {rate:.1f} %")
        return
    print_false_alarms(1000)
    print_power(200)
    print_plans(100)


if __name__ == "__main__":
    main()
