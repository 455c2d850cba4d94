"""Does the batch size that `harness fit` names survive an epoch under the cap, and how far is it from the largest that does?

Run: .venv/bin/python bench/bench_fit.py [--cases 20] [--out results/reference/fit.md]   (an hour on two cores; load of others does no harm)

Each case is drawn: precision, length, padding, what is trained, and a memory cap. `fit` names a batch size for it; that one
trains an epoch of 1,024 rows under the cap, with validation and test. So does the next one that is more than 15 % larger: if it runs
out of memory, the named one is within 15 % of the largest that survives. The runs are kept in fit.csv; a stopped run continues.
"""

from __future__ import annotations

import argparse
import csv
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.execution.preparation import Preparations
from harness.execution.runner import Runner
from harness.execution.sweep import describe_environment
from harness.machine.support import unsupported_reason
from harness.schema.cells import Cell
from harness.schema.expansion import expand
from harness.schema.study_file import parse_study
from harness.workflows.fit import BatchSizeSearch, find_fit
from harness.workflows.memory_budget import MemoryBudget, choose_budget

OUT = Path(__file__).resolve().parents[1] / "results" / "reference" / "fit.md"
SEED = 20261201
NUM_TRAIN = 1024
NEARNESS = 0.15
CAPS_GIB = (0.9, 1.0, 1.2, 1.5, 2.0)


@dataclass(frozen=True)
class Case:
    """One drawn case, and how it ended."""

    number: int
    cell: str
    cap_gib: float
    num_runs: int
    batch: int
    epoch: str
    next_batch: int
    next_epoch: str

    @property
    def is_near(self) -> bool:
        """Whether a batch more than 15 % larger runs out of memory, or can't be had."""
        return self.next_epoch != "ok"


def draw(num_cases: int) -> Iterator[tuple[Cell, float]]:
    """Draw the cases' cells and caps."""
    rng = random.Random(SEED)
    for number in range(num_cases):
        study = {
            "name": f"fit-{number}", "baselines": False, "data": {"num_train": NUM_TRAIN, "num_val": 128, "num_test": 128},
            "training": {"epochs": 1, "eval_every": 1, "activation_checkpointing": rng.random() < 0.2},
            "matrix": {
                "seq_len": [rng.choice((32, 64, 128))], "precision": [rng.choice(("fp32", "bf16"))],
                "padding": [rng.choice(("longest", "grouped", "max"))], "trainable": [rng.choice(("all", "all", "top2"))],
                "pad_multiple": [rng.choice((1, 1, 8))],
            },
        }  # fmt: skip
        (cell,) = expand(parse_study(study, "bench"))
        yield cell, rng.choice(CAPS_GIB)


class EpochRunner:
    """Trains epochs under a cap."""

    def __init__(self, folder: Path) -> None:
        self._preparations, self._environment = Preparations(folder), describe_environment(None)

    def run(self, cell: Cell, batch_size: int, cap_gib: float) -> str:
        """Train an epoch with a batch size, and return how it ended."""
        limits = cell.config.limits.model_copy(update={"memory_limit_gib": cap_gib})
        config = cell.config.model_copy(update={"batch_size": batch_size, "limits": limits})
        with Runner("spawn") as runner:
            capped = cell.model_copy(update={"config": config})
            return runner.run(capped, self._preparations.prepare(capped), self._environment).outcome


def judge(number: int, cell: Cell, budget: MemoryBudget, cap_gib: float, epochs: EpochRunner) -> Case:
    """Search for the batch size, and train an epoch with it and with a larger one."""
    search = BatchSizeSearch(cell, describe_environment(None).machine)
    found = find_fit(search, budget, lambda _: None)
    batch = found.batch or 0
    larger = int(batch / (1 - NEARNESS)) + 1
    return Case(
        number=number,
        cell=cell.name + (" checkpointing" if cell.config.training.activation_checkpointing else ""),
        cap_gib=cap_gib,
        num_runs=len(found.attempts) + len(found.confirmations),
        batch=batch,
        epoch=epochs.run(cell, batch, cap_gib) if batch else "none fits",
        next_batch=larger,
        next_epoch=epochs.run(cell, larger, cap_gib) if larger <= search.max_batch_size else "more than the rows",
    )


def table(cases: Sequence[Case]) -> str:
    """Write the cases as Markdown."""
    named = [case for case in cases if case.batch]
    lines = [
        f"{sum(case.epoch == 'ok' for case in named)} of {len(named)} named batch sizes trained an epoch under the cap; "
        f"{sum(case.is_near for case in named)} are within {NEARNESS:.0%} of the largest that does.",
        "",
        "| cell | cap, GiB | runs | named batch | its epoch | next batch | its epoch |",
        "|---|---:|---:|---:|---|---:|---|",
    ]
    for case in cases:
        lines.append(
            f"| {case.cell} | {case.cap_gib:g} | {case.num_runs} | {case.batch} | {case.epoch} | {case.next_batch} | {case.next_epoch} |"
        )
    return "\n".join(lines) + "\n"


def read_cases(path: Path) -> list[Case]:
    """Read the cases that an earlier call kept."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            Case(
                int(row["number"]), row["cell"], float(row["cap_gib"]), int(row["num_runs"]), int(row["batch"]), row["epoch"],
                int(row["next_batch"]), row["next_epoch"],
            )
            for row in csv.DictReader(file)
        ]  # fmt: skip


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    path = options.out.with_suffix(".csv")
    cases = read_cases(path)
    machine = describe_environment(None).machine
    with tempfile.TemporaryDirectory() as folder:
        epochs = EpochRunner(Path(folder))
        for number, (cell, cap_gib) in enumerate(draw(options.cases)):
            if any(case.number == number for case in cases) or unsupported_reason(cell.config, machine) is not None:
                continue
            budget = choose_budget(on_gpu=False, machine=machine, memory_gib=cap_gib, instance=None)
            cases.append(judge(number, cell, budget, cap_gib, epochs))
            print(cases[-1], flush=True)
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, asdict(cases[0]))
                writer.writeheader()
                writer.writerows(asdict(case) for case in cases)
    text = table(cases)
    options.out.write_text(f"# Batch sizes that `fit` names\n\n{text}", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
