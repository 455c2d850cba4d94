"""A strategy that makes records from frozen ones by changing values, and every command that reads records."""

from __future__ import annotations

import copy
import json
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from typer.testing import CliRunner

from harness.cli import main as cli
from harness.errors import UserError

FROZEN = Path(__file__).parent / "fixtures" / "records"
NUMBERS = [0, 1, -1, 2, 0.5, -0.5, 1e-300, 1e-9, 1e9, 1e15, 1e308, 2**31, 2**62, 2**63, 10**30, 10**400]
STRANGE = [
    *NUMBERS, float("inf"), float("nan"), None, True, "", "x", "\x1b[2J", "\u202e", "a" * 300, "..", "é\U0001f600", [], [0], {}, [[]],
    "2026-10-01T08:00:00", "2026-10-01T08:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "<b>|`", "[bold]",
]  # fmt: skip
INVOCATIONS = (
    ("report", "{mixed}", "--out", "{out}"),
    ("recommend", "{mixed}"),
    ("recommend", "{mixed}", "--target", "60%", "--json"),
    ("plan", "{study}", "--results", "{mixed}"),
    ("compare", "{mixed}", "{good}", "--markdown", "{out}.md"),
    ("compare", "{good}", "{mixed}"),
    ("export", "--results", "{mixed}"),
)


def frozen_records() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(FROZEN.glob("v*/*.json"))]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value; of a list its first two items and its last."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))
    elif isinstance(value, list):
        for index in sorted({0, 1, len(value) - 1} & set(range(len(value)))):
            yield from places(value[index], (*path, index))


@st.composite
def mutated_records(draw: st.DrawFn, frozen: Sequence[dict[str, Any]]) -> bytes:
    """Change one to three values of a frozen record: replaced, scaled, dropped, doubled, or a list cut or grown."""
    fields = copy.deepcopy(draw(st.sampled_from(frozen)))
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        sections = [key for key in fields if key not in ("packages", "stderr_tail")]
        section = draw(st.sampled_from(sections))
        path = draw(st.sampled_from([(section, *rest) for rest in [(), *places(fields[section])]]))
        holder = fields
        for part in path[:-1]:
            holder = holder[part]
        old = holder[path[-1]]
        way = draw(st.sampled_from(["replace", "scale", "shape"]))
        if way == "scale" and isinstance(old, int | float) and not isinstance(old, bool):
            holder[path[-1]] = old * draw(st.sampled_from([0, -1, 1e-12, 1e12, 1e300, 2, 0.5]))
        elif way == "shape" and isinstance(old, list):
            holder[path[-1]] = draw(st.sampled_from([old[:-1], old[1:], [], old * 2, old[:1], old[:1] * len(old)]))
        elif way == "shape" and isinstance(holder, dict):
            del holder[path[-1]]
        else:
            holder[path[-1]] = copy.deepcopy(draw(st.sampled_from(STRANGE)))  # a shared list could come to hold itself
    try:
        return json.dumps(fields).encode()
    except ValueError:
        return b"{}"


def find_traceback(folder: Path, mutated: Sequence[bytes], good: Path, study: Path) -> str | None:
    """Read records beside good ones with every command; return the first traceback with its command, or None."""
    mixed = folder / "mixed"
    for index, content in enumerate(mutated):
        place = mixed / "m" / "s" / f"c{index}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "20261001T080000Z-0a1b.json").write_bytes(content)
    for path in good.rglob("*.json"):
        copied = mixed / path.relative_to(good)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_bytes(path.read_bytes())
    names = {"mixed": mixed, "good": good, "study": study, "out": folder / "out"}
    cells = [("show", str(path)) for path in sorted((mixed / "m").rglob("*.json"))]
    for invocation in (*INVOCATIONS, *cells):
        command = [part.format(**names) for part in invocation]
        result = CliRunner().invoke(cli.app, command)
        if result.exception is not None and not isinstance(result.exception, SystemExit | UserError):
            lines = "".join(traceback.format_exception(result.exception)).splitlines()
            print(*lines[-14:], sep="\n", file=sys.stderr)
            return f"{' '.join(invocation[:1])}: {lines[-1]}"
    return None
