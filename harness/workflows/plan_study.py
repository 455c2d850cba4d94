"""List a study's cells with their state and what they will take: `harness plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from harness.analysis.estimate import Estimate, map_increasing
from harness.execution.completed import find_all_done
from harness.execution.jobs import Environment
from harness.execution.preparation import Preparations
from harness.execution.probing import CellPrediction, OnProbe, StudyPrediction, plan_cells, recall_cells
from harness.execution.runner import Runner
from harness.execution.sweep import exclusive_lock
from harness.machine.private_folders import private_folder
from harness.machine.support import unsupported_reason
from harness.pricing.cost import billed_cost
from harness.pricing.formulas import usd_of_seconds
from harness.pricing.prices import Price
from harness.schema.assumptions import PriceBook
from harness.schema.cells import Cell
from harness.schema.host_record import Machine
from harness.schema.record import Record
from harness.store.record_files import LoadedRecords
from harness.workflows.model_support import refused_by_model

Basis = Literal["last run", "probe", "records"]


@dataclass(frozen=True)
class PlanRow:
    """One cell of a plan.

    Attributes:
        state: Done, stale, to do, or unsupported here.
        reason: Why the cell is unsupported; None otherwise.
        expected_s: Seconds of the cell's last run; None without one.
        expected_usd: What these cost at the machine's hourly price.
        predicted_s: Seconds from order to end, with a 95 % interval; None if nothing is known of cells that compute alike.
        predicted_usd: The provider's bill for these seconds on a machine of its own.
        predicted_peak_bytes: Peak memory of all ranks; None where memory is not predicted.
        predicted_samples_per_s: Training throughput.
        basis: Where the prediction is from; `last run` if there is none, but an earlier run.
    """

    cell: str
    repeat: int
    seed: int | None
    state: str
    reason: str | None
    expected_s: float | None
    expected_usd: float | None
    config_hash: str
    predicted_s: Estimate | None = None
    predicted_usd: Estimate | None = None
    predicted_peak_bytes: Estimate | None = None
    predicted_samples_per_s: Estimate | None = None
    basis: Basis | None = None

    def as_fields(self) -> dict[str, object]:
        """Return the fields of `--json`; each prediction is a number with `_low` and `_high`."""
        fields: dict[str, object] = {}
        for name, value in asdict(self).items():
            if not name.startswith("predicted_"):
                fields[name] = value
                continue
            estimate = getattr(self, name)
            fields[name] = None if estimate is None else estimate.value
            fields[f"{name}_low"] = None if estimate is None else estimate.low
            fields[f"{name}_high"] = None if estimate is None else estimate.high
        return fields


def plan_rows(
    cells: Sequence[Cell],
    stored: LoadedRecords,
    machine: Machine,
    price: Price | None,
    book: PriceBook,
    prediction: StudyPrediction | None = None,
) -> list[PlanRow]:
    """List cells with what is known of them; reads no data.

    Args:
        cells: The study's cells.
        stored: This machine's records.
        machine: This machine.
        price: This machine's price; None if it is not known.
        book: The user's assumptions about prices.
        prediction: Of a probe that just ran; None: what earlier probes planned.
    """
    if prediction is None:
        planned = recall_cells(cells, stored.probes, machine)
        prediction = StudyPrediction(planned, [*stored.probes, *stored.records], machine)
    rows = []
    for cell, (state, last) in zip(cells, find_all_done(cells, stored.records, machine), strict=True):
        reason = unsupported_reason(cell.config, machine) or refused_by_model(cell.config)
        predicted = None if reason else prediction.predict(cell.config_hash)
        rows.append(_row(cell, "unsupported" if reason else state, reason, last, predicted, price, book))
    return rows


def _row(
    cell: Cell, state: str, reason: str | None, last: Record | None, predicted: CellPrediction | None, price: Price | None,
    book: PriceBook,
) -> PlanRow:  # fmt: skip
    last_s = None if reason or last is None else last.duration_s
    seconds = None if predicted is None else predicted.time.seconds
    basis: Basis | None = None
    if predicted is not None:
        basis = predicted.time.basis
    elif last_s is not None:
        basis = "last run"
    return PlanRow(
        cell=cell.name,
        repeat=cell.repeat,
        seed=getattr(cell.config, "seed", None),
        state=state,
        reason=reason,
        expected_s=last_s,
        expected_usd=None if price is None else usd_of_seconds(price.usd_per_hour, last_s),
        config_hash=cell.config_hash,
        predicted_s=seconds,
        predicted_usd=_bill(seconds, price, book),
        predicted_peak_bytes=None if predicted is None else predicted.peak_bytes,
        predicted_samples_per_s=None if predicted is None else predicted.time.samples_per_s,
        basis=basis,
    )


def _bill(seconds: Estimate | None, price: Price | None, book: PriceBook) -> Estimate | None:
    if seconds is None or price is None or billed_cost(seconds.value, price, book, price.plan) is None:
        return None
    return map_increasing(seconds, lambda each: billed_cost(each, price, book, price.plan) or 0.0)


@dataclass(frozen=True)
class ProbedStudy:
    """What the cells of a study will take, and the probes that failed."""

    prediction: StudyPrediction
    failed: tuple[Record, ...]


def probe_study(
    cells: Sequence[Cell], stored: LoadedRecords, results: Path, environment: Environment, on_probe: OnProbe
) -> ProbedStudy:
    """Prepare a study's data, probe what is not known yet, and save the probes.

    Args:
        cells: The study's cells.
        stored: This machine's records.
        results: Folder of records.
        environment: Facts about this machine and checkout.
        on_probe: Called before each probe.

    Raises:
        UserError: Model or data is unusable, or another run is measuring into the folder.
        KeyboardInterrupt: Ctrl-C ended a probe.
    """
    with exclusive_lock(results), private_folder("probe") as folder, Runner() as runner:
        preparations = Preparations(folder)
        planned = plan_cells(cells, [preparations.prepare(cell) for cell in cells], environment.machine)
        prediction = StudyPrediction(planned, [*stored.probes, *stored.records], environment.machine)
        runner.wait_until_warm()
        probes = prediction.probe(runner, results, environment, on_probe)
    return ProbedStudy(prediction, tuple(record for record in probes if record.probe is None))
