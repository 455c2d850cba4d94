"""Do the intervals hold what they promise? Fifty runs of a cell, judged five at a time and one at a time.

Run: .venv/bin/python -m harness run bench/coverage.toml     (two cells in turns, 50 runs each; 25 minutes on two cores)
     .venv/bin/python bench/bench_coverage.py [FOLDER ...]   prints a table of the records there; without one, of results/

Between runs: over 200 draws of 5 of the runs, the share in which their interval holds the mean of the others, and half
the interval over the mean. What makes runs differ: where runs of different cells that follow each other are fast and slow
together, it is the machine from minute to minute, not the process. Within a run: the share of runs whose own interval holds the mean of the others; what differs
from run to run is not in it, so that it holds less often, and reports say so. Each draw is judged as a report would judge
it, the warm-up found from its own steps.
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

NUM_DRAWS, NUM_DRAWN, FEWEST = 200, 5, 20
SEED = 20261126
HEAD = (
    "| cell | runs | samples/s | spread between runs | interval of 5 holds the others' mean | its half-width, median |"
    " interval of 1 holds it | its half-width, median | other processes' CPU, median |"
)


def rate(records: Sequence[Record]):
    """Samples a second of some runs, as a report has it."""
    return throughput(measure_windows([record.training for record in records]))


def judge(records: Sequence[Record], num_drawn: int) -> tuple[float, float]:
    """Share of draws whose interval holds the mean of the others, and the median of half the interval, relative."""
    rng, held, halves = random.Random(SEED), 0, []
    draws = [[index] for index in range(len(records))]
    if num_drawn > 1:
        draws = [rng.sample(range(len(records)), num_drawn) for _ in range(NUM_DRAWS)]
    for draw in draws:
        found = rate([records[index] for index in draw])
        others = rate([record for index, record in enumerate(records) if index not in draw])
        if found.low is None:
            held += 1  # it promises nothing
            halves.append(float("inf"))
            continue
        held += found.low <= others.value <= found.high
        halves.append((found.high - found.low) / 2 / found.value)
    return held / len(draws), median(halves)


def describe(records: Sequence[Record]) -> str:
    """One row of the table."""
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
    """Correlation between runs that follow each other, of different cells: of each its speed against its cell's median."""
    told = []
    for records in groups:
        rates = [window.samples_per_s for window in measure_windows([record.training for record in records])]
        told += [
            (record.started_at, record.cell, log(rate / median(rates)))
            for record, rate in zip(records, rates, strict=True)
        ]
    told.sort()
    pairs = [(before[2], after[2]) for before, after in pairwise(told) if before[1] != after[1]]
    return correlation(*zip(*pairs, strict=True))


def main(folders: Sequence[Path]) -> None:
    """Print the table, with the machine and the versions that it is of."""
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in load_records(folders).records:
        if record.outcome == "ok" and record.training is not None and record.training.steps.num_samples:
            groups[record.machine.id, hash_config(record.config)].append(record)
    groups = {key: records for key, records in groups.items() if len(records) >= FEWEST}
    if not groups:
        sys.exit(f"No cell has {FEWEST} runs there: run bench/coverage.toml first.")
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
            print(
                f"Runs that follow each other, of different cells: correlation of their speeds {shared_drift(cells):.2f}.\n"
            )
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
