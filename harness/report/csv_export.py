"""cells.csv: every figure as data (pure: text out)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from harness.analysis.estimate import Estimate
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
from harness.decision.scaling import communication_fraction, scaling_series
from harness.pricing.cost import Priced
from harness.report.formatting import clean
from harness.report.labels import hardware
from harness.schema.cells import BaselineConfig
from harness.schema.record import Record

_PARTS = {
    BASE: "base",
    WEIGHTS: "weights",
    GRADIENTS: "gradients",
    OPTIMIZER: "optimizer",
    ACTIVATIONS: "activations",
    WORKSPACE: "workspace",
    UNEXPLAINED: "unexplained",
}
_SCALING = tuple(
    f"{kind}_{figure}"
    for kind in ("strong", "weak")
    for figure in (
        "base_num_devices",
        *("speed_up", "speed_up_low", "speed_up_high"),
        *("efficiency_fraction", "efficiency_fraction_low", "efficiency_fraction_high"),
    )
)
_AMOUNTS = (
    *("per_epoch", "train", "setup", "evaluate", "per_run", "to_target", "whole_dataset"),
    *("billed", "billed_on_demand", "billed_spot", "per_accuracy_point", "per_month", "per_million_predictions"),
)
_SIDES = (("", "value"), ("_low", "low"), ("_high", "high"))
_ENERGY = {"energy_joules": "joules", "energy_kwh": "kwh", "energy_usd": "usd", "energy_gco2e": "gco2e"}
_COMPUTE = {
    "mfu_calibrated": "mfu_calibrated",
    "mfu_datasheet": "mfu_datasheet",
    "flop_per_s": "flop_per_s",
    "calibrated_flop_per_s": "peak_flop_per_s",
    "datasheet_flop_per_s": "datasheet_flop_per_s",
    "copy_bytes_per_s": "copy_bytes_per_s",
    "flop_per_byte": "flop_per_byte",
    "padding_flops_fraction": "padding_fraction",
}
_FORMULA_START = ("=", "+", "-", "@", "\t", "\r")


def csv_text(cells: Sequence[Priced]) -> str:
    """Every cell as a row, units in the column names; empty where not measured."""
    scaled = _scaled(cells)
    rows = [csv_row(cell) | scaled.get(cell.key, dict.fromkeys(_SCALING)) for cell in cells]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([[_csv_field(row[column]) for column in COLUMNS] for row in rows])
    return out.getvalue()


def csv_row(cell: Priced) -> dict[str, Any]:
    """One cell's row, by column, but for what other cells have to do with it."""
    return _identity(cell) | _figures(cell) | _memory(cell) | _dollars(cell) | _circumstances(cell)


def _scaled(cells: Sequence[Priced]) -> dict[CellKey, dict[str, Any]]:
    """Speed-up and efficiency in strong and in weak scaling, by `cell.key`; of several series' the first's."""
    found: dict[CellKey, dict[str, Any]] = {}
    for series in scaling_series(cells):
        for point in series.points:
            row = found.setdefault(point.cell.key, dict.fromkeys(_SCALING))
            if row[f"{series.kind}_speed_up"] is None:
                row[f"{series.kind}_base_num_devices"] = series.base.num_devices
                for name, figure in (("speed_up", point.speed_up), ("efficiency_fraction", point.efficiency)):
                    for suffix, side in (("", "value"), ("_low", "low"), ("_high", "high")):
                        row[f"{series.kind}_{name}{suffix}"] = _end(figure, side)
    return found


def _memory(cell: Priced) -> dict[str, Any]:
    """Rank 0's peak by what it was for, and what was there when the newest run began."""
    record = split_record(cell)
    parts = (split_peak(record) or {}) if record is not None else {}
    load = next((run.load for run in reversed(cell.summary.records) if run.load is not None), None)
    held = load.holders if load is not None else None
    return {
        "rank0_peak_bytes": rank_peak(record) if record is not None else None,
        **{f"rank0_{column}_bytes": parts.get(part) for part, column in _PARTS.items()},
        "available_memory_before_bytes": load.available_memory_bytes if load is not None else None,
        "swap_used_before_bytes": load.swap_used_bytes if load is not None else None,
        "largest_holder_bytes": None if held is None else max((one.num_bytes for one in held), default=0),
        "communication_fraction": communication_fraction(cell.summary) if cell.summary.kind == "fine_tune" else None,
    }


def _identity(cell: Priced) -> dict[str, Any]:
    summary = cell.summary
    config = summary.config
    named: dict[str, Any] = {"study": summary.study, "machine": summary.machine_id, "cell": summary.cell}
    named |= {"kind": summary.kind, "outcome": summary.outcome, "reason": summary.reason}
    named |= {"num_runs": len(summary.records), "num_ok": summary.num_ok}
    axes = ("batch_size", "seq_len", "precision", "device", "padding", "trainable", "threads")
    if isinstance(config, BaselineConfig):
        named |= dict.fromkeys(axes) | {"model": config.classifier, "device": "cpu"}
        return named | dict.fromkeys(
            ("optimizer", "learning_rate", "world_size", "threads_per_rank", "device_batch_size")
        )
    training = next((r.training for r in reversed(summary.records) if r.training is not None), None)
    named |= {axis: getattr(config, axis) for axis in axes}
    named |= {"model": config.model.shape or config.model.name, "optimizer": config.training.optimizer}
    return named | {
        "learning_rate": training.lr_peak if training is not None else None,
        "world_size": training.world_size if training is not None else None,
        "threads_per_rank": training.threads_per_rank if training is not None else None,
        "device_batch_size": config.device_batch(training.world_size) if training is not None else config.batch_size,
    }


def _figures(cell: Priced) -> dict[str, Any]:
    summary = cell.summary
    return {
        "samples_per_s": _end(summary.samples_per_s, "value"),
        "samples_per_s_low": _end(summary.samples_per_s, "low"),
        "samples_per_s_high": _end(summary.samples_per_s, "high"),
        "samples_per_s_basis": summary.samples_per_s.basis if summary.samples_per_s is not None else None,
        "real_tokens_per_s": summary.real_tokens_per_s,
        "within_run_fraction": summary.within_run_fraction,
        "padding_fraction": summary.padding_fraction,
        "step_s_median": summary.step_s_median,
        "num_warmup_steps": summary.num_warmup_steps,
        "num_measured_steps": summary.num_measured_steps,
        "num_updates": summary.num_updates,
        "global_batch_size": summary.global_batch_size,
        "peak_memory_bytes": summary.peak_memory_bytes,
        "peak_memory_source": summary.peak_memory_source,
        "accuracy": _end(summary.accuracy, "value"),
        "accuracy_low": _end(summary.accuracy, "low"),
        "accuracy_high": _end(summary.accuracy, "high"),
        "accuracy_basis": summary.accuracy.basis if summary.accuracy is not None else None,
        "macro_f1": summary.macro_f1,
        "majority_accuracy": summary.majority_accuracy,
        "setup_s": summary.setup_s,
        "train_s": summary.train_s,
        "evaluate_s": summary.evaluate_s,
        "epoch_s": summary.epoch_s,
        "evaluation_samples_per_s": summary.evaluation_samples_per_s,
        "target_accuracy": summary.target_accuracy,
        "num_reached_target": summary.num_reached_target,
        "time_to_target_s": summary.time_to_target_s,
        "target_lost": summary.target_lost if summary.time_to_target_s is not None else None,
        "mfu": summary.mfu,
        "unsteady": bool(summary.noise) if summary.num_ok else None,
        **{column: getattr(summary.compute, field, None) for column, field in _COMPUTE.items()},
    }


def _dollars(cell: Priced) -> dict[str, Any]:
    price = cell.price
    told: dict[str, Any] = {
        "usd_per_hour": price.usd_per_hour if price is not None else None,
        "usd_per_1000_samples": _end(cell.usd_per_1000_samples, "value"),
        "usd_per_1000_samples_low": _end(cell.usd_per_1000_samples, "low"),
        "usd_per_1000_samples_high": _end(cell.usd_per_1000_samples, "high"),
    }
    each = cell.usd_per_1000_samples_of_share
    told["usd_per_1000_samples_of_share"] = _end(each, "value")
    told |= {
        f"usd_{amount}{suffix}": _end(getattr(cell, f"usd_{amount}"), side)
        for amount in _AMOUNTS
        for suffix, side in _SIDES
    }
    energy = cell.energy
    told |= {
        f"{column}{suffix}": None if energy is None else _end(getattr(energy, field), side)
        for column, field in _ENERGY.items()
        for suffix, side in _SIDES
    }
    told |= {"energy_method": energy.method if energy is not None else None}
    told |= {"energy_is_estimate": energy.is_estimate if energy is not None else None}
    fields = ("basis", "plan", "as_of", "age_days", "source", "paid", "note")
    told |= {f"price_{field}": getattr(price, field) if price is not None else None for field in fields}
    told |= {
        field: getattr(price, field) if price is not None else None for field in ("instance", "provider", "region")
    }
    return told | {"missing_price": cell.missing}


def _circumstances(cell: Priced) -> dict[str, Any]:
    record = cell.summary.records[-1] if cell.summary.records else None
    if record is None:
        return dict.fromkeys(("hardware", "torch", "transformers", "commit", "started_at", "warnings"))
    return {
        "hardware": hardware(record.machine),
        "torch": record.packages.get("torch"),
        "transformers": record.packages.get("transformers"),
        "commit": commit(record),
        "started_at": record.started_at.isoformat(),
        "warnings": " ".join(cell.summary.warnings) or None,
    }


def commit(record: Record) -> str | None:
    """The harness's commit, marked if its tree held more than that."""
    return None if record.git is None else record.git.commit[:12] + ("+dirty" if record.git.dirty else "")


def _end(estimate: Estimate | None, side: str) -> float | None:
    return None if estimate is None else getattr(estimate, side)


def _csv_field(value: object) -> str:
    """Numbers in full, None as nothing; a text that a spreadsheet would run as a formula is quoted."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return json.dumps(value)
    text = clean(value, 2_000)
    return f"'{text}" if text.startswith(_FORMULA_START) else text


COLUMNS = (
    *("study", "machine", "cell", "kind", "outcome", "reason", "num_runs", "num_ok"),
    *("batch_size", "seq_len", "precision", "device", "padding", "trainable", "threads", "model"),
    *(
        "optimizer",
        "learning_rate",
        "world_size",
        "threads_per_rank",
        "device_batch_size",
        "global_batch_size",
        "num_updates",
    ),
    *("samples_per_s", "samples_per_s_low", "samples_per_s_high", "samples_per_s_basis", "real_tokens_per_s"),
    *("within_run_fraction", "padding_fraction", "step_s_median", "num_warmup_steps", "num_measured_steps"),
    *(
        "peak_memory_bytes",
        "peak_memory_source",
        "rank0_peak_bytes",
        *(f"rank0_{part}_bytes" for part in _PARTS.values()),
    ),
    *("available_memory_before_bytes", "swap_used_before_bytes", "largest_holder_bytes"),
    *("communication_fraction", *_SCALING),
    *("accuracy", "accuracy_low", "accuracy_high", "accuracy_basis", "macro_f1", "majority_accuracy"),
    *("setup_s", "train_s", "evaluate_s", "epoch_s", "evaluation_samples_per_s"),
    *("target_accuracy", "num_reached_target", "time_to_target_s", "target_lost", "mfu", "unsteady", *_COMPUTE),
    *("usd_per_hour", "usd_per_1000_samples", "usd_per_1000_samples_low", "usd_per_1000_samples_high"),
    "usd_per_1000_samples_of_share",
    *(f"usd_{amount}{suffix}" for amount in _AMOUNTS for suffix, _ in _SIDES),
    *(f"{column}{suffix}" for column in _ENERGY for suffix, _ in _SIDES),
    *("energy_method", "energy_is_estimate"),
    *(
        "price_basis",
        "price_plan",
        "price_as_of",
        "price_age_days",
        "price_source",
        "price_paid",
        "price_note",
        "instance",
        "provider",
        "region",
        "missing_price",
    ),
    *("hardware", "torch", "transformers", "commit", "started_at", "warnings"),
)
