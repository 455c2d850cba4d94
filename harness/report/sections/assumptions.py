"""Every assumption with its value, and whether it is the reader's or an example (pure)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel

from harness.report.formatting import clean
from harness.report.sections.cell_table import Field
from harness.schema.assumptions import Assumptions

INPUT_HEADS = ("assumption", "value", "whose")
YOURS, EXAMPLE, MEASURED = "yours", "example", "measured"
_LONGEST = 80


def input_rows(assumed: Assumptions, file: Literal["prices", "value"]) -> list[tuple[Field, ...]]:
    """The assumptions of one file in its order; contract rates are told where a price is."""
    return [
        (
            Field(title, name, f"{file}.toml: {name.partition('.')[2]}", numeric=False),
            Field(value, None, numeric=False),
            Field(_value_origin(name, assumed), None, numeric=False),
        )
        for name, title, value in _inputs(getattr(assumed, file), file)
    ]


def value_origin(assumed: Assumptions, group: str) -> str:
    """Whether the assumptions under a dotted name are the reader's."""
    names = [name for name, _, _ in _inputs(_group(assumed, group), group)]
    given = sum(name in assumed.set_by_user for name in names)
    measured = sum(name in assumed.measured for name in names)
    if measured:
        yours = f"{given} of {len(names)} yours, " if given else ""
        return f"{yours}{measured} measured" + (", the rest examples" if given + measured < len(names) else "")
    if given == 0:
        return "examples" if len(names) > 1 else "an example"
    return YOURS if given == len(names) else f"{given} of {len(names)} yours, the rest examples"


def count_given(assumed: Assumptions, file: Literal["prices", "value"]) -> tuple[int, int]:
    """How many of a file's assumptions are the reader's, and how many there are."""
    names = [name for name, _, _ in _inputs(getattr(assumed, file), file)]
    return sum(name in assumed.set_by_user for name in names), len(names)


def _value_origin(name: str, assumed: Assumptions) -> str:
    return YOURS if name in assumed.set_by_user else MEASURED if name in assumed.measured else EXAMPLE


def _group(assumed: Assumptions, group: str) -> BaseModel:
    found: Any = assumed
    for part in group.split("."):
        found = getattr(found, part)
    model: BaseModel = found
    return model


def _inputs(group: BaseModel, prefix: str) -> Iterator[tuple[str, str, str]]:
    """Dotted name, title, and value with its unit."""
    for name, field in type(group).model_fields.items():
        path, value = f"{prefix}.{name}", getattr(group, name)
        if isinstance(value, BaseModel):
            yield from _inputs(value, path)
        elif path != "prices.rate":
            extra = field.json_schema_extra
            unit = str(extra.get("unit", "")) if isinstance(extra, dict) else ""
            yield path, field.title or name, _shown(value, unit)


def _shown(value: object, unit: str) -> str:
    if value is None:
        return "not given"
    words = f"{value:,.10g}" if isinstance(value, int | float) else clean(str(value).replace("_", " "), _LONGEST)
    return f"{words} {unit}".strip()
