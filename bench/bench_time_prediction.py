"""Errors of predicting a CPU cell's seconds and peak memory from a probe, before it runs.

Run: .venv/bin/python bench/bench_time_prediction.py [--rounds 3] [--groups 12]
An hour on two quiet cores. The table's raw figures are kept in time-prediction.csv beside it. Records are kept below
--records: a stopped run continues, and a changed prediction is judged by the same records.

The design: groups of cells that compute alike (model, precision, trained part, dropout, checkpointing, ranks), drawn so that each
pair of choices occurs, and in each group four cells that differ in batch size, length and padding. Each group is probed
once; then all cells run in turns, round after round, and each is compared with the mean of its rounds. All
cells are held out: the constants were set by the 48 cells of another seed, each run once. Beside the prediction: what a perfect one would
score (each run against the mean of the others), the last run's seconds, and tokens times one constant a model.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from statistics import fmean

import numpy as np

from harness.analysis.estimate import Estimate
from harness.analysis.predictions import alarm_limits
from harness.execution.hidden_paths import hide_homes
from harness.execution.preparation import Preparations
from harness.execution.probing import StudyPrediction, plan_cells
from harness.execution.runner import Runner
from harness.execution.sweep import describe_environment
from harness.machine.support import unsupported_reason
from harness.schema.cells import Cell
from harness.schema.expansion import expand
from harness.schema.record import Record
from harness.schema.study_file import parse_study
from harness.store.record_files import load_records, save_record

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "results" / "reference" / "time-prediction.md"
SEED = 20261203  # 20261201 drew the cells by which constants were set
CHOICES = {
    "model": ("packaged", "bert-base"),
    "precision": ("fp32", "bf16"),
    "trainable": ("all", "top2", "head"),
    "dropout": (None, 0.0),
    "checkpointing": (False, True),
    "device": ("cpu", "cpu-ddp2"),
}
BATCHES, LENGTHS, PADDINGS = (1, 2, 4, 8, 16, 32, 64), (32, 64, 128, 256, 512), ("max", "longest", "grouped")
CELLS_A_GROUP = 4
PARAMETERS = {"packaged": 10.6e6, "bert-base": 85e6}
SHARE_TRAINED = {"all": 3.0, "top2": 1.7, "head": 1.0}  # FLOPs of a step over those of a forward pass
FLOP_PER_S, RUN_S, MAX_STEP_S = 1.5e11, 5.0, 2.0  # assumed, to choose the number of steps
MEAN_TOKENS = 27  # of the packaged texts
ROWS = {"num_train": 1500, "num_val": 64, "num_test": 128}


def design(num_groups: int) -> list[list[dict]]:
    """Draw groups that cover all pairs of choices, each with four shapes of at most a bounded step."""
    rng = random.Random(SEED)
    every = [dict(zip(CHOICES, values, strict=True)) for values in product(*CHOICES.values())]
    every = [group for group in every if group["trainable"] != "head" or not group["checkpointing"]]
    chosen: list[dict] = []
    covered: set[tuple] = set()
    while len(chosen) < num_groups:
        rng.shuffle(every)
        best = max(every, key=lambda group: len(_pairs(group) - covered))
        chosen.append(best)
        covered |= _pairs(best)
        every.remove(best)
    return [[{**group, **shape} for shape in _shapes(group, rng)] for group in chosen]


def _pairs(group: dict) -> set[tuple]:
    return {(a, group[a], b, group[b]) for a, b in combinations(group, 2)}


def _shapes(group: dict, rng: random.Random) -> Iterator[dict]:
    fitting = [
        {"batch_size": batch, "seq_len": length, "padding": padding}
        for batch, length, padding in product(BATCHES, LENGTHS, PADDINGS)
        if _step_s(group, batch, length, padding) <= MAX_STEP_S
    ]
    for index in range(CELLS_A_GROUP):
        some = [shape for shape in fitting if shape["padding"] == PADDINGS[index % len(PADDINGS)]]
        yield rng.choice(some)


def _step_s(group: dict, batch: int, length: int, padding: str) -> float:
    tokens = batch * (length if padding == "max" else min(length, 2 * MEAN_TOKENS))
    ranks = 2 if group["device"] == "cpu-ddp2" else 1
    return 2 * PARAMETERS[group["model"]] * SHARE_TRAINED[group["trainable"]] * tokens * ranks / FLOP_PER_S + 0.06


def cells_of(groups: Sequence[Sequence[dict]]) -> list[tuple[int, Cell]]:
    """Expand each choice into one cell, with its group's number."""
    cells = []
    for number, group in enumerate(groups):
        for choice in group:
            steps = max(
                6, min(60, round(RUN_S / _step_s(choice, choice["batch_size"], choice["seq_len"], choice["padding"])))
            )
            model: dict = {} if choice["model"] == "packaged" else {"shape": "bert-base", "init": "random"}
            if choice["dropout"] is not None:
                model |= {"attention_dropout": choice["dropout"], "hidden_dropout": choice["dropout"]}
            study = {
                "name": "time-prediction", "baselines": False, "model": model, "data": ROWS,
                "training": {"max_steps": steps, "eval_every": 100.0, "activation_checkpointing": choice["checkpointing"]},
                "matrix": {
                    key: [choice[key]] for key in ("batch_size", "seq_len", "padding", "precision", "trainable", "device")
                },
            }  # fmt: skip
            (cell,) = expand(parse_study(study, "bench"))
            cells.append((number, cell))
    return cells


@dataclass
class Row:
    """One cell: what was predicted, and its runs."""

    group: int
    cell: Cell
    predicted_s: float
    low_s: float
    high_s: float
    peak: float
    num_tokens: int
    runs: list[Record]

    @property
    def name(self) -> str:
        """The cell's settings in short."""
        config = self.cell.config
        model = config.model.shape or "packaged"
        extra = " no dropout" if config.model.attention_dropout == 0 else ""
        extra += " checkpointing" if config.training.activation_checkpointing else ""
        return f"{model} {self.cell.name}{extra}"

    @property
    def measured(self) -> list[float]:
        """Seconds of each run."""
        return [run.duration_s for run in self.runs]

    @property
    def ratio(self) -> float:
        """Predicted over the mean of the measured seconds."""
        return self.predicted_s / fmean(self.measured)

    @property
    def peak_ratio(self) -> float | None:
        """Predicted over the mean measured peak."""
        peaks = [
            sum(peak.num_bytes for peak in run.training.peak_memory if peak.source == "rss")
            for run in self.runs
            if run.training
        ]
        return self.peak / fmean(peaks) if self.peak and peaks else None

    @property
    def spread(self) -> float:
        """Largest relative distance of a run from the mean."""
        mean = fmean(self.measured)
        return max(abs(seconds / mean - 1) for seconds in self.measured)


def measure(num_groups: int, rounds: int, kept: Path) -> list[Row]:
    """Probe each group once, then run all cells in turns; what is below `kept` is not measured again."""
    environment = describe_environment(None)
    drawn = [
        (number, cell)
        for number, cell in cells_of(design(num_groups))
        if unsupported_reason(cell.config, environment.machine) is None
    ]
    with tempfile.TemporaryDirectory() as folder, Runner() as runner:
        preparations = Preparations(Path(folder))
        prepared = [preparations.prepare(cell) for _, cell in drawn]
        planned = plan_cells([cell for _, cell in drawn], prepared, environment.machine)
        work = {each.cell.config_hash: each.work for each in planned}
        kept.mkdir(parents=True, exist_ok=True)
        known = load_records([kept])
        prediction = StudyPrediction(planned, known.probes, environment.machine)
        runs: dict[str, list[Record]] = defaultdict(list)
        for record in known.records:
            runs[record.config_hash].append(record)
        runner.wait_until_warm()
        prediction.probe(
            runner, kept, environment, lambda cell: print("probe", cell.name, flush=True), limit_s=math.inf
        )
        inputs = {cell.config_hash: each for (_, cell), each in zip(drawn, prepared, strict=True)}
        for turn in range(rounds):
            for _, cell in drawn if turn % 2 == 0 else reversed(drawn):
                if len(runs[cell.config_hash]) > turn:
                    continue
                record = runner.run(cell, inputs[cell.config_hash], environment)
                save_record(hide_homes(record), kept)
                runs[cell.config_hash].append(record)
                print(f"{turn} {cell.name}: {record.outcome} {record.duration_s:.1f} s", flush=True)
    rows = []
    for number, cell in drawn:
        predicted = prediction.predict(cell.config_hash)
        if predicted is None:
            print("not probed", cell.name)
            continue
        seconds, peak = predicted.time.seconds, predicted.peak_bytes
        rows.append(
            Row(
                group=number,
                cell=cell,
                predicted_s=seconds.value,
                low_s=seconds.low or 0.0,
                high_s=seconds.high or math.inf,
                peak=peak.value if peak else 0.0,
                num_tokens=work[cell.config_hash].training.num_tokens,
                runs=[run for run in runs[cell.config_hash] if run.outcome == "ok"],
            )
        )
    return [row for row in rows if row.runs]


def table(rows: Sequence[Row]) -> str:
    """Write errors, rivals and the worst cells as Markdown."""
    lines = [
        "| predicted by | cells | median error | 90 % within | worst | within 10 % or twice the spread |",
        "|---|---:|---:|---:|---:|---:|",
        _line("a probe", [row.ratio for row in rows], rows),
        _line(
            "the mean of the other runs (noise floor)",
            [ratio for ratio, _ in _floor(rows)],
            [row for _, row in _floor(rows)],
        ),
        _line("tokens times a constant a model", _by_tokens(rows), rows),
        _line("the longest cell so far, as budgets did", _by_longest(rows), rows),
        "",
        f"Intervals hold the mean of the runs in {fmean(row.low_s <= fmean(row.measured) <= row.high_s for row in rows):.0%} of "
        f"{len(rows)} cells, at a median half-width of "
        f"{np.median([(row.high_s / row.low_s) ** 0.5 - 1 for row in rows]):.0%}.",
        "",
        *_alarms(rows),
        "",
        *_peaks(rows),
        "",
        "| worst cells | predicted, s | measured, s | error | largest distance of a run from the mean |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in sorted(rows, key=lambda row: -abs(math.log(row.ratio)))[:8]:
        lines.append(
            f"| {row.name} | {row.predicted_s:.1f} | {fmean(row.measured):.1f} | {row.ratio - 1:+.0%} | {row.spread:.0%} |"
        )
    return "\n".join(lines) + "\n"


def _line(name: str, ratios: Sequence[float], rows: Sequence[Row]) -> str:
    errors = np.abs(np.array(ratios) - 1)
    good = np.mean([error <= max(0.10, 2 * row.spread) for error, row in zip(errors, rows, strict=True)])
    worst = ratios[int(np.argmax(errors))] - 1
    return f"| {name} | {len(errors)} | {np.median(errors):.1%} | {np.quantile(errors, 0.9):.1%} | {worst:+.0%} | {good:.0%} |"


def _floor(rows: Sequence[Row]) -> list[tuple[float, Row]]:
    return [
        (seconds / fmean(row.measured[:index] + row.measured[index + 1 :]), row)
        for row in rows
        for index, seconds in enumerate(row.measured)
        if len(row.measured) > 1
    ]


def _by_tokens(rows: Sequence[Row]) -> list[float]:
    rates: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        rates[row.cell.config.model.shape or ""].append(fmean(row.measured) / row.num_tokens)
    return [
        float(np.median(rates[row.cell.config.model.shape or ""])) * row.num_tokens / fmean(row.measured)
        for row in rows
    ]


def _by_longest(rows: Sequence[Row]) -> list[float]:
    longest, ratios = 0.0, []
    for row in rows:
        ratios.append(longest / fmean(row.measured) if longest else 1.0)
        longest = max(longest, *row.measured)
    return ratios


def _alarms(rows: Sequence[Row]) -> Iterator[str]:
    """Count the alarms of clean runs, taking each group of cells as a study."""
    outside = []
    for row in rows:
        low, high = alarm_limits(Estimate(row.predicted_s, row.low_s, row.high_s, ""))
        outside += [row.group for seconds in row.measured if not low <= seconds <= high]
    yield (
        f"Alarms (outside the interval of 99.9 %): {len(outside)} of {sum(len(row.runs) for row in rows)} clean runs, in "
        f"{len(set(outside))} of {len({row.group for row in rows})} groups."
    )


def _peaks(rows: Sequence[Row]) -> Iterator[str]:
    ratios = [row.peak_ratio for row in rows if row.peak_ratio is not None]
    errors = np.abs(np.array(ratios) - 1)
    worst = ratios[int(np.argmax(errors))] - 1
    yield (
        f"Peak memory, default allocator: median error {np.median(errors):.1%}, 90 % within {np.quantile(errors, 0.9):.1%}, "
        f"worst {worst:+.0%} ({len(ratios)} cells)."
    )


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--groups", type=int, default=12)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--records", type=Path, default=Path(tempfile.gettempdir()) / "time-prediction")
    options = parser.parse_args()
    rows = measure(options.groups, options.rounds, options.records)
    with options.out.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["group", "cell", "predicted_s", "low_s", "high_s", "measured_s", "predicted_peak", "measured_peak_ratio"]
        )
        for row in rows:
            measured = " ".join(f"{seconds:.3f}" for seconds in row.measured)
            writer.writerow(
                [
                    row.group,
                    row.name,
                    f"{row.predicted_s:.3f}",
                    f"{row.low_s:.3f}",
                    f"{row.high_s:.3f}",
                    measured,
                    round(row.peak),
                    row.peak_ratio,
                ]
            )
    text = table(rows)
    options.out.write_text(f"# Predicted seconds and memory\n\n{text}")
    print(text)


if __name__ == "__main__":
    main()
