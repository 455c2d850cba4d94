"""How much sooner `measure = "speed"` ranks cells than full runs do, and whether it ranks them the same.

Run: .venv/bin/python bench/bench_speed_sweep.py [--until 0.03] [--records DIR] [--quick]
Half an hour on two quiet cores. Records are kept below --records: a stopped run continues. `--quick` runs two cells of a few
rows, to see that all works, and writes nothing.

Each of 24 cells runs in full, then with `measure = "speed"`, then in full again, so that all three see the same state of the
machine. Kendall's tau of the two full sweeps is what the noise of this machine allows.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from scipy.stats import kendalltau

from harness.analysis.throughput import measure_windows
from harness.execution.hidden_paths import hide_homes
from harness.execution.preparation import Preparations
from harness.execution.runner import Runner
from harness.execution.sweep import describe_environment
from harness.machine.support import unsupported_reason
from harness.schema.cells import Cell
from harness.schema.expansion import expand
from harness.schema.record import Record
from harness.schema.study_file import parse_study
from harness.store.record_files import load_records, save_record

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "results" / "reference" / "speed-sweep.md"
MATRIX = {"batch_size": [8, 16, 32, 64], "precision": ["fp32", "bf16"], "trainable": ["all", "top2", "head"]}
TURNS = ("full", "speed", "full")


def cells_of(measure: str, until: float, *, quick: bool) -> list[Cell]:
    """Expand the cells of one kind of sweep."""
    study: dict[str, object] = {"name": f"sweep-{measure}", "baselines": False, "matrix": MATRIX}
    if measure == "speed":
        study |= {"measure": "speed", "limits": {"until": until}}
    if quick:
        study |= {
            "data": {"num_train": 320, "num_val": 32, "num_test": 32},
            "matrix": {"batch_size": [8], "seq_len": [32, 64]},
        }
    return expand(parse_study(study, "bench"))


def run_all(until: float, kept: Path, *, quick: bool) -> dict[str, list[list[Record]]]:
    """Run every cell in all turns; what is below `kept` is not run again.

    Returns:
        By kind of sweep, the runs of each cell.
    """
    environment = describe_environment(None)
    pairs = zip(*(cells_of(kind, until, quick=quick) for kind in ("full", "speed")), strict=True)
    cells = [dict(zip(("full", "speed"), pair, strict=True)) for pair in pairs]
    cells = [pair for pair in cells if unsupported_reason(pair["full"].config, environment.machine) is None]
    kept.mkdir(parents=True, exist_ok=True)
    known: dict[str, list[Record]] = defaultdict(list)
    for record in load_records([kept]).records:
        known[record.config_hash].append(record)
    runs: dict[str, list[list[Record]]] = {"full": [], "speed": []}
    with tempfile.TemporaryDirectory() as folder, Runner() as runner:
        preparations = Preparations(Path(folder))
        runner.wait_until_warm()
        for pair in cells:
            done: dict[str, list[Record]] = {"full": [], "speed": []}
            for kind in TURNS:
                cell = pair[kind]
                if len(known[cell.config_hash]) > len(done[kind]):
                    record = known[cell.config_hash][len(done[kind])]
                else:
                    record = hide_homes(runner.run(cell, preparations.prepare(cell), environment))
                    save_record(record, kept)
                    print(
                        f"{kind} {cell.name}: {record.outcome} {record.duration_s:.1f} s {record.reason or ''}",
                        flush=True,
                    )
                done[kind].append(record)
            for kind, records in done.items():
                runs[kind].append(records)
    return runs


def rates(records: Sequence[Record]) -> list[float]:
    """Return the samples per second of some runs."""
    return [measure_windows([record.training])[0].samples_per_s for record in records if record.training]


def table(runs: dict[str, list[list[Record]]], until: float) -> str:
    """Write the two sweeps' time, ranking and speeds as Markdown."""
    first, second = (rates([cell[turn] for cell in runs["full"]]) for turn in (0, 1))
    speed = rates([cell[0] for cell in runs["speed"]])
    means = [(a + b) / 2 for a, b in zip(first, second, strict=True)]
    full_s = sum(record.duration_s for cell in runs["full"] for record in cell) / 2
    speed_s = sum(cell[0].duration_s for cell in runs["speed"])
    steps = [
        (len(s[0].training.steps.num_samples), len(f[0].training.steps.num_samples))
        for s, f in zip(runs["speed"], runs["full"], strict=True)
    ]
    off = [abs(value / mean - 1) for value, mean in zip(speed, means, strict=True)]
    noise = [abs(a / b - 1) for a, b in zip(first, second, strict=True)]
    lines = [
        f"{len(speed)} cells; `limits.until` = {until:.0%}.",
        "",
        "| sweep | seconds | of a full sweep | Kendall's tau with a full sweep | off its speeds, median | largest |",
        "|---|---:|---:|---:|---:|---:|",
        f"| full, the other one | {full_s:.0f} | 1 | {kendalltau(first, second).statistic:.3f} | {median(noise):.1%} | {max(noise):.1%} |",
        f'| `measure = "speed"` | {speed_s:.0f} | {speed_s / full_s:.2f} | {kendalltau(speed, first).statistic:.3f} and '
        f"{kendalltau(speed, second).statistic:.3f} | {median(off):.1%} | {max(off):.1%} |",
        "",
        "| cell | steps | of | seconds | of | samples/s | full |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for index, (short, long) in enumerate(zip(runs["speed"], runs["full"], strict=True)):
        lines.append(
            f"| {short[0].cell} | {steps[index][0]} | {steps[index][1]} | {short[0].duration_s:.1f} | {long[0].duration_s:.1f} | "
            f"{speed[index]:.1f} | {first[index]:.1f}, {second[index]:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--until", type=float, default=0.03)
    parser.add_argument("--records", type=Path, default=Path(tempfile.gettempdir()) / "speed-sweep")
    parser.add_argument("--quick", action="store_true", help="two small cells; write nothing")
    options = parser.parse_args()
    text = table(run_all(options.until, options.records, quick=options.quick), options.until)
    print(text)
    if not options.quick:
        OUT.write_text(f"# Speed alone, or full runs\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
