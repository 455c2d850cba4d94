"""Measure false alarms and power of rankings of speed, and the coverage of intervals of seconds to a target.

Run: .venv/bin/python bench/bench_rankings.py     prints four tables (5 minutes); needs results/reference

Identical cells: the share of trials in which the best of them clearly beats another, which should be at most 5 %. Power: the
share in which one cell that is faster than all others, which are identical, is clear of each of them. Runs differ by 10 %,
which is also what cells with fewer than 3 runs are taken to do.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from harness.analysis.estimate import Estimate, t_quantile
from harness.analysis.log_ratio import FloatArray
from harness.analysis.ranking import Ranking, rank
from harness.analysis.serial_correlation import RunStart, correlation_matrix, run_start, variance_of_mean
from harness.analysis.significance import SIGNIFICANCE_LEVEL, welch_log_ratio
from harness.analysis.throughput import measure_windows, throughput
from harness.analysis.time_to_target import TargetRun, seconds_per_success
from harness.store.record_files import load_records

REFERENCE = Path("results/reference/amd-epyc-2c-24g-dbbbf2/coverage")
SEED, NUM_TRIALS, SPREAD = 20261127, 1000, 0.1
FASTER = (1.1, 1.2, 1.3, 1.5, 2.0)


def estimate(logs: FloatArray) -> Estimate:
    """Return the mean of independent runs with its interval, as a report has it without noise within the runs."""
    num_runs = len(logs)
    variance, degrees_of_freedom = SPREAD**2 / num_runs, math.inf
    if num_runs > 2:
        variance, degrees_of_freedom = variance_of_mean(logs, np.eye(num_runs))
    factor = math.exp(t_quantile(degrees_of_freedom) * math.sqrt(variance))
    value = float(np.exp(logs).mean())
    return Estimate(value, value / factor, value * factor, "", degrees_of_freedom)


def best_is_clear(ranking: Ranking) -> bool:
    """Return whether the best clearly beats any other."""
    return any(better == ranking.first for better, _ in ranking.clear)


def identical_and_faster() -> Iterator[str]:
    """Yield the rows of false alarms and power."""
    yield (
        "| cells | runs each | false alarms | the same, heavy tails | "
        + " | ".join(f"{f:g} times" for f in FASTER)
        + " |"
    )
    yield "|---:|---:|" + "---:|" * (2 + len(FASTER))
    for num_cells in (2, 3, 4, 10):
        for num_runs in (1, 2, 3, 5, 10):
            rng = np.random.default_rng(SEED)
            shape = NUM_TRIALS, num_cells, num_runs
            normal, tailed = rng.standard_normal(shape), rng.standard_t(3, shape) / math.sqrt(3)
            alarms = [
                np.mean(
                    [best_is_clear(rank([estimate(logs) for logs in cells], most=True)) for cells in SPREAD * draws]
                )
                for draws in (normal, tailed)
            ]
            found = []
            for faster in FASTER:
                draws = SPREAD * normal[:200]
                draws[:, 0] += math.log(faster)
                rankings = [rank([estimate(logs) for logs in cells], most=True) for cells in draws]
                found.append(np.mean([ranking.first == 0 and not ranking.level for ranking in rankings]))
            yield (
                f"| {num_cells} | {num_runs} | "
                + " | ".join(f"{share:.1%}" for share in alarms)
                + " | "
                + " | ".join(f"{share:.0%}" for share in found)
                + " |"
            )


def reference_runs() -> Iterator[str]:
    """Yield the rows of identical reference runs: single ones, and blocks of consecutive ones."""
    yield "| cell | runs each | pairs that are clear | the best of ten clearly beats another |"
    yield "|---|---:|---:|---:|"
    records = sorted(load_records([REFERENCE]).records, key=lambda record: record.started_at)
    for size in ("b16-", "b8-"):
        runs = [record for record in records if record.cell.startswith(size)]
        for num_runs in (1, 3, 5):
            blocks = [runs[first : first + num_runs] for first in range(0, len(runs) - num_runs + 1, num_runs)]
            estimates = [
                throughput(measure_windows([run.training for run in block]), [run_start(run) for run in block])
                for block in blocks
            ]
            pairs = list(combinations(estimates, 2))
            clear = sum(bool(rank(pair).clear) for pair in pairs) / len(pairs)
            rng = random.Random(SEED)
            draws = [rng.sample(estimates, min(10, len(estimates))) for _ in range(500)]
            best = sum(best_is_clear(rank(draw, most=True)) for draw in draws) / len(draws)
            yield f"| `{runs[0].cell}` | {num_runs} | {clear:.1%} | {best:.1%} |"


def drifting_sides() -> Iterator[str]:
    """Yield the rows of `compare`: two sides on a machine that drifts as the reference machine does."""
    yield "| runs a side | runs every | sides | Welch's false alarms | corrected | power at 1.2 times | at 1.4 times |"
    yield "|---:|---:|---|---:|---:|---:|---:|"
    for num_runs in (3, 5, 10):
        for apart_s, gap_s in ((34.0, 3600.0), (120.0, 3600.0), (34.0, 17.0)):
            first = np.arange(num_runs) * apart_s
            matrix = correlation_matrix([RunStart("a", at_s) for at_s in (*first, *(first + gap_s))])
            rng = np.random.default_rng(SEED)
            draws = 0.08 * rng.standard_normal((NUM_TRIALS, 2 * num_runs)) @ np.linalg.cholesky(matrix).T
            shares = [share_of_alarms(draws, num_runs, None), share_of_alarms(draws, num_runs, matrix)]
            for faster in (1.2, 1.4):
                shifted = draws[:300].copy()
                shifted[:, num_runs:] += math.log(faster)
                shares.append(share_of_alarms(shifted, num_runs, matrix))
            sides = "two sweeps, an hour apart" if gap_s > apart_s else "one sweep, in turns"
            yield f"| {num_runs} | {apart_s:g} s | {sides} | " + " | ".join(f"{share:.1%}" for share in shares) + " |"


def share_of_alarms(draws: FloatArray, num_runs: int, matrix: FloatArray | None) -> float:
    """Return the share of trials in which two sides differ significantly."""
    ratios = [welch_log_ratio(list(logs[:num_runs]), list(logs[num_runs:]), correlation=matrix) for logs in draws]
    return float(np.mean([(ratio.p_value() or 0.0) < SIGNIFICANCE_LEVEL for ratio in ratios]))


def target_runs(rng: np.random.Generator, share: float, between_seeds: float, num_runs: int) -> list[TargetRun]:
    """Draw runs of a second of training and ten validations, of which this share reaches the target.

    Args:
        rng: Random numbers.
        share: Probability that a run reaches the target.
        between_seeds: Standard deviation of the logarithm of the training seconds that a run needs.
        num_runs: Number of runs.
    """
    from scipy import special

    quantile = 6.0 if share == 1 else float(special.ndtri(share))
    needed_s = np.exp(between_seeds * (rng.standard_normal(num_runs) - quantile))
    speeds = np.exp(SPREAD * rng.standard_normal(num_runs))
    return [
        TargetRun(
            0.05 + min(math.ceil(10 * needed) / 10, 1.0) * slow,
            0.05 + 0.1 * slow,
            0.05 + slow,
            bool(needed <= 1),
            False,
        )
        for needed, slow in zip(needed_s, speeds, strict=True)
    ]


def to_target() -> Iterator[str]:
    """Yield the rows of seconds to a target."""
    runs = (2, 3, 5, 10)
    yield "| share that reaches it | between seeds | " + " | ".join(f"{num} runs" for num in runs) + " |"
    yield "|---:|---:|" + "---:|" * len(runs)
    for between_seeds in (0.15, 0.5):
        for share in (0.2, 0.4, 0.6, 0.8, 0.9, 1.0):
            rng, cells = np.random.default_rng(SEED), []
            many = target_runs(rng, share, between_seeds, 100_000)
            truth = sum(run.spent_s for run in many) / sum(run.is_reached for run in many)
            for num_runs in runs:
                drawn = (
                    seconds_per_success(target_runs(rng, share, between_seeds, num_runs), None) for _ in range(1000)
                )
                shown = [found for found in drawn if found is not None]
                covered = np.mean([found.low <= truth <= found.high for found in shown])
                cells.append(f"{covered:.1%}, {np.median([found.high / found.low for found in shown]):.1f}")
            yield f"| {share:g} | {between_seeds:.0%} | " + " | ".join(cells) + " |"


def print_table(title: str, rows: Sequence[str]) -> None:
    """Print a table under its title."""
    print(f"{title}\n\n" + "\n".join(rows) + "\n")


if __name__ == "__main__":
    print_table("Identical cells, and one that is faster than all others by a factor", list(identical_and_faster()))
    print_table("Identical reference runs", list(reference_runs()))
    print_table("Two sides on a drifting machine", list(drifting_sides()))
    print_table("Seconds to a target: coverage, and median high end over low end", list(to_target()))
