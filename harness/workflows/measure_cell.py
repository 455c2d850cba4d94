"""Run one cell given as keyword arguments and summarize it: the pytest fixture `bert_cell`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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

_AMBIGUOUS_SEED = "seed is ambiguous: give data={'seed': 0} or seeds=[0]"


@dataclass(frozen=True, repr=False)
class MeasuredCell:
    """The figures of a cell; each is None if it was not measured.

    Attributes:
        summary: Figures over all runs, with intervals and warnings.
        records: Raw records, one per seed and repeat, in the order of running.
    """

    summary: Summary
    records: tuple[Record, ...]

    def __repr__(self) -> str:
        """Return a short text, because failed assertions print it."""
        return f"<MeasuredCell {self.summary.cell}: {self.outcome}>"

    @property
    def record(self) -> Record:
        """Record of the last run."""
        return self.records[-1]

    @property
    def outcome(self) -> Outcome:
        """`ok`, or the outcome of the first run that failed."""
        return self.summary.outcome

    @property
    def reason(self) -> str | None:
        """Why a run failed; None if the outcome is `ok`."""
        return self.summary.reason

    @property
    def samples_per_s(self) -> float | None:
        """Throughput of the measured steps, in samples per second."""
        return value_of(self.summary.samples_per_s)

    @property
    def step_s_median(self) -> float | None:
        """Median time of the measured steps, in seconds."""
        return self.summary.step_s_median

    @property
    def train_s(self) -> float | None:
        """Training time in seconds, mean over the runs."""
        return self.summary.train_s

    @property
    def peak_memory_bytes(self) -> int | None:
        """Largest peak memory of the runs, in bytes."""
        return self.summary.peak_memory_bytes

    @property
    def accuracy(self) -> float | None:
        """Accuracy on the test set, 0 to 1."""
        return value_of(self.summary.accuracy)


def measure_cell(keys: Mapping[str, object], results: Path) -> MeasuredCell:
    """Run one cell with all its seeds and repeats, and save its records in `results`.

    Args:
        keys: Study keys, see `as_study`.
        results: Folder for the records.

    Raises:
        UserError: If a key or value is invalid, the keys name several cells, or model or data is not available.
        KeyboardInterrupt: If Ctrl-C stopped the run.
    """
    cells = expand(parse_study({"name": "pytest"} | as_study(keys) | {"baselines": False}, where="bert_cell"))
    names = list(dict.fromkeys(cell.name for cell in cells))
    if len({hash_config(cell.config, ignore=("seed",)) for cell in cells}) != 1:
        raise UserError(f"bert_cell runs one cell; these keys name {len(names)}: {', '.join(names)}")
    environment = describe_environment(None)
    saves_model = any(isinstance(cell.config, FineTuneConfig) and cell.config.training.keep_model for cell in cells)
    write_card = card_writer(price_machine(load_prices(), environment.machine)) if saves_model else None
    records = run_cells(cells, results, environment, NullListener(), write_card=write_card)
    if records[-1].outcome == "interrupted":
        raise KeyboardInterrupt
    (summary,) = summarize(records)
    return MeasuredCell(summary, tuple(records))


def as_study(keys: Mapping[str, object]) -> dict[str, object]:
    """Put each key into its study table: `num_train` into `data`, `batch_size` into `matrix`.

    Whole tables (`model={"name": ...}`) are accepted too.

    Raises:
        UserError: If no table has a key, or if `seed` is given: both `data` and `training` have this key.
    """
    if "seed" in keys:
        raise UserError(f"bert_cell: {_AMBIGUOUS_SEED}")
    top_level: dict[str, object] = {}
    tables: dict[str, dict[str, object]] = {}
    for key, given in keys.items():
        value = str(given) if isinstance(given, Path) else given
        if key not in Study.model_fields:
            tables.setdefault(_table_of(key), {})[key] = value
        elif isinstance(value, Mapping):
            tables.setdefault(key, {}).update(value)
        else:
            top_level[key] = value
    return top_level | tables


def _table_of(key: str) -> str:
    for name, table in TABLES.items():
        if key in table.model_fields:
            return name
    known = [*Study.model_fields, *(key for table in TABLES.values() for key in table.model_fields)]
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "`harness keys` lists all keys"
    raise UserError(f"bert_cell: unknown study key {key!r} ({hint})")
