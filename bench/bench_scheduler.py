"""Run the scheduler of a cluster on a virtual clock: how long a study takes, and what the scheduler itself costs.

Run: .venv/bin/python bench/bench_scheduler.py            writes results/reference/scheduler.md (about a minute)
     .venv/bin/python bench/bench_scheduler.py --quick    one seed and a tenth of all numbers, prints only (seconds)

1,000 nodes of 50 kinds run 10,000 cells: 40 configurations on every kind, 5 repeats each, of log-normal seconds, predicted
with an error of 20 %. 2 % of the nodes die within an hour; the scheduler hears of it 30 s later, and where dead nodes are
replaced another one comes after 5 minutes. Idle nodes are given back at once. The makespan is compared with the bound of
list scheduling: the work of a kind over its nodes, plus its longest cell, of the kind where this is largest. The run fails
if a makespan passes the bound by more than 5 %, or if a cell is lost or ends twice.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from simulated_cluster import NUM_REPEATS, World, simulate

from harness.files import atomic_write_text
from harness.store.record_files import load_records, save_record

OUT = Path("results/reference/scheduler.md")
SEEDS = range(5)
WITHIN = 1.05
WORLDS = {
    "dead nodes replaced": World(),
    "dead nodes not replaced": World(replaced=False),
    "no deaths": World(deaths_per_hour=0.0),
    "20 % die an hour, replaced": World(deaths_per_hour=0.2),
    "numbers of nodes differ, replaced": World(even=False),
    "all cells predicted alike, replaced": World(prediction_spread=None),
}
COSTS = {
    "1,000 nodes, 50 kinds, 10,000 cells": World(),
    "the same, with a budget for 60 % of it": World(),
    "10,000 nodes, 50 kinds, 100,000 cells": World(num_nodes=10_000, num_cells=100_000),
    "10,000 nodes, 1 kind, 100,000 cells": World(num_nodes=10_000, num_kinds=1, num_cells=100_000),
}
METHODS = ("place", "end_cell", "remove_node", "idle_nodes", "kinds_without_nodes")


def makespans(scale: int, seeds: Sequence[int]) -> tuple[list[str], bool]:
    """Return the rows of the table of makespans, and whether all are within the bound."""
    rows, all_within = [], True
    for name, world in WORLDS.items():
        outcomes = [simulate(smaller(world, scale), seed) for seed in seeds]
        ratios = [outcome.makespan_s / outcome.bound_s for outcome in outcomes]
        all_within &= max(ratios) <= WITHIN
        rows.append(
            f"| {name} | {fmean(each.makespan_s for each in outcomes) / 3600:.2f} | {fmean(ratios):.3f} ({max(ratios):.3f}) "
            f"| {max(each.worst_kind for each in outcomes):.3f} "
            f"| {fmean(each.makespan_s / each.least_s for each in outcomes):.3f} "
            f"| {fmean(each.num_deaths for each in outcomes):.0f} | {fmean(each.num_lost for each in outcomes):.0f} "
            f"| {sum(each.num_given_up for each in outcomes)} | {100 * fmean(each.spread_share for each in outcomes):.1f} % "
            f"| {100 * fmean(each.busy_share for each in outcomes):.1f} % |"
        )
        print(rows[-1], flush=True)
    return rows, all_within


def costs(scale: int) -> list[str]:
    """Return the rows of the table of the scheduler's own CPU time."""
    rows = []
    needed_usd = simulate(smaller(World(), scale), 0).usd
    for name, world in COSTS.items():
        budget = 0.6 * needed_usd if "budget" in name else None
        outcome = simulate(replace(smaller(world, scale), budget_usd=budget), 0)
        num = outcome.num_placements
        spent = "" if budget is None else f" ({100 * outcome.usd / budget:.1f} % of it spent)"
        cells = [f"{1e6 * outcome.cpu_s[method] / num:.0f}" for method in METHODS]
        rows.append(
            f"| {name}{spent} | {outcome.num_given_up:,} | {num:,} | {1e6 * sum(outcome.cpu_s.values()) / num:.0f} | {' | '.join(cells)} "
            f"| {1e3 * outcome.slowest_s:.1f} | {num / sum(outcome.cpu_s.values()):,.0f} |"
        )
        print(rows[-1], flush=True)
    return rows


def smaller(world: World, scale: int) -> World:
    """Return a world with fewer kinds, nodes and cells."""
    fewer = {"num_nodes": world.num_nodes // scale, "num_cells": world.num_cells // scale}
    return replace(world, num_kinds=max(1, world.num_kinds // scale), **fewer)


def record_cost(num: int) -> str:
    """Return what the driver pays for each record that comes home: checked, and saved on this disk."""
    records = load_records([OUT.parent]).records[:num]
    with tempfile.TemporaryDirectory() as folder:
        began, cpu = time.perf_counter(), time.process_time()
        for record in records:
            save_record(record, Path(folder))
        wall_ms = 1e3 * (time.perf_counter() - began) / len(records)
        cpu_ms = 1e3 * (time.process_time() - cpu) / len(records)
        began = time.process_time()
        assert len(load_records([Path(folder)]).records) == len(records)
        read_ms = 1e3 * (time.process_time() - began) / len(records)
    return (
        f"A record that comes home costs the driver {cpu_ms:.1f} ms of CPU to save ({wall_ms:.1f} ms of wall time, with the disk) "
        f"and {read_ms:.1f} ms to check (means of {len(records)} records of results/reference)."
    )


def document(makespan_rows: Sequence[str], cost_rows: Sequence[str], record: str) -> str:
    """Return the text of results/reference/scheduler.md."""
    return f"""# The scheduler of a cluster

Written by bench/bench_scheduler.py, on one core of an AMD EPYC; a virtual clock, so only the CPU times depend on the machine.
1,000 nodes of 50 kinds, 10,000 cells: 40 configurations on every kind, {NUM_REPEATS} repeats each; {len(SEEDS)} seeds a row. In every run each cell
ended exactly once or was given up (asserted).

## How long a study takes

Bound: the work of a kind over its nodes, plus its longest cell, of the kind where this is largest. It counts the nodes of the
beginning and no lost work. Worst kind: the largest ratio of any kind to its own bound, over all seeds. Least: the work
of a kind over its nodes, or its longest cell if it is longer; without deaths no schedule is shorter. Spread: configurations
whose repeats ran on {NUM_REPEATS} different hosts. Busy: dollars of nodes while they ran cells that ended, of all dollars.

| {len(SEEDS)} seeds | makespan, hours | over the bound, mean (worst) | worst kind | over the least | deaths | attempts lost | cells given up | spread | busy |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
{chr(10).join(makespan_rows)}

## What the scheduler costs

CPU microseconds a placement, all calls of the scheduler together and by method; the longest single call, which places a cell on
every node at the beginning; placements that one core could decide in a second. In the simulation `idle_nodes` and
`kinds_without_nodes` are called after every event.

| | cells given up | placements | all | {" | ".join(f"`{method}`" for method in METHODS)} | longest call, ms | placements/s |
|---|---:|---:|{"---:|" * len(METHODS)}---:|---:|
{chr(10).join(cost_rows)}

{record}
"""


def main() -> int:
    """Print the tables and write them; return 1 if a makespan passes its bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    scale = 10 if options.quick else 1
    makespan_rows, all_within = makespans(scale, [0] if options.quick else SEEDS)
    text = document(makespan_rows, costs(scale), record_cost(100))
    if not options.quick:
        atomic_write_text(OUT, text)
    return 0 if all_within else 1


if __name__ == "__main__":
    sys.exit(main())
