"""Do clean studies raise the alarm that a run took far longer or shorter than predicted?

Run: .venv/bin/python bench/bench_clean_studies.py [--records DIR]
Ten minutes on two quiet cores. Ten studies of three cells, each probed and then run as `harness run` does it. Records are kept below --records.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from harness.analysis.predictions import prediction_warnings
from harness.execution.preparation import Preparations
from harness.execution.probing import StudyPrediction, plan_cells
from harness.execution.runner import Runner
from harness.execution.sweep import NullListener, describe_environment, run_cells
from harness.machine.support import unsupported_reason
from harness.schema.cells import Cell
from harness.schema.expansion import expand
from harness.schema.record import Record
from harness.schema.study_file import parse_study
from harness.store.record_files import load_records

OUT = Path(__file__).resolve().parents[1] / "results" / "reference" / "clean-studies.md"
SMALL = {"num_train": 640, "num_val": 96, "num_test": 192}
STUDIES: dict[str, dict[str, dict[str, object]]] = {
    "lengths, fp32": {"matrix": {"seq_len": [32, 64, 128], "precision": ["fp32"]}},
    "lengths, bf16": {"matrix": {"seq_len": [32, 64, 128], "precision": ["bf16"]}},
    "batches, fp32, grouped": {"matrix": {"batch_size": [8, 16, 32], "padding": ["grouped"]}},
    "batches, bf16, grouped": {"matrix": {"batch_size": [8, 16, 32], "padding": ["grouped"], "precision": ["bf16"]}},
    "two layers": {"matrix": {"batch_size": [8, 16, 32], "trainable": ["top2"]}},
    "head, bf16": {"matrix": {"batch_size": [8, 16, 32], "trainable": ["head"], "precision": ["bf16"]}},
    "two ranks": {"matrix": {"batch_size": [4, 8, 16], "device": ["cpu-ddp2"]}},
    "checkpointing": {
        "matrix": {"batch_size": [8, 16, 32], "padding": ["max"]}, "training": {"activation_checkpointing": True},
    },
    "eager attention, bf16": {"matrix": {"batch_size": [8, 16, 32], "precision": ["bf16"]}, "model": {"attention": "eager"}},
    "accumulation": {"matrix": {"batch_size": [4, 8, 16]}, "training": {"grad_accum": 2}},
}  # fmt: skip


def cells_of(name: str) -> list[Cell]:
    """Expand a study."""
    number = list(STUDIES).index(name)
    study = {"name": f"clean-{number}", "baselines": False, "data": SMALL} | STUDIES[name]
    study["training"] = {"epochs": 1, "eval_every": 1} | STUDIES[name].get("training", {})
    return expand(parse_study(study, "bench"))


def run_study(cells: Sequence[Cell], results: Path) -> None:
    """Probe a study, and run it by the probes."""
    environment = describe_environment(None)
    with tempfile.TemporaryDirectory() as folder, Runner() as runner:
        preparations = Preparations(Path(folder))
        planned = plan_cells(cells, [preparations.prepare(cell) for cell in cells], environment.machine)
        runner.wait_until_warm()
        probes = StudyPrediction(planned, (), environment.machine).probe(runner, results, environment, limit_s=math.inf)
    run_cells(cells, results, environment, NullListener(), known=probes)


def rows_of(runs: dict[str, list[Record]]) -> Iterator[str]:
    """Yield a row for each study."""
    for name, records in runs.items():
        ratios = [record.predicted.seconds / record.duration_s for record in records if record.predicted]
        held = sum(
            record.predicted.seconds_low <= record.duration_s <= record.predicted.seconds_high
            for record in records
            if record.predicted
        )
        alarms = len(list(prediction_warnings(records)))
        shown = ", ".join(f"{ratio - 1:+.0%}" for ratio in ratios)
        yield f"| {name} | {len(ratios)} | {shown} | {held} | {alarms} |"


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=Path(tempfile.gettempdir()) / "clean-studies")
    results = parser.parse_args().records
    results.mkdir(parents=True, exist_ok=True)
    machine = describe_environment(None).machine
    runs: dict[str, list[Record]] = {}
    for name in STUDIES:
        cells = [cell for cell in cells_of(name) if unsupported_reason(cell.config, machine) is None]
        if not cells:
            continue
        hashes = {cell.config_hash for cell in cells}
        if len(_known(results, hashes)) < len(cells):
            run_study(cells, results)
        runs[name] = _known(results, hashes)
        print(next(rows_of({name: runs[name]})), flush=True)
    errors = [
        abs(record.predicted.seconds / record.duration_s - 1)
        for records in runs.values()
        for record in records
        if record.predicted
    ]
    alarms = sum(len(list(prediction_warnings(records))) for records in runs.values())
    text = "\n".join(
        [
            f"{len(runs)} studies, {len(errors)} runs, {alarms} alarms; median error {np.median(errors):.1%}.",
            "",
            "| study | runs | predicted over measured seconds | within the 95 % interval | alarms (99.9 %) |",
            "|---|---:|---|---:|---:|",
            *rows_of(runs),
        ]
    )
    print(text)
    OUT.write_text(f"# Clean studies raise no alarm\n\n{text}\n", encoding="utf-8")


def _known(results: Path, hashes: set[str]) -> list[Record]:
    return [record for record in load_records([results]).records if record.config_hash in hashes]


if __name__ == "__main__":
    main()
