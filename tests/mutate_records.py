"""A strategy that makes records from frozen ones by changing values, and every command that reads them."""

from __future__ import annotations

import copy
import json
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from harness.cli import main as cli
from harness.errors import UserError
from harness.machine.describe import describe_machine, package_version
from harness.schema.expansion import expand
from harness.schema.record import MEASURING_VERSION
from harness.schema.study_file import load_study
from harness.store.record_files import decode_record, load_record, save_record

FROZEN = Path(__file__).parent / "fixtures" / "records"
NUMBERS = [0, 1, -1, 2, 0.5, -0.5, 1e-300, 1e-9, 1e9, 1e15, 1e308, 2**31, 2**62, 2**63, 10**30, 10**400]
STRANGE = [
    *NUMBERS, float("inf"), float("nan"), None, True, "", "x", "\x1b[2J", "\u202e", "a" * 300, "..", "é\U0001f600", [], [0], {}, [[]],
    "2026-10-01T08:00:00", "2026-10-01T08:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "<b>|`", "[bold]",
]  # fmt: skip
READING = (
    ("report", "{mixed}", "--out", "{out}"),
    ("recommend", "{mixed}"),
    ("recommend", "{mixed}", "--target", "60%", "--json"),
    ("plan", "{study}", "--results", "{mixed}"),
    ("compare", "{mixed}", "{good}", "--markdown", "{out}.md"),
    ("compare", "{good}", "{mixed}"),
    ("export", "--results", "{mixed}"),
)
# They start the server that loads torch. No cell of the study can run on any machine, so that nothing is trained.
RUNNING = (
    ("run", "{study}", "--results", "{mixed}"),
    ("run", "{study}", "--results", "{mixed}", "--force", "--no-skip"),
    ("train", "{study}", "--results", "{mixed}", "--cell", "b8-", "--checkpoints", "{out}"),
)
STUDY = """baselines = false
[data]
source = "{data}"
num_train = 16
num_val = 8
num_test = 8
[matrix]
batch_size = [8, 16]
device = ["cpu-ddp9999"]
"""
BATCH = 12


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


def accepted_mutations(count: int, seed_: int) -> list[bytes]:
    """Return those of `count` mutated records that meet the schema, each once."""
    accepted: dict[bytes, None] = {}

    @seed(seed_)
    @settings(
        max_examples=count, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=[*HealthCheck]
    )
    @given(mutated_records(frozen_records()))
    def mutate(content: bytes) -> None:
        try:
            decode_record(content)
        except UserError:
            return
        accepted[content] = None

    mutate()
    return list(accepted)


def find_tracebacks(folder: Path, contents: Sequence[bytes], commands: Sequence[Sequence[str]]) -> Iterator[str | None]:
    """Read records in batches, beside good ones, with each command; yield the first traceback of each batch, or None."""
    good, study = folder / "good", folder / "mine.toml"
    for path in sorted(FROZEN.glob("v5/*.json")):
        save_record(load_record(path), good)
    data = folder / "reviews.csv"
    data.write_text("text,label\n" + "".join(f"review {row},{'good' if row % 3 else 'bad'}\n" for row in range(40)))
    study.write_text(STUDY.format(data=data))
    for start in range(0, len(contents), BATCH):
        yield _find_traceback(folder / f"{start}", contents[start : start + BATCH], good, study, commands)


def _find_traceback(
    folder: Path, mutated: Sequence[bytes], good: Path, study: Path, commands: Sequence[Sequence[str]]
) -> str | None:
    mixed = folder / "mixed"
    here = mixed / describe_machine().id  # `plan`, `run` and `train` read the records of this machine alone
    for index, content in enumerate(mutated):
        place = here / "s" / f"c{index}"
        place.mkdir(parents=True, exist_ok=True)
        own = _of_the_studys_cell(content, study) if index % 2 else content
        (place / "20261001T080000Z-0a1b.json").write_bytes(own)
    for path in good.rglob("*.json"):
        copied = mixed / path.relative_to(good)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_bytes(path.read_bytes())
    names = {"mixed": mixed, "good": good, "study": study, "out": folder / "out"}
    cells = [("show", str(path)) for path in sorted(here.rglob("*.json"))] if commands is READING else []
    for invocation in (*commands, *cells):
        command = [part.format(**names) for part in invocation]
        result = CliRunner().invoke(cli.app, command)
        if result.exception is not None and not isinstance(result.exception, SystemExit | UserError):
            lines = "".join(traceback.format_exception(result.exception)).splitlines()
            print(*lines[-14:], sep="\n", file=sys.stderr)
            return f"{' '.join(invocation[:1])}: {lines[-1]}"
    return None


def _of_the_studys_cell(content: bytes, study: Path) -> bytes:
    """Return a record as a fresh one of the study's first cell on this machine, as far as it is still a record then."""
    fields, machine = json.loads(content), describe_machine()
    cell = expand(load_study(study))[0]
    own: dict[str, Any] = {"config_hash": cell.config_hash, "repeat": 0, "measuring_version": MEASURING_VERSION}
    own["machine"] = fields["machine"] | {"id": machine.id, "host": machine.host}
    own["packages"] = {name: package_version(name) for name in ("torch", "transformers")}
    return json.dumps(fields | own).encode()
