"""Check the coverage of throughput intervals on consecutive runs of reference cells, and on simulated machines.

Run: .venv/bin/python -m harness run bench/coverage.toml     (two interleaved cells, 50 runs each; 25 minutes on two cores)
     .venv/bin/python bench/bench_coverage.py [FOLDER ...]   prints a table of the records there (default: results/)
     .venv/bin/python bench/bench_coverage.py simulate       prints a table of simulated machines (2 minutes)

A study measures a cell's repeats one after another, so coverage is judged by blocks of consecutive runs: the share of all such
blocks whose interval covers the mean of the other runs. Blocks drawn at random from hours would hide that neighbours are
alike. `Student's t` takes the runs of a block as independent. One run has the interval of its steps and of the spread
between runs, assumed or measured over the other runs. Each block is evaluated as in a report, with the warm-up estimate from
its own steps.

Simulated runs follow each other every 34 s, as the reference runs do, or every 5 minutes. The oracle knows the correlation of
the runs and otherwise does the same.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import log, sqrt
from pathlib import Path
from statistics import correlation, fmean, median, stdev

import numpy as np

from harness.analysis.estimate import Estimate, t_quantile
from harness.analysis.log_ratio import FloatArray
from harness.analysis.noise import other_processes_fraction
from harness.analysis.run_spread import RunSpeed, RunSpread, measured_spread, stated_spread
from harness.analysis.serial_correlation import RunStart, correlation_matrix, run_start, variance_of_mean
from harness.analysis.throughput import ThroughputWindow, measure_windows, throughput
from harness.report.labels import hardware
from harness.schema.cells import hash_config
from harness.schema.record import Record
from harness.store.record_files import load_records

MIN_RUNS, BLOCKS = 20, (3, 5, 10)
SEED, NUM_TRIALS = 20261127, 4000
HEAD = (
    "| cell | runs | samples/s | spread between runs | runs in a block | Student's t covers | interval covers |"
    " its half-width, median |"
)
SIMULATED_HEAD = "| machine | " + " | ".join(f"{num} runs" for num in BLOCKS) + " |"


def windows_of(records: Sequence[Record]) -> list[ThroughputWindow]:
    """Return the measured steps of some runs, as in a report."""
    return measure_windows([record.training for record in records])


def rate(records: Sequence[Record]) -> float:
    """Return the mean samples per second of some runs."""
    return fmean(window.samples_per_s for window in windows_of(records))


def judge(records: Sequence[Record], num_runs: int, estimate: Callable[[Sequence[Record]], Estimate]):
    """Return the numbers of blocks covered and of blocks, and the median relative half-width."""
    num_covered, half_widths = 0, []
    firsts = range(len(records) - num_runs + 1)
    for first in firsts:
        interval = estimate(records[first : first + num_runs])
        others = rate([*records[:first], *records[first + num_runs :]])
        num_covered += interval.low <= others <= interval.high
        half_widths.append((interval.high - interval.low) / 2 / interval.value)
    return num_covered, len(firsts), median(half_widths)


def own_spread(records: Sequence[Record]) -> RunSpread:
    """Return the spread between these runs of one cell."""
    speeds = [
        RunSpeed(run_start(record), log(window.samples_per_s))
        for record, window in zip(records, windows_of(records), strict=True)
    ]
    return measured_spread([speeds])


def describe(records: Sequence[Record]) -> Iterator[str]:
    """Yield the rows of one cell."""
    rates = [window.samples_per_s for window in windows_of(records)]
    first = [f"`{records[0].cell}`", str(len(records)), f"{fmean(rates):.1f}", f"{stdev(rates) / fmean(rates):.1%}"]
    blank = [""] * len(first)
    for num_runs in BLOCKS:
        naive, num_blocks, _ = judge(records, num_runs, lambda block: throughput(windows_of(block)))
        covered, _, half = judge(
            records, num_runs, lambda block: throughput(windows_of(block), [run_start(run) for run in block])
        )
        shares = f"{naive / num_blocks:.0%}", f"{covered / num_blocks:.0%}"
        yield (
            "| "
            + " | ".join([*(first if num_runs == BLOCKS[0] else blank), str(num_runs), *shares, f"{half:.1%}"])
            + " |"
        )
    spreads = {"own steps": stated_spread(0.0), "10 % assumed": None, "spread of the 50 runs": own_spread(records)}
    for name, spread in spreads.items():
        covered, num_blocks, half = judge(
            records, 1, lambda block, spread=spread: throughput(windows_of(block), None, spread)
        )
        yield "| " + " | ".join([*blank, f"1, {name}", "-", f"{covered / num_blocks:.0%}", f"{half:.1%}"]) + " |"


def shared_drift(groups: Sequence[Sequence[Record]]) -> float:
    """Return the correlation of consecutive runs of different cells, by their speed relative to their cell's median."""
    relative_speeds = []
    for records in groups:
        rates = [window.samples_per_s for window in windows_of(records)]
        relative_speeds += [
            (record.started_at, record.cell, log(rate / median(rates)))
            for record, rate in zip(records, rates, strict=True)
        ]
    relative_speeds.sort()
    pairs = [(before[2], after[2]) for before, after in pairwise(relative_speeds) if before[1] != after[1]]
    return correlation(*zip(*pairs, strict=True))


def runs_by_cell(folders: Sequence[Path]) -> dict[tuple[str, str], list[Record]]:
    """Return the runs of each cell that has enough of them, in the order in which they ran."""
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in load_records(folders).records:
        if record.outcome == "ok" and record.training is not None and record.training.steps.num_samples:
            groups[record.machine.id, hash_config(record.config)].append(record)
    return {
        key: sorted(records, key=lambda record: record.started_at)
        for key, records in groups.items()
        if len(records) >= MIN_RUNS
    }


def coverage_table(folders: Sequence[Path]) -> list[str]:
    """Return the lines of the table of records."""
    rule = "|---|" + "---:|" * (HEAD.count("|") - 2)
    return [HEAD, rule, *(line for records in runs_by_cell(folders).values() for line in describe(records))]


def print_records(folders: Sequence[Path]) -> None:
    """Print the table of records, with the machine and versions."""
    groups = runs_by_cell(folders)
    if not groups:
        sys.exit(f"No cell has {MIN_RUNS} runs there: run bench/coverage.toml first.")
    print("\n".join(coverage_table(folders)) + "\n")
    by_machine = defaultdict(list)
    for (machine, _), records in groups.items():
        by_machine[machine].append(records)
    for cells in by_machine.values():
        if len(cells) > 1:
            print(f"Consecutive runs of different cells: correlation of their speeds {shared_drift(cells):.2f}.\n")
    for record in {records[0].machine.id: records[0] for records in groups.values()}.values():
        versions = ", ".join(
            f"{name} {record.packages[name]}" for name in ("torch", "transformers") if name in record.packages
        )
        commit = f", measured at commit {record.git.commit[:7]}" if record.git else ""
        others = median(other_processes_fraction(run) for records in groups.values() for run in records)
        print(
            f"{hardware(record.machine)}, {record.machine.system}, Python {record.machine.python}, {versions}{commit}; "
            f"other processes' CPU {others:.1%} (median)."
        )


Draw = Callable[[np.random.Generator, int], FloatArray]


def autoregressive(rho: float) -> tuple[Draw, Callable[[int], FloatArray]]:
    """Return a first-order autoregressive process, and its correlation matrix."""

    def draw(random: np.random.Generator, num_runs: int) -> FloatArray:
        values = random.standard_normal((NUM_TRIALS, num_runs))
        for index in range(1, num_runs):
            values[:, index] = rho * values[:, index - 1] + sqrt(1 - rho**2) * values[:, index]
        return values

    return draw, lambda num_runs: rho ** np.abs(np.subtract.outer(np.arange(num_runs), np.arange(num_runs)))


def two_speeds(stretch: float, noise: float) -> tuple[Draw, Callable[[int], FloatArray]]:
    """Return a machine that changes between two speeds, and the correlation matrix of its runs.

    Args:
        stretch: Mean number of runs at one speed.
        noise: Standard deviation of a run's own noise, in half the distance of the two speeds.
    """

    def draw(random: np.random.Generator, num_runs: int) -> FloatArray:
        level = random.integers(0, 2, NUM_TRIALS)
        values = np.empty((NUM_TRIALS, num_runs))
        for index in range(num_runs):
            values[:, index] = 2.0 * level - 1 + noise * random.standard_normal(NUM_TRIALS)
            level = np.where(random.random(NUM_TRIALS) < 1 / stretch, 1 - level, level)
        return values

    def matrix(num_runs: int) -> FloatArray:
        correlations = autoregressive(1 - 2 / stretch)[1](num_runs) / (1 + noise**2)
        np.fill_diagonal(correlations, 1.0)
        return correlations

    return draw, matrix


def heavy_tails(random: np.random.Generator, num_runs: int) -> FloatArray:
    """Return independent runs of Student's t with 3 degrees of freedom."""
    return random.standard_t(3, (NUM_TRIALS, num_runs))


MACHINES = {
    "independent runs": autoregressive(0.0),
    **{f"neighbours' correlation {rho}, AR(1)": autoregressive(rho) for rho in (0.2, 0.4, 0.6, 0.8)},
    "two speeds, 5 runs each, noise 1": two_speeds(5, 1.0),
    "two speeds, 5 runs each, noise 0.5": two_speeds(5, 0.5),
    "two speeds, 20 runs each, noise 1": two_speeds(20, 1.0),
    "two speeds, 20 runs each, noise 0.5": two_speeds(20, 0.5),
    "heavy tails (t with 3 degrees of freedom)": (heavy_tails, np.eye),
}


def half_widths(values: FloatArray, matrix: FloatArray) -> FloatArray:
    """Return the half-width of each trial's interval under this correlation matrix, shape `(num_trials,)`."""
    variance, degrees_of_freedom = variance_of_mean(values[0], matrix)
    factor = variance / float(np.var(values[0], ddof=1))  # the same for all trials
    return t_quantile(degrees_of_freedom) * np.sqrt(factor * values.var(axis=1, ddof=1))


def print_simulated() -> None:
    """Print coverage and width of the interval on simulated machines, by the number of consecutive runs."""
    for apart_s in (34.0, 300.0):
        print(f"Runs every {apart_s:g} s: coverage, and median half-width over the oracle's (the oracle's coverage)\n")
        print(SIMULATED_HEAD)
        print("|---|" + "---:|" * len(BLOCKS))
        for name, (draw, true_matrix) in MACHINES.items():
            random, cells = np.random.default_rng(SEED), []
            for num_runs in BLOCKS:
                values = draw(random, num_runs)
                means = np.abs(values.mean(axis=1))
                own = half_widths(values, correlation_matrix([RunStart("a", apart_s * i) for i in range(num_runs)]))
                oracle = half_widths(values, true_matrix(num_runs))
                cells.append(
                    f"{(means <= own).mean():.1%}, {np.median(own) / np.median(oracle):.2f} ({(means <= oracle).mean():.1%})"
                )
            print(f"| {name} | " + " | ".join(cells) + " |")
        print()


if __name__ == "__main__":
    if sys.argv[1:] == ["simulate"]:
        print_simulated()
    else:
        print_records([Path(folder) for folder in sys.argv[1:]] or [Path("results")])
