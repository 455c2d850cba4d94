"""What the page computes with: measured seconds, prices that may be chosen, and assumptions, as plain values (pure).

report/whatif.js reads it. Nothing here is judged or rounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from harness import cost
from harness.assumptions import Assumptions, PriceBook, ValueModel
from harness.cost import Priced
from harness.energy_use import measure_joules
from harness.matrix import BaselineConfig
from harness.prices import Price
from harness.report.naming import machine_labels, short_labels
from harness.report.wording import clean
from harness.statistics import Estimate
from harness.worth import find_errors

# Not asked on the page: what only a file can say.
_FILE_ALONE = frozenset({
    "prices.rate", "prices.own.name", "prices.own.machine", "prices.currency.source", "prices.energy.watts_source",
})  # fmt: skip


def facts(cells: Sequence[Priced], assumed: Assumptions, choices: Mapping[str, Sequence[Price]]) -> dict[str, Any]:
    """Everything that `whatif.derive` needs.

    Args:
        cells: Every cell of the report, in its order: a cell's place is its key on the page.
        assumed: Those under which `cells` was priced.
        choices: By machine id, the prices that its reader may choose from, before the reader's plan; the first is
            the report's own.
    """
    labels, machines = short_labels(cells), machine_labels(cells)
    places = {machine_id: index for index, machine_id in enumerate(machines)}
    tfidf = cost.tfidf_accuracies(cell.summary for cell in cells)
    return {
        "cells": [
            _cell(cell, labels[id(cell)], places[cell.summary.machine_id], accuracy)
            for cell, accuracy in zip(cells, tfidf, strict=True)
        ],
        "machines": [
            _machine(machine_id, label, cells, choices.get(machine_id, ())) for machine_id, label in machines.items()
        ],
        "rates": [
            {"instance": rate.instance, "region": rate.region, "plan": rate.plan, "usd_per_hour": rate.usd_per_hour}
            for rate in assumed.prices.rate
        ],
        "values": dict(values(assumed)),
        "given": sorted(assumed.given),
        "inputs": list(inputs()),
    }


def values(assumed: Assumptions) -> Iterator[tuple[str, Any]]:
    """Every assumption by its dotted name."""
    for prefix, group in (("prices", assumed.prices), ("value", assumed.value)):
        yield from _values(group, prefix)


def _values(group: BaseModel, prefix: str) -> Iterator[tuple[str, Any]]:
    for name in type(group).model_fields:
        value = getattr(group, name)
        if isinstance(value, BaseModel):
            yield from _values(value, f"{prefix}.{name}")
        elif f"{prefix}.{name}" != "prices.rate":
            yield f"{prefix}.{name}", value if value is None or isinstance(value, str | int | float) else str(value)


def inputs() -> Iterator[dict[str, Any]]:
    """What the page may ask for: name, words, unit and bounds of every assumption, in the files' order."""
    for prefix, model in (("prices", PriceBook), ("value", ValueModel)):
        yield from _inputs(model, prefix)


def _inputs(model: type[BaseModel], prefix: str) -> Iterator[dict[str, Any]]:
    schema = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        path = f"{prefix}.{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _inputs(field.annotation, path)
        elif path not in _FILE_ALONE:
            yield _input(path, schema[name])


def _input(path: str, told: dict[str, Any]) -> dict[str, Any]:
    kinds = told.get("anyOf", [told])  # X | None
    kind = kinds[0]
    return {
        "name": path,
        "title": told["title"],
        "unit": told.get("unit", ""),
        "why": told["description"] if told["description"] != told["title"] else "",
        "choices": kind.get("enum", []),
        "is_number": kind.get("type") == "number",
        "is_optional": {"type": "null"} in kinds,
        "min": kind.get("minimum"), "above": kind.get("exclusiveMinimum"),
        "max": kind.get("maximum"), "below": kind.get("exclusiveMaximum"),
    }  # fmt: skip


def _machine(machine_id: str, label: str, cells: Iterable[Priced], choices: Sequence[Price]) -> dict[str, Any]:
    own = [cell for cell in cells if cell.summary.machine_id == machine_id]
    machine = own[0].summary.records[-1].machine if own[0].summary.records else None
    missing = next((cell.missing for cell in own if cell.missing), None)
    return {
        "id": machine_id,
        "label": label,
        "has_gpus": bool(machine and machine.gpus),
        "missing": clean(missing or "no price was found"),
        "choices": [_choice(price) for price in choices],
        "chosen": 0 if choices else None,
    }


def _choice(price: Price) -> dict[str, Any]:
    listed = price.usd_per_hour if price.usd_per_hour_listed is None and price.is_listed else price.usd_per_hour_listed
    return {
        "instance": price.instance, "provider": price.provider, "region": price.region, "basis": price.basis,
        "as_of": price.as_of, "listed": listed, "spot": price.usd_per_hour_spot,
        "granularity_s": price.granularity_s, "minimum_s": price.minimum_s,
    }  # fmt: skip


def _cell(cell: Priced, label: str, machine: int, tfidf: float | None) -> dict[str, Any]:
    summary = cell.summary
    data = next((record.data for record in reversed(summary.ok_records) if record.data is not None), None)
    errors = find_errors(summary.ok_records)
    whole = cost.whole_dataset_seconds(summary)
    drawn = measure_joules(summary.ok_records)
    return {
        "name": clean(summary.cell, 160), "label": label, "study": clean(summary.study, 80), "machine": machine,
        "kind": summary.kind, "outcome": summary.outcome,
        "classifier": summary.config.classifier if isinstance(summary.config, BaselineConfig) else None,
        "trainable": getattr(summary.config, "trainable", None),
        "test_set": data.test.sha256[:16] if data else None,
        "num_train": data.train.num_rows if data else None,
        "setup_s": summary.setup_s, "train_s": summary.train_s, "evaluate_s": summary.evaluate_s,
        "epoch_s": summary.epoch_s, "time_to_target_s": summary.time_to_target_s,
        "evaluate_to_target_s": summary.evaluate_to_target_s,
        "whole_dataset_s": None if whole is None else whole.value,
        "samples_per_s": _estimate(summary.samples_per_s),
        "evaluation_samples_per_s": _estimate(cost.prediction_rate(summary)),
        "accuracy": _estimate(summary.accuracy), "majority_accuracy": summary.majority_accuracy,
        "tfidf_accuracy": tfidf,
        "errors": None if errors is None else [errors.false_positive_fraction, errors.false_negative_fraction],
        "joules": _estimate(drawn[0]) if drawn is not None else None,
        "gpu_share": cost.gpu_share(summary),
    }  # fmt: skip


def _estimate(estimate: Estimate | None) -> dict[str, float | None] | None:
    return None if estimate is None else {"value": estimate.value, "low": estimate.low, "high": estimate.high}
