"""Which attention, and which multiple of lengths, is fastest and takes least memory, by precision and length of texts?

Run: .venv/bin/python bench/bench_attention.py [--rounds 3] [--out results/reference/attention.md] [--quick]
Three quarters of an hour on two quiet cores. The runs are kept in attention.csv beside the table; a stopped run continues. With
`--quick`, a few steps of two lengths show that everything runs; nothing is written.

Every case is a number of words; its texts are 1/8 to 3/4 as long. The packaged model trains on them, batch 16, grouped by length,
with each attention and each multiple, and once with `auto`. Within a round the variants of a case run one after the other, in every
second round in reverse order. A ratio is taken within its round; the table shows the geometric mean over rounds, and the lowest
and the highest.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean, geometric_mean

from harness.dataset.rows import read_rows
from harness.execution.jobs import Environment
from harness.execution.preparation import Preparations
from harness.execution.runner import Runner
from harness.execution.sweep import describe_environment
from harness.machine.support import unsupported_reason
from harness.schema.cells import Cell
from harness.schema.expansion import expand
from harness.schema.record import Record
from harness.schema.settings import DataSettings
from harness.schema.study_file import parse_study

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "results" / "reference" / "attention.md"
BATCH = 16
STEPS_BY_LENGTH = {16: 30, 32: 30, 64: 30, 128: 24, 256: 12, 512: 8}
LENGTHS_WITH_DROPOUT = (128,)
NUM_WARMUP = 2
USUAL = ("sdpa", 1)
VARIANTS = (*product(("sdpa", "eager"), (1, 8, 16)), ("auto", 1))
MIB = 2**20


@dataclass(frozen=True)
class Case:
    """The settings that the variants of one row of the table share; without dropout unless it is the model's own."""

    precision: str
    has_dropout: bool
    length: int


@dataclass(frozen=True)
class Run:
    """One variant of a case in one round; `chosen` is the attention that ran."""

    round: int
    precision: str
    has_dropout: bool
    length: int
    attention: str
    multiple: int
    chosen: str
    samples_per_s: float
    peak_mib: float
    num_shapes: int

    @property
    def case(self) -> Case:
        """The case."""
        return Case(self.precision, self.has_dropout, self.length)

    @property
    def variant(self) -> tuple[str, int]:
        """The attention that was asked for, and the multiple."""
        return self.attention, self.multiple


def cases(*, quick: bool) -> list[Case]:
    """List the cases, those of short texts first."""
    lengths = (16, 64) if quick else tuple(STEPS_BY_LENGTH)
    plain = [Case(precision, False, length) for length in lengths for precision in ("fp32", "bf16")]
    with_dropout = [Case(precision, True, length) for length in LENGTHS_WITH_DROPOUT for precision in ("fp32", "bf16")]
    return plain if quick else plain + with_dropout


def write_texts(path: Path, length: int, num_rows: int) -> None:
    """Write texts of length / 8 to 3/4 length words, joined from the packaged reviews."""
    rng, words = random.Random(length), " ".join(read_rows(DataSettings()).texts).split()
    texts: dict[str, str] = {}
    begin = 0
    while len(texts) < num_rows:
        end = begin + rng.randint(max(2, length // 8), 3 * length // 4)
        texts[" ".join(words[begin:end])] = rng.choice(("one", "other"))
        begin = end if end + length < len(words) else end % 97
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *texts.items()])


def cell_of(case: Case, attention: str, multiple: int, folder: Path, *, quick: bool) -> Cell:
    """Return the cell of a variant; its texts are in `folder`. A quick one has few steps, on one thread."""
    num_steps = 4 if quick else STEPS_BY_LENGTH[case.length]
    path = folder / f"{case.length}.csv"
    if not path.exists():
        write_texts(path, case.length, num_steps * BATCH + 64)
    dropout = {} if case.has_dropout else {"attention_dropout": 0.0, "hidden_dropout": 0.0}
    study = {
        "name": "attention", "baselines": False, "model": dropout | {"attention": attention},
        "data": {"source": str(path), "num_train": num_steps * BATCH, "num_val": 32, "num_test": 32},
        "training": {"epochs": 1, "eval_every": 10},
        "matrix": {
            "batch_size": [BATCH], "seq_len": [case.length], "padding": ["grouped"], "precision": [case.precision],
            "pad_multiple": [multiple],
        } | ({"threads": [1]} if quick else {}),
    }  # fmt: skip
    (cell,) = expand(parse_study(study, "bench"))
    return cell


def run_of(number: int, case: Case, attention: str, multiple: int, record: Record) -> Run:
    """Read a record's figures; the speed is that of all steps but the first two."""
    training, model = record.training, record.model
    if training is None or model is None:
        raise RuntimeError(f"{record.cell}: {record.outcome}: {record.reason}")
    steps = training.steps
    rate = sum(steps.num_samples[NUM_WARMUP:]) / sum(steps.seconds[0][NUM_WARMUP:])
    peak = max(peak.num_bytes for peak in training.peak_memory if peak.source == "rss")
    return Run(
        number, case.precision, case.has_dropout, case.length, attention, multiple, str(model.attention), rate, peak / MIB,
        len(set(zip(steps.num_samples, steps.num_padded_tokens, strict=True))),
    )  # fmt: skip


def measure(rounds: int, kept: Sequence[Run], *, quick: bool) -> Iterator[Run]:
    """Yield the runs that are not kept yet, round by round."""
    environment = describe_environment(None)
    done = {(run.round, run.case, run.variant) for run in kept}
    with tempfile.TemporaryDirectory() as name, Runner() as runner:
        folder = Path(name)
        preparations = Preparations(folder / "prepared")
        runner.wait_until_warm()
        for number, case in product(range(rounds), cases(quick=quick)):
            for attention, multiple in VARIANTS if number % 2 == 0 else reversed(VARIANTS):
                cell = cell_of(case, attention, multiple, folder, quick=quick)
                is_supported = unsupported_reason(cell.config, environment.machine) is None
                if is_supported and (number, case, (attention, multiple)) not in done:
                    yield run_of(number, case, attention, multiple, _run(runner, preparations, environment, cell))


def _run(runner: Runner, preparations: Preparations, environment: Environment, cell: Cell) -> Record:
    prepared = preparations.prepare(cell)
    job = replace(prepared.job, run_diagnostics=False)
    return runner.run(cell, replace(prepared, job=job), environment)


def ratios(runs: Sequence[Run], case: Case, variant: tuple[str, int]) -> list[float]:
    """Return a variant's speed over that of sdpa without rounding, in each round that has both."""
    rates = {(run.round, run.variant): run.samples_per_s for run in runs if run.case == case}
    rounds = sorted(number for number, of in rates if of == variant and (number, USUAL) in rates)
    return [rates[number, variant] / rates[number, USUAL] for number in rounds]


def table(runs: Sequence[Run]) -> str:
    """Write speeds and peaks as Markdown."""
    known = list(dict.fromkeys(run.case for run in runs))
    heads = [f"{attention}, {multiple}" for attention, multiple in VARIANTS]
    lines = [
        "Speed: samples/s of `sdpa` with lengths as they are, and how many times as fast the others are (geometric mean over rounds, lowest "
        "to highest). `auto`: its speed, and how often it took `eager`.",
        "",
        f"| precision | dropout | at most tokens | samples/s, {' | '.join(heads)} |",
        f"|---|---|---:|{'---:|' * len(VARIANTS)}",
        *(_speed_line(runs, case) for case in known),
        "",
        "Peak memory in MiB, mean over rounds, and in brackets the number of different batch shapes.",
        "",
        f"| precision | dropout | at most tokens | {' | '.join(heads)} |",
        f"|---|---|---:|{'---:|' * len(VARIANTS)}",
        *(_peak_line(runs, case) for case in known),
    ]
    return "\n".join(lines) + "\n"


def _lead(case: Case) -> str:
    return f"| {case.precision} | {'own' if case.has_dropout else 'none'} | {case.length} "


def _of(runs: Sequence[Run], case: Case, variant: tuple[str, int]) -> list[Run]:
    return [run for run in runs if run.case == case and run.variant == variant]


def _speed_line(runs: Sequence[Run], case: Case) -> str:
    usual = [run.samples_per_s for run in _of(runs, case, USUAL)]
    fields = [f"{geometric_mean(usual):.1f}" if usual else "-"]
    for variant in VARIANTS[1:]:
        found = ratios(runs, case, variant)
        text = f"{geometric_mean(found):.2f} ({min(found):.2f} to {max(found):.2f})" if found else "-"
        if variant[0] == "auto" and found:
            chosen = [run.chosen for run in _of(runs, case, variant)]
            text += f", {chosen.count('eager')} of {len(chosen)}"
        fields.append(text)
    return _lead(case) + "| " + " | ".join(fields) + " |"


def _peak_line(runs: Sequence[Run], case: Case) -> str:
    fields = []
    for variant in VARIANTS:
        found = _of(runs, case, variant)
        mean = fmean(run.peak_mib for run in found) if found else math.nan
        fields.append(f"{mean:,.0f} ({found[0].num_shapes})" if found else "-")
    return _lead(case) + "| " + " | ".join(fields) + " |"


def read_runs(path: Path) -> list[Run]:
    """Read the runs that an earlier call kept."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            Run(
                int(row["round"]), row["precision"], row["has_dropout"] == "True", int(row["length"]), row["attention"],
                int(row["multiple"]), row["chosen"], float(row["samples_per_s"]), float(row["peak_mib"]), int(row["num_shapes"]),
            )
            for row in csv.DictReader(file)
        ]  # fmt: skip


def keep_run(path: Path, run: Run) -> None:
    """Append a run to the file."""
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, asdict(run))
        if is_new:
            writer.writeheader()
        writer.writerow(asdict(run))


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--quick", action="store_true", help="a few steps of two lengths; write nothing")
    options = parser.parse_args()
    path = options.out.with_suffix(".csv")
    runs = [] if options.quick else read_runs(path)
    for run in measure(1 if options.quick else options.rounds, runs, quick=options.quick):
        runs.append(run)
        print(run, flush=True)
        if not options.quick:
            keep_run(path, run)
    text = table(runs)
    if not options.quick:
        options.out.write_text(f"# Attention and multiples of lengths\n\n{text}", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
