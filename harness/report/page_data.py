"""The page's JSON: measured seconds, prices to choose from, and assumptions as plain values (pure).

assets/recompute.js reads it and recomputes every cost. No value here is rounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel

from harness.analysis.estimate import Estimate, t_quantile
from harness.analysis.expected_loss import Loss
from harness.analysis.ranking import MAX_DEGREES_OF_FREEDOM
from harness.analysis.result_warnings import learning_warnings
from harness.decision.choice import Choice, compare_ways
from harness.decision.verdict import gain_over, is_above_0
from harness.decision.ways import Way
from harness.decision.worth import find_errors
from harness.pricing import cost, durations
from harness.pricing.cost import Priced
from harness.pricing.energy_cost import measure_joules
from harness.pricing.prices import Price
from harness.report.formatting import clean
from harness.report.labels import (
    cell_indices,
    cell_labels,
    common_values,
    describe,
    disagrees,
    machine_labels,
    missed_label,
    plain_description,
    short_labels,
)
from harness.report.sections.plain_verdict import next_steps
from harness.report.sections.verdict import BASELINE_KINDS
from harness.schema.assumptions import Assumptions, PriceBook, ValueModel
from harness.schema.cells import BaselineConfig

# Assumptions without an input on the page: only a file can state them.
_FILE_ONLY = frozenset({
    "prices.own.name", "prices.own.machine", "prices.currency.source", "prices.energy.watts_source", "prices.rate",
})  # fmt: skip

Json = dict[str, Any]
Scalar = str | int | float | None


@dataclass(frozen=True)
class AssumptionInput:
    """An input of the page: the name, text, unit and bounds of an assumption.

    Attributes:
        name: The dotted name, such as `prices.spot.restart_s`.
        choices: The allowed values; empty if the assumption is no choice between listed values.
        min, max: Inclusive bounds.
        above, below: Exclusive bounds.
    """

    name: str
    title: str
    unit: str
    why: str
    choices: list[str]
    pattern: str | None
    is_date: bool
    is_number: bool
    is_optional: bool
    min: float | None
    above: float | None
    max: float | None
    below: float | None


def page_data(
    cells: Sequence[Priced],
    choice: Choice,
    assumptions: Assumptions,
    prices: Mapping[str, Sequence[Price | None]],
    answer: Sequence[str] = (),
) -> Json:
    """Return everything that `recompute.derive` and `ranking.choose` compute from.

    Args:
        cells: Every cell of the report; a cell's index is its key on the page.
        choice: The compared cells and their baselines.
        assumptions: The assumptions that priced `cells`.
        prices: By machine id, the prices that the reader may choose from, to which the user's payment plan is not yet
            applied. The first is the report's own price, or None if the report has no price. Machines without an entry
            keep their cells' price.
        answer: The verdict in sentences, shown for as long as the reader changes nothing.
    """
    ways = {way.cell.key: way for way in choice.ways if way.cell is not None}
    machines = machine_labels(cells)
    machine_indices = {machine_id: index for index, machine_id in enumerate(machines)}
    labels = short_labels(cells) | short_labels(choice.compared)
    marks = cell_labels(cells) | cell_labels(choice.compared)
    usual, compared = common_values(cells), {cell.key for cell in choice.compared}
    tfidf_accuracies = cost.tfidf_accuracies(cell.summary for cell in cells)
    here = _losses_by_machine(choice, list(machines))
    majority = next((way for way in choice.ways if way.kind == "majority"), None)
    baselines: dict[str, Way] = {kind: way for kind in BASELINE_KINDS if (way := choice.best_of(kind)) is not None}
    rows = [
        _cell(cell, accuracy)
        | _way(ways.get(cell.key), majority, here)
        | _evidence(ways.get(cell.key), baselines)
        | {
            "label": labels[cell.key],
            "mark": marks[cell.key],
            "words": clean(describe(cell, usual)),
            "plain": plain_description(cell, usual),
            "machine": machine_indices[cell.summary.machine_id],
            "compared": cell.key in compared,
        }
        for cell, accuracy in zip(cells, tfidf_accuracies, strict=True)
    ]
    return {
        "cells": _pack(rows),
        "majority": choice.majority,
        "majority_score": _estimate(majority.score) if majority is not None else None,
        "majority_loss": _majority_losses(majority, here, list(machines)),
        "tolerance": choice.goal.tolerance,
        "missing": [
            name for reason in choice.verdict.reasons if reason.kind == "baseline_missing" for name in reason.details
        ],
        "answer": list(answer),
        "next": _next(choice, cells),
        **{
            name: next((index for index, cell in enumerate(cells) if cell is baseline), None)
            for name, baseline in {"tfidf": choice.tfidf, "features": choice.features}.items()
        },
        "machines": [
            _machine(machine_id, label, cells, prices.get(machine_id)) for machine_id, label in machines.items()
        ],
        "rates": [
            {
                "instance": rate.instance,
                "region": rate.region,
                "plan": rate.plan,
                "usd_per_hour": rate.usd_per_hour,
                "as_of": None if rate.as_of is None else rate.as_of.isoformat(),
            }
            for rate in assumptions.prices.rate
        ],
        "values": dict(values(assumptions)),
        "given": sorted(assumptions.set_by_user),
        "measured": sorted(assumptions.measured),
        "inputs": [asdict(each) for each in inputs()],
    }


def _losses_by_machine(choice: Choice, machine_ids: Sequence[str]) -> dict[str, dict[int, Loss]]:
    """Return the losses of a machine's ways and baselines against the best of them, by machine and `id(way)`.

    The reader may look at one machine alone.
    """
    losses: dict[str, dict[int, Loss]] = {}
    measured = [way for way in choice.ways if way.kind != "hosted"]
    for machine_id in machine_ids:
        own = [way for way in measured if way.cell is None or _is_on(way, machine_id)]
        compared = compare_ways(own, tolerance=choice.goal.tolerance)
        losses[machine_id] = {
            id(way): each.loss for way, each in zip(own, compared, strict=True) if each.loss is not None
        }
    return losses


def _is_on(way: Way, machine_id: str) -> bool:
    return way.cell is not None and way.cell.summary.machine_id == machine_id


def _way(way: Way | None, majority: Way | None, here: Mapping[str, Mapping[int, Loss]]) -> Json:
    """Return what the page chooses by: losses against all ways and against those of the cell's machine.

    `beats` says whether the way is shown to beat the majority class; `alarm`, whether its training has a warning.
    """
    if way is None or way.cell is None:
        return {"loss": None, "here": None, "beats": None, "alarm": False}
    gain = None if majority is None else gain_over(majority, way)
    return {
        "loss": _loss(way.loss),
        "here": _loss(here[way.cell.summary.machine_id].get(id(way))),
        "beats": gain is not None and is_above_0(gain),
        "alarm": any(learning_warnings(way.cell.summary)),
    }


def _evidence(way: Way | None, baselines: Mapping[str, Way]) -> Json:
    """Return what the page says of a way's accuracy: test texts, lead over each baseline, and warnings of its training."""
    if way is None or way.cell is None:
        return {"num_test": None, "gains": {}, "alarms": []}
    gains = {kind: gain_over(baseline, way) for kind, baseline in baselines.items() if baseline is not way}
    return {
        "num_test": None if way.scores is None else way.scores.shape[1],
        "gains": {kind: gain.value for kind, gain in gains.items() if gain is not None},
        "alarms": list(learning_warnings(way.cell.summary)),
    }


def _next(choice: Choice, cells: Sequence[Priced]) -> Json:
    """Return the next steps, and the choice and reasons that they belong to."""
    way = choice.way
    indices = cell_indices(cells)
    return {
        "index": None if way is None or way.cell is None else indices[way.cell.key],
        "reasons": [reason.kind for reason in choice.verdict.reasons],
        "steps": next_steps(cells, choice, None),
    }


def _majority_losses(
    majority: Way | None, here: Mapping[str, Mapping[int, Loss]], machine_ids: Sequence[str]
) -> list[list[float] | None] | None:
    """Return the majority class's loss against all ways and, by machine, against that machine's; None if it has a cell."""
    if majority is None or majority.cell is not None:
        return None
    return [_loss(majority.loss), *(_loss(here[machine_id].get(id(majority))) for machine_id in machine_ids)]


def _loss(loss: Loss | None) -> list[float] | None:
    return None if loss is None else [loss.mean, loss.largest]


def _pack(rows: Sequence[Json]) -> Json:
    """Store field names once instead of in each of a thousand cells; `recompute.unpack` rebuilds the objects."""
    return {"fields": list(rows[0]) if rows else [], "rows": [list(row.values()) for row in rows]}


def values(assumptions: Assumptions) -> Iterator[tuple[str, Scalar]]:
    """Yield every assumption's dotted name and value."""
    for prefix, group in (("prices", assumptions.prices), ("value", assumptions.value)):
        yield from _values(group, prefix)


def _values(group: BaseModel, prefix: str) -> Iterator[tuple[str, Scalar]]:
    for name in type(group).model_fields:
        value = getattr(group, name)
        if isinstance(value, BaseModel):
            yield from _values(value, f"{prefix}.{name}")
        elif f"{prefix}.{name}" != "prices.rate":
            yield f"{prefix}.{name}", value if value is None or isinstance(value, str | int | float) else str(value)


def inputs() -> Iterator[AssumptionInput]:
    """Yield an input for every assumption, in the files' order, except those that only a file can state."""
    for prefix, model in (("prices", PriceBook), ("value", ValueModel)):
        yield from _inputs(model, prefix)


def _inputs(model: type[BaseModel], prefix: str) -> Iterator[AssumptionInput]:
    properties = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        path = f"{prefix}.{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _inputs(field.annotation, path)
        elif path not in _FILE_ONLY:
            yield _input(path, properties[name])


def _input(path: str, schema: Json) -> AssumptionInput:
    """Build an input from the JSON schema of its field."""
    types = schema.get("anyOf", [schema])  # an optional field lists its type and null in `anyOf`
    first = types[0]
    return AssumptionInput(
        name=path,
        title=schema["title"],
        unit=schema.get("unit", ""),
        why=schema["description"] if schema["description"] != schema["title"] else "",
        choices=first.get("enum", []),
        pattern=first.get("pattern"),
        is_date=first.get("format") == "date",
        is_number=first.get("type") == "number",
        is_optional={"type": "null"} in types,
        min=first.get("minimum"),
        above=first.get("exclusiveMinimum"),
        max=first.get("maximum"),
        below=first.get("exclusiveMaximum"),
    )


def _machine(machine_id: str, label: str, cells: Iterable[Priced], prices: Sequence[Price | None] | None) -> Json:
    own_cells = [cell for cell in cells if cell.summary.machine_id == machine_id]
    machine = own_cells[0].summary.records[-1].machine
    missing = next((cell.missing for cell in own_cells if cell.missing), None)
    first, *others = prices if prices else [_price_before_plan(own_cells)]
    return {
        "id": machine_id,
        "label": label,
        "has_gpus": bool(machine.gpus),
        "missing": clean(missing or "no price was found"),
        "choices": [_price(price) for price in (first, *others) if price is not None],
        "chosen": None if first is None else 0,
    }


def _price_before_plan(cells: Sequence[Priced]) -> Price | None:
    """Return these cells' price, which keeps the listed prices that any plan starts from; None for owned hardware."""
    price = next((cell.price for cell in cells if cell.price is not None), None)
    return None if price is None or price.plan == "own" else price


def _price(price: Price) -> Json:
    listed = price.usd_per_hour if price.usd_per_hour_listed is None and price.is_listed else price.usd_per_hour_listed
    return {
        "instance": _optional(price.instance),
        "provider": _optional(price.provider),
        "region": _optional(price.region),
        "basis": price.basis,
        "doubtful": disagrees(price),
        "as_of": _optional(price.as_of),
        "listed": listed,
        "spot": price.usd_per_hour_spot,
        "granularity_s": price.granularity_s,
        "minimum_s": price.minimum_s,
    }


def _optional(text: str | None) -> str | None:
    return None if text is None else clean(text, 80)


def _cell(cell: Priced, tfidf_accuracy: float | None) -> Json:
    summary = cell.summary
    config, data = summary.config, summary.data
    errors = find_errors(summary.ok_records)
    whole = durations.whole_dataset_seconds(summary)
    joules = measure_joules(summary.ok_records)
    return {
        "name": clean(summary.cell, 160),
        "kind": summary.kind,
        "num_ok": summary.num_ok,
        "classifier": config.classifier if isinstance(config, BaselineConfig) else None,
        "num_train": data.train.num_rows if data else None,
        "num_updates": summary.num_updates,
        "peak_memory_bytes": summary.peak_memory_bytes,
        "setup_s": summary.setup_s,
        "train_s": summary.train_s,
        "evaluate_s": summary.evaluate_s,
        "epoch_s": summary.epoch_s,
        "time_to_target_s": _ranked(summary.time_to_target_s),
        "missed_target": missed_label(cell),
        "whole_dataset_s": None if whole is None else whole.value,
        "samples_per_s": _ranked(summary.samples_per_s),
        "evaluation_samples_per_s": _estimate(durations.prediction_rate(summary)),
        "accuracy": _estimate(summary.accuracy),
        "tfidf_accuracy": tfidf_accuracy,
        "errors": None if errors is None else [errors.false_positive_fraction, errors.false_negative_fraction],
        "joules": _estimate(joules[0]) if joules is not None else None,
        "gpu_share": cost.gpu_share(summary),
        "num_nodes": config.num_nodes,
    }


def _estimate(estimate: Estimate | None) -> list[float | None] | None:
    return None if estimate is None else [estimate.value, estimate.low, estimate.high]


def _ranked(estimate: Estimate | None) -> list[float | None] | None:
    """Add what comparing.js needs: degrees of freedom, and the interval's half-width in standard errors.

    Both are left out where `MAX_DEGREES_OF_FREEDOM` stands for a larger number.
    """
    degrees_of_freedom = math.inf if estimate is None else estimate.degrees_of_freedom
    ends = _estimate(estimate)
    if ends is None or degrees_of_freedom >= MAX_DEGREES_OF_FREEDOM:
        return ends
    return [*ends, degrees_of_freedom, t_quantile(degrees_of_freedom)]
