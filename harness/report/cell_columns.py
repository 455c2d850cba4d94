"""The columns of every table of cells: how to read a quantity from a cell, and how to format it (pure).

cells.csv has all columns; summary.md and the page's table of cells have some of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Literal

from harness.analysis.estimate import Estimate
from harness.analysis.predictions import predicted_peak, predicted_seconds
from harness.analysis.summary import CellKey
from harness.decision.memory_savings import (
    ACTIVATIONS,
    BASE,
    GRADIENTS,
    OPTIMIZER,
    UNEXPLAINED,
    WEIGHTS,
    WORKSPACE,
    rank_peak,
    split_peak,
    split_record,
)
from harness.decision.scaling import ScalingPoint, Series, communication_fraction, scaling_series
from harness.pricing.cost import Priced
from harness.report.formatting import NOT_MEASURED, MoneyFormat, interval, memory, number, percent, seconds
from harness.report.labels import commit_label, hardware
from harness.schema.cells import BaselineConfig, FineTuneConfig
from harness.schema.host_record import Load
from harness.schema.record import Record
from harness.schema.training_record import Training

Value = float | int | str | bool | None
Unit = Literal["usd", "s", "bytes", "fraction", "number", "count", "text"]
Part = Literal["value", "low", "high", "basis"]

_SUFFIXES: dict[Part, str] = {"value": "", "low": "_low", "high": "_high", "basis": "_basis"}
_ENDS: tuple[Part, ...] = ("value", "low", "high")


@dataclass(frozen=True)
class CellColumn:
    """One quantity of a cell.

    Attributes:
        name: The column's name in cells.csv, with the unit at the end if there is one.
        read: Returns a cell's value; None if it was not measured.
        unit: Decides how the value is formatted.
        parts: The parts of an estimate that cells.csv holds, one column for each.
    """

    name: str
    read: Callable[[Priced], Estimate | Value]
    unit: Unit = "text"
    parts: tuple[Part, ...] = ("value",)

    @property
    def csv_names(self) -> list[str]:
        """The names of this quantity's columns in cells.csv."""
        return [self.name + _SUFFIXES[part] for part in self.parts]

    def csv_values(self, cell: Priced) -> list[Value]:
        """Return a cell's values in the order of `csv_names`."""
        value = self.read(cell)
        return [getattr(value, part) if isinstance(value, Estimate) else value for part in self.parts]

    def value(self, cell: Priced) -> float | None:
        """Return a cell's value as a number."""
        value = self.read(cell)
        number_of = value.value if isinstance(value, Estimate) else value
        return number_of if isinstance(number_of, int | float) else None

    def text(self, cell: Priced, money: MoneyFormat) -> str:
        """Format a cell's value."""
        value = self.value(cell)
        if value is None:
            return NOT_MEASURED
        formats: dict[Unit, Callable[[float], str]] = {
            "usd": money.amount,
            "s": seconds,
            "bytes": memory,
            "fraction": percent,
            "count": "{:,}".format,
        }
        return formats.get(self.unit, number)(value)

    def interval(self, cell: Priced, money: MoneyFormat) -> str:
        """Format the interval of a cell's value; empty without an interval."""
        value = self.read(cell)
        if not isinstance(value, Estimate):
            return ""
        if self.unit == "usd":
            return money.interval(value)
        if self.unit in ("s", "bytes"):
            return interval(value, "seconds" if self.unit == "s" else "bytes")
        return interval(value, "percent" if self.unit == "fraction" else "number")


def csv_columns(cells: Sequence[Priced]) -> list[CellColumn]:
    """Return every column of cells.csv in the file's order; the scaling columns compare `cells` with each other."""
    after = next(index for index, column in enumerate(COLUMNS) if column.name == "accuracy")
    return [*COLUMNS[:after], *_scaling_columns(cells), *COLUMNS[after:]]


def _summary(name: str, unit: Unit = "text", parts: tuple[Part, ...] = ("value",), field: str = "") -> CellColumn:
    """Return a column for one field of the cell's summary; `field` names it if its name differs from the column's."""
    return CellColumn(name, attrgetter(f"summary.{field or name}"), unit, parts)


def _config(name: str) -> CellColumn:
    """Return a column for one axis; its value is None for baselines without this axis."""
    return CellColumn(name, lambda cell: getattr(cell.summary.config, name, None))


def _training(name: str) -> CellColumn:
    """Return a column for one field of the cell's newest training; its value is None without a training."""
    return CellColumn(name, lambda cell: getattr(_newest_training(cell), name, None))


def _part(of: str, name: str, field: str = "", parts: tuple[Part, ...] = ("value",)) -> CellColumn:
    """Return a column for one field of an object that a cell may lack, such as its price; the value is then None.

    Args:
        of: Dotted attribute of Priced that holds the object: `price`, `energy` or `summary.compute`.
        name: Name of the column.
        field: Name of the object's field; by default the column's name.
        parts: See `CellColumn`.
    """
    get = attrgetter(of)
    return CellColumn(name, lambda cell: getattr(get(cell), field or name, None), parts=parts)


def _usd(name: str) -> CellColumn:
    """Return a column for an amount in USD, an attribute of Priced, with its interval."""
    return CellColumn(name, attrgetter(name), "usd", _ENDS)


def _newest_training(cell: Priced) -> Training | None:
    return next((record.training for record in reversed(cell.summary.records) if record.training is not None), None)


def _newest(cell: Priced) -> Record | None:
    return cell.summary.records[-1] if cell.summary.records else None


def _device(cell: Priced) -> str:
    return cell.summary.config.device or "cpu"


def _model(cell: Priced) -> str:
    config = cell.summary.config
    return config.classifier if isinstance(config, BaselineConfig) else config.model.shape or config.model.name


def _pad_multiple(cell: Priced) -> int | None:
    config = cell.summary.config
    return config.pad_multiple if config.seq_len is not None else None


def _optimizer(cell: Priced) -> str | None:
    config = cell.summary.config
    return config.training.optimizer if isinstance(config, FineTuneConfig) else None


def _device_batch_size(cell: Priced) -> int | None:
    config, training = cell.summary.config, _newest_training(cell)
    if isinstance(config, BaselineConfig):
        return None
    return config.batch_size if training is None else config.device_batch(training.world_size)


def _rank0_peak(cell: Priced) -> int | None:
    record = split_record(cell)
    return None if record is None else rank_peak(record)


def _rank0_part(part: str, cell: Priced) -> int | None:
    """Return how many bytes of rank 0's peak one use of memory takes."""
    record = split_record(cell)
    return None if record is None else (split_peak(record) or {}).get(part)


def load_before(cell: Priced) -> Load | None:
    """Return the machine's load when the newest run that recorded it began."""
    return next((record.load for record in reversed(cell.summary.records) if record.load is not None), None)


def _largest_holder(cell: Priced) -> int | None:
    load = load_before(cell)
    users = None if load is None else load.holders
    return None if users is None else max((user.num_bytes for user in users), default=0)


def _communication(cell: Priced) -> float | None:
    return communication_fraction(cell.summary) if cell.summary.kind == "fine_tune" else None


def _newest_estimate(read: Callable[[Record], Estimate | None], cell: Priced) -> Estimate | None:
    return None if (record := _newest(cell)) is None else read(record)


def _of_newest(name: str, read: Callable[[Record], Value]) -> CellColumn:
    """Return a column whose value is read from the cell's newest record; None without records."""
    return CellColumn(name, lambda cell: None if (record := _newest(cell)) is None else read(record))


def _scaling_columns(cells: Sequence[Priced]) -> list[CellColumn]:
    """Return the columns of strong and weak scaling; of several series that contain a cell, the first counts."""
    columns: list[CellColumn] = []
    every_series = scaling_series(cells)
    for kind in ("strong", "weak"):
        points: dict[CellKey, tuple[Series, ScalingPoint]] = {}
        for series in every_series:
            for point in series.points if series.kind == kind else ():
                points.setdefault(point.cell.key, (series, point))

        def read(
            cell: Priced,
            value: Callable[[Series, ScalingPoint], Estimate | int],
            points: dict[CellKey, tuple[Series, ScalingPoint]] = points,
        ) -> Estimate | int | None:
            return value(*points[cell.key]) if cell.key in points else None

        columns += [
            CellColumn(f"{kind}_base_num_devices", partial(read, value=lambda series, _: series.base.num_devices)),
            CellColumn(f"{kind}_speed_up", partial(read, value=lambda _, point: point.speed_up), "number", _ENDS),
            CellColumn(
                f"{kind}_efficiency_fraction", partial(read, value=lambda _, point: point.efficiency), "fraction", _ENDS
            ),
        ]
    return columns


_MEMORY_PARTS = {
    "base": BASE,
    "weights": WEIGHTS,
    "gradients": GRADIENTS,
    "optimizer": OPTIMIZER,
    "activations": ACTIVATIONS,
    "workspace": WORKSPACE,
    "unexplained": UNEXPLAINED,
}

SAMPLES_PER_S = _summary("samples_per_s", "number", (*_ENDS, "basis"))
ACCURACY = _summary("accuracy", "fraction", (*_ENDS, "basis"))
NUM_UPDATES = _summary("num_updates", "count")
PEAK_MEMORY = _summary("peak_memory_bytes", "bytes")
MACRO_F1 = _summary("macro_f1", "fraction")
TRAIN_S = _summary("train_s", "s")
PREDICTED_PEAK_BYTES = CellColumn("predicted_peak_bytes", partial(_newest_estimate, predicted_peak), "bytes", _ENDS)
TIME_TO_TARGET_S = _summary("time_to_target_s", "s", _ENDS)
MFU = _summary("mfu", "fraction")
USD_PER_1000_SAMPLES = _usd("usd_per_1000_samples")
USD_PER_RUN = _usd("usd_per_run")
USD_BILLED = _usd("usd_billed")
USD_TO_TARGET = _usd("usd_to_target")

COLUMNS = (
    _summary("study"),
    _summary("machine", field="machine_id"),
    *(_summary(name) for name in ("cell", "kind", "outcome", "reason")),
    CellColumn("num_runs", lambda cell: len(cell.summary.records)),
    _summary("num_ok"),
    *(_config(name) for name in ("batch_size", "seq_len", "precision")),
    CellColumn("device", _device),
    _config("padding"),
    CellColumn("pad_multiple", _pad_multiple, "count"),
    *(_config(name) for name in ("trainable", "threads")),
    CellColumn("model", _model),
    _of_newest("attention", lambda record: record.model.attention if record.model else None),
    CellColumn("optimizer", _optimizer),
    CellColumn("learning_rate", lambda cell: getattr(_newest_training(cell), "lr_peak", None)),
    *(_training(name) for name in ("world_size", "threads_per_rank")),
    CellColumn("num_nodes", attrgetter("num_nodes")),
    CellColumn("device_batch_size", _device_batch_size),
    _summary("global_batch_size"),
    NUM_UPDATES,
    SAMPLES_PER_S,
    *(_summary(name) for name in ("real_tokens_per_s", "within_run_fraction", "padding_fraction", "step_s_median")),
    *(_summary(name) for name in ("num_warmup_steps", "num_measured_steps")),
    PEAK_MEMORY,
    _summary("peak_memory_source"),
    CellColumn("rank0_peak_bytes", _rank0_peak),
    *(CellColumn(f"rank0_{name}_bytes", partial(_rank0_part, part)) for name, part in _MEMORY_PARTS.items()),
    CellColumn(
        "available_memory_before_bytes", lambda cell: getattr(load_before(cell), "available_memory_bytes", None)
    ),
    CellColumn("swap_used_before_bytes", lambda cell: getattr(load_before(cell), "swap_used_bytes", None)),
    CellColumn("largest_holder_bytes", _largest_holder),
    CellColumn("communication_fraction", _communication),
    ACCURACY,
    MACRO_F1,
    _summary("majority_accuracy", "fraction"),
    _summary("setup_s", "s"),
    TRAIN_S,
    *(_summary(name, "s") for name in ("evaluate_s", "epoch_s")),
    *(
        _summary(name)
        for name in ("evaluation_samples_per_s", "target_accuracy", "num_reached_target", "num_missed_target")
    ),
    TIME_TO_TARGET_S,
    CellColumn("target_lost", lambda cell: None if cell.summary.time_to_target_s is None else cell.summary.target_lost),
    MFU,
    CellColumn("unsteady", lambda cell: bool(cell.summary.noise) if cell.summary.num_ok else None),
    *(_part("summary.compute", name) for name in ("mfu_calibrated", "mfu_datasheet", "flop_per_s")),
    _part("summary.compute", "calibrated_flop_per_s", "peak_flop_per_s"),
    *(_part("summary.compute", name) for name in ("datasheet_flop_per_s", "copy_bytes_per_s", "flop_per_byte")),
    _part("summary.compute", "padding_flops_fraction", "padding_fraction"),
    _part("price", "usd_per_hour"),
    USD_PER_1000_SAMPLES,
    CellColumn("usd_per_1000_samples_of_share", attrgetter("usd_per_1000_samples_of_share"), "usd"),
    *(_usd(f"usd_{name}") for name in ("per_epoch", "train", "setup", "evaluate")),
    USD_PER_RUN,
    USD_TO_TARGET,
    *(_usd(f"usd_{name}") for name in ("whole_dataset", "billed", "billed_on_demand", "billed_spot")),
    *(_usd(f"usd_{name}") for name in ("per_accuracy_point", "per_month", "per_million_predictions")),
    *(_part("energy", f"energy_{field}", field, _ENDS) for field in ("joules", "kwh", "usd", "gco2e")),
    *(_part("energy", f"energy_{field}", field) for field in ("method", "is_estimate")),
    *(
        _part("price", f"price_{field}", field)
        for field in ("basis", "plan", "as_of", "age_days", "source", "paid", "note")
    ),
    *(_part("price", field) for field in ("instance", "provider", "region")),
    CellColumn("predicted_s", partial(_newest_estimate, predicted_seconds), "s", _ENDS),
    PREDICTED_PEAK_BYTES,
    CellColumn("missing_price", attrgetter("missing")),
    _of_newest("hardware", lambda record: hardware(record.machine)),
    _of_newest("torch", lambda record: record.packages.get("torch")),
    _of_newest("transformers", lambda record: record.packages.get("transformers")),
    _of_newest("commit", commit_label),
    _of_newest("started_at", lambda record: record.started_at.isoformat()),
    CellColumn("warnings", lambda cell: " ".join(cell.summary.warnings) or None),
)
