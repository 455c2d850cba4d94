"""Check the coverage of throughput intervals: fifty runs of a cell, taken five at a time and one at a time.

Run: .venv/bin/python -m harness run bench/coverage.toml     (two interleaved cells, 50 runs each; 25 minutes on two cores)
     .venv/bin/python bench/bench_coverage.py [FOLDER ...]   prints a table of the records there (default: results/)

Between runs: over 200 draws of 5 runs, the share whose interval covers the mean of the other runs, and the relative
half-width. Within a run: the share of runs whose own interval covers the mean of the other runs. The interval of one run
excludes differences between runs, so its coverage is lower, and reports say so. Each draw is evaluated as in a report, with
the warm-up estimate from its own steps. The correlation between consecutive runs of different cells shows why runs differ:
if it is high, the cause is the machine, which changes from minute to minute, not the process.
"""

from __future__ import annotations

import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from math import log
from pathlib import Path
from statistics import correlation, fmean, median, stdev

from harness.analysis.noise import other_processes_fraction
from harness.analysis.throughput import measure_windows, throughput
from harness.report.labels import hardware
from harness.schema.cells import hash_config
from harness.schema.record import Record
from harness.store.record_files import load_records

NUM_DRAWS, NUM_DRAWN, MIN_RUNS = 200, 5, 20
SEED = 20261126
HEAD = (
    "| cell | runs | samples/s | spread between runs | coverage of intervals of 5 runs | its half-width, median |"
    " coverage of intervals of 1 run | its half-width, median | other processes' CPU, median |"
)


def rate(records: Sequence[Record]):
    """Return the samples per second of some runs, as in a report."""
    return throughput(measure_windows([record.training for record in records]))


def judge(records: Sequence[Record], num_drawn: int) -> tuple[float, float]:
    """Return the share of draws whose interval covers the other runs' mean, and the median relative half-width."""
    rng, num_covered, half_widths = random.Random(SEED), 0, []
    draws = [[index] for index in range(len(records))]
    if num_drawn > 1:
        draws = [rng.sample(range(len(records)), num_drawn) for _ in range(NUM_DRAWS)]
    for draw in draws:
        estimate = rate([records[index] for index in draw])
        others = rate([record for index, record in enumerate(records) if index not in draw])
        if estimate.low is None:
            num_covered += 1  # no interval counts as an infinite one
            half_widths.append(float("inf"))
            continue
        num_covered += estimate.low <= others.value <= estimate.high
        half_widths.append((estimate.high - estimate.low) / 2 / estimate.value)
    return num_covered / len(draws), median(half_widths)


def describe(records: Sequence[Record]) -> str:
    """Return one row of the table."""
    windows = measure_windows([record.training for record in records])
    rates = [window.samples_per_s for window in windows]
    between, within = judge(records, NUM_DRAWN), judge(records, 1)
    figures = [
        f"`{records[0].cell}`", len(records), f"{fmean(rates):.1f}", f"{stdev(rates) / fmean(rates):.1%}",
        f"{between[0]:.1%}", f"{between[1]:.1%}", f"{within[0]:.0%}", f"{within[1]:.1%}",
        f"{median(map(other_processes_fraction, records)):.1%}",
    ]  # fmt: skip
    return "| " + " | ".join(map(str, figures)) + " |"


def shared_drift(groups: Sequence[Sequence[Record]]) -> float:
    """Return the correlation of consecutive runs of different cells, by their speed relative to their cell's median."""
    relative_speeds = []
    for records in groups:
        rates = [window.samples_per_s for window in measure_windows([record.training for record in records])]
        relative_speeds += [
            (record.started_at, record.cell, log(rate / median(rates)))
            for record, rate in zip(records, rates, strict=True)
        ]
    relative_speeds.sort()
    pairs = [(before[2], after[2]) for before, after in pairwise(relative_speeds) if before[1] != after[1]]
    return correlation(*zip(*pairs, strict=True))


def main(folders: Sequence[Path]) -> None:
    """Print the table, with the machine and versions."""
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in load_records(folders).records:
        if record.outcome == "ok" and record.training is not None and record.training.steps.num_samples:
            groups[record.machine.id, hash_config(record.config)].append(record)
    groups = {key: records for key, records in groups.items() if len(records) >= MIN_RUNS}
    if not groups:
        sys.exit(f"No cell has {MIN_RUNS} runs there: run bench/coverage.toml first.")
    print(HEAD)
    print("|---|" + "---:|" * (HEAD.count("|") - 2))
    for records in groups.values():
        print(describe(sorted(records, key=lambda record: record.started_at)))
    print()
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
        print(
            f"{hardware(record.machine)}, {record.machine.system}, Python {record.machine.python}, {versions}{commit}."
        )


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]] or [Path("results")])
