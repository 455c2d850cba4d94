"""Every assumption with its value and its origin: the user, a measurement or an example (pure)."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import Literal

from pydantic import BaseModel

from harness.report.formatting import clean
from harness.report.table import Table, table, text_field
from harness.schema.assumptions import Assumptions

HEADS = ("assumption", "value", "whose")
YOURS, EXAMPLE, MEASURED = "yours", "example", "measured"
_MAX_VALUE = 80

AssumptionsFile = Literal["prices", "value"]


def assumptions_table(assumptions: Assumptions, file: AssumptionsFile) -> Table:
    """List one file's assumptions in the file's order, without contract rates: those are shown with prices."""
    rows = [
        (
            text_field(title, name, f"{file}.toml: {name.partition('.')[2]}"),
            text_field(value),
            text_field(_origin(name, assumptions)),
        )
        for name, title, value in _values(getattr(assumptions, file), file)
    ]
    return table(HEADS, rows)


def value_origin(assumptions: Assumptions, group: str) -> str:
    """State how many of the assumptions under a dotted name are the user's, measured, or examples."""
    names = [name for name, _, _ in _values(attrgetter(group)(assumptions), group)]
    num_given = sum(name in assumptions.set_by_user for name in names)
    num_measured = sum(name in assumptions.measured for name in names)
    if num_measured:
        yours = f"{num_given} of {len(names)} yours, " if num_given else ""
        rest = ", the rest examples" if num_given + num_measured < len(names) else ""
        return f"{yours}{num_measured} measured{rest}"
    if num_given == 0:
        return "examples" if len(names) > 1 else "an example"
    return YOURS if num_given == len(names) else f"{num_given} of {len(names)} yours, the rest examples"


def count_given(assumptions: Assumptions, file: AssumptionsFile) -> tuple[int, int]:
    """Return how many of a file's assumptions the user set, and how many the file has."""
    names = [name for name, _, _ in _values(getattr(assumptions, file), file)]
    return sum(name in assumptions.set_by_user for name in names), len(names)


def _origin(name: str, assumptions: Assumptions) -> str:
    return YOURS if name in assumptions.set_by_user else MEASURED if name in assumptions.measured else EXAMPLE


def _values(group: BaseModel, prefix: str) -> Iterator[tuple[str, str, str]]:
    """Yield each assumption's dotted name, title, and value with its unit."""
    for name, field in type(group).model_fields.items():
        path, value = f"{prefix}.{name}", getattr(group, name)
        if isinstance(value, BaseModel):
            yield from _values(value, path)
        elif path != "prices.rate":
            extra = field.json_schema_extra
            unit = str(extra.get("unit", "")) if isinstance(extra, dict) else ""
            yield path, field.title or name, _format(value, unit)


def _format(value: object, unit: str) -> str:
    if value is None:
        return "not given"
    text = f"{value:,.10g}" if isinstance(value, int | float) else clean(str(value).replace("_", " "), _MAX_VALUE)
    return f"{text} {unit}".strip()
