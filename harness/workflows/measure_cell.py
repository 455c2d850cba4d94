"""One cell out of keyword arguments, run and judged: what the pytest fixture `bert_cell` gives to a test."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.analysis.estimate import value_of
from harness.analysis.summarize import summarize
from harness.analysis.summary import Summary
from harness.errors import UserError
from harness.execution.sweep import NullListener, describe_environment, run_cells
from harness.pricing.price_table import load_prices
from harness.pricing.prices import price_machine
from harness.schema.cells import FineTuneConfig, hash_config
from harness.schema.expansion import expand
from harness.schema.record import Outcome, Record
from harness.schema.settings import TABLES, Study
from harness.schema.study_file import parse_study
from harness.workflows.model_card import card_writer

_TWO_SEEDS = "seed: the data's or training's? Give data={'seed': 0}, or seeds=[0]"


@dataclass(frozen=True, repr=False)
class MeasuredCell:
    """A cell that was run; each figure is None where it was not measured.

    Attributes:
        summary: All figures of its runs together, with intervals and warnings.
        records: What was measured, raw: one of every seed and repeat, in the order of running.
    """

    summary: Summary
    records: tuple[Record, ...]

    def __repr__(self) -> str:
        """Short, since a failed assertion shows it."""
        return f"<MeasuredCell {self.summary.cell}: {self.outcome}>"

    @property
    def record(self) -> Record:
        """The last run's."""
        return self.records[-1]

    @property
    def outcome(self) -> Outcome:
        """`ok`, or how the first run ended that did not end well."""
        return self.summary.outcome

    @property
    def reason(self) -> str | None:
        """Why, where it did not end well."""
        return self.summary.reason

    @property
    def samples_per_s(self) -> float | None:
        """Samples a second of the measured steps."""
        return value_of(self.summary.samples_per_s)

    @property
    def step_s_median(self) -> float | None:
        """Median of the measured steps, in seconds."""
        return self.summary.step_s_median

    @property
    def train_s(self) -> float | None:
        """The training clock, in seconds; mean of the runs."""
        return self.summary.train_s

    @property
    def peak_memory_bytes(self) -> int | None:
        """Largest of the runs."""
        return self.summary.peak_memory_bytes

    @property
    def accuracy(self) -> float | None:
        """On the test set, 0 to 1."""
        return value_of(self.summary.accuracy)


def measure_cell(keys: Mapping[str, Any], results: Path) -> MeasuredCell:
    """Run one cell, all its seeds and repeats, and save its records under `results`.

    Args:
        keys: Of a study, see `as_study`.

    Raises:
        UserError: For a key or value that no study may have, for more than one cell, or when model or data can't be had.
        KeyboardInterrupt: When Ctrl-C stopped it.
    """
    cells = expand(parse_study({"name": "pytest"} | as_study(keys) | {"baselines": False}, where="bert_cell"))
    names = list(dict.fromkeys(cell.name for cell in cells))
    if len({hash_config(cell.config, ignore=("seed",)) for cell in cells}) != 1:
        raise UserError(f"bert_cell: one cell at a time, these keys name {len(names)}: {', '.join(names)}")
    around = describe_environment(None)
    keeps = any(isinstance(cell.config, FineTuneConfig) and cell.config.training.keep_model for cell in cells)
    write_card = card_writer(price_machine(load_prices(), around.machine)) if keeps else None
    records = run_cells(cells, results, around, NullListener(), write_card=write_card)
    if records[-1].outcome == "interrupted":
        raise KeyboardInterrupt
    (summary,) = summarize(records)
    return MeasuredCell(summary, tuple(records))


def as_study(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Put each key into the table that has it: `num_train` into `data`, `batch_size` into `matrix`.

    A whole table (`model={"name": ...}`) may be given too.

    Raises:
        UserError: For a key that no table has, and for `seed`, which could be two things.
    """
    if "seed" in keys:
        raise UserError(f"bert_cell: {_TWO_SEEDS}")
    study: dict[str, Any] = {}
    for key, given in keys.items():
        value = str(given) if isinstance(given, Path) else given
        if key not in Study.model_fields:
            study.setdefault(_table_of(key), {})[key] = value
        elif isinstance(value, Mapping):
            study[key] = study.get(key, {}) | dict(value)
        else:
            study[key] = value
    return study


def _table_of(key: str) -> str:
    for name, table in TABLES.items():
        if key in table.model_fields:
            return name
    known = [*Study.model_fields, *(key for table in TABLES.values() for key in table.model_fields)]
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "`harness keys` lists all"
    raise UserError(f"bert_cell: no study has the key {key!r} ({hint})")
