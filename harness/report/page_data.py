"""What the page computes with: measured seconds, prices that may be chosen, and assumptions, as plain values (pure).

assets/recompute.js reads it. Nothing here is judged or rounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from harness.analysis.estimate import Estimate
from harness.decision.choice import Choice
from harness.decision.worth import find_errors
from harness.pricing import cost, durations
from harness.pricing.cost import Priced
from harness.pricing.energy_cost import measure_joules
from harness.pricing.prices import Price
from harness.report.formatting import clean
from harness.report.labels import cell_labels, common_values, describe, machine_labels, short_labels
from harness.report.sections.answer import disagrees
from harness.schema.assumptions import Assumptions, PriceBook, ValueModel
from harness.schema.cells import BaselineConfig

# Not asked on the page: what only a file can say.
_FILE_ALONE = frozenset({
    "prices.own.name", "prices.own.machine", "prices.currency.source", "prices.energy.watts_source", "prices.rate",
})  # fmt: skip


def page_data(
    cells: Sequence[Priced], choice: Choice, assumed: Assumptions, choices: Mapping[str, Sequence[Price | None]]
) -> dict[str, Any]:
    """Everything that `recompute.derive` and `ranking.choose` need.

    Args:
        cells: Every cell of the report, in its order: a cell's place is its key on the page.
        choice: What is compared with what, among `cells`.
        assumed: Those under which `cells` was priced.
        choices: By machine id, the prices that its reader may choose from, before the reader's plan; the first is
            the report's own, None where it has none. Of a machine without an entry the price at hand is taken.
    """
    machines = machine_labels(cells)
    places = {machine_id: index for index, machine_id in enumerate(machines)}
    labels = short_labels(cells) | short_labels(choice.compared)
    marks = cell_labels(cells) | cell_labels(choice.compared)
    usual, compared = common_values(cells), {cell.key for cell in choice.compared}
    tfidf = cost.tfidf_accuracies(cell.summary for cell in cells)
    return {
        "cells": _packed(
            [
                _cell(cell, accuracy)
                | {
                    "label": labels[cell.key],
                    "mark": marks[cell.key],
                    "words": clean(describe(cell, usual)),
                    "machine": places[cell.summary.machine_id],
                    "compared": cell.key in compared,
                }
                for cell, accuracy in zip(cells, tfidf, strict=True)
            ]
        ),
        "majority": choice.majority,
        "tfidf": next((index for index, cell in enumerate(cells) if cell is choice.tfidf), None),
        "machines": [
            _machine(machine_id, label, cells, choices.get(machine_id)) for machine_id, label in machines.items()
        ],
        "rates": [
            {
                "instance": rate.instance,
                "region": rate.region,
                "plan": rate.plan,
                "usd_per_hour": rate.usd_per_hour,
                "as_of": None if rate.as_of is None else rate.as_of.isoformat(),
            }
            for rate in assumed.prices.rate
        ],
        "values": dict(values(assumed)),
        "given": sorted(assumed.set_by_user),
        "measured": sorted(assumed.measured),
        "inputs": list(inputs()),
    }


def _packed(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Names once, not in each of a thousand cells; recompute.unpack has them as they were."""
    return {"fields": list(rows[0]) if rows else [], "rows": [list(row.values()) for row in rows]}


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
        "pattern": kind.get("pattern"),
        "is_date": kind.get("format") == "date",
        "is_number": kind.get("type") == "number",
        "is_optional": {"type": "null"} in kinds,
        "min": kind.get("minimum"), "above": kind.get("exclusiveMinimum"),
        "max": kind.get("maximum"), "below": kind.get("exclusiveMaximum"),
    }  # fmt: skip


def _machine(
    machine_id: str, label: str, cells: Iterable[Priced], choices: Sequence[Price | None] | None
) -> dict[str, Any]:
    own = [cell for cell in cells if cell.summary.machine_id == machine_id]
    machine = own[0].summary.records[-1].machine
    missing = next((cell.missing for cell in own if cell.missing), None)
    first, *others = choices if choices else [_before_plan(own)]
    return {
        "id": machine_id,
        "label": label,
        "has_gpus": bool(machine.gpus),
        "missing": clean(missing or "no price was found"),
        "choices": [_choice(price) for price in (first, *others) if price is not None],
        "chosen": None if first is None else 0,
    }


def _before_plan(cells: Sequence[Priced]) -> Price | None:
    """The price that these cells have; under a plan, what it was made from is all that is left of it."""
    price = next((cell.price for cell in cells if cell.price is not None), None)
    return None if price is None or price.plan == "own" else price


def _choice(price: Price) -> dict[str, Any]:
    listed = price.usd_per_hour if price.usd_per_hour_listed is None and price.is_listed else price.usd_per_hour_listed
    return {
        "instance": _optional(price.instance), "provider": _optional(price.provider), "region": _optional(price.region),
        "basis": price.basis, "doubtful": disagrees(price), "as_of": _optional(price.as_of), "listed": listed,
        "spot": price.usd_per_hour_spot, "granularity_s": price.granularity_s, "minimum_s": price.minimum_s,
    }  # fmt: skip


def _optional(text: str | None) -> str | None:
    return None if text is None else clean(text, 80)


def _cell(cell: Priced, tfidf: float | None) -> dict[str, Any]:
    summary = cell.summary
    data = summary.data
    errors = find_errors(summary.ok_records)
    whole = durations.whole_dataset_seconds(summary)
    drawn = measure_joules(summary.ok_records)
    return {
        "name": clean(summary.cell, 160), "kind": summary.kind, "num_ok": summary.num_ok,
        "classifier": summary.config.classifier if isinstance(summary.config, BaselineConfig) else None,
        "num_train": data.train.num_rows if data else None, "num_updates": summary.num_updates,
        "peak_memory_bytes": summary.peak_memory_bytes,
        "setup_s": summary.setup_s, "train_s": summary.train_s, "evaluate_s": summary.evaluate_s,
        "epoch_s": summary.epoch_s, "time_to_target_s": summary.time_to_target_s,
        "evaluate_to_target_s": summary.evaluate_to_target_s,
        "whole_dataset_s": None if whole is None else whole.value,
        "samples_per_s": _estimate(summary.samples_per_s),
        "evaluation_samples_per_s": _estimate(durations.prediction_rate(summary)),
        "accuracy": _estimate(summary.accuracy), "tfidf_accuracy": tfidf,
        "errors": None if errors is None else [errors.false_positive_fraction, errors.false_negative_fraction],
        "joules": _estimate(drawn[0]) if drawn is not None else None,
        "gpu_share": cost.gpu_share(summary),
    }  # fmt: skip


def _estimate(estimate: Estimate | None) -> list[float | None] | None:
    return None if estimate is None else [estimate.value, estimate.low, estimate.high]
