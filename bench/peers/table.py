"""Markdown table of the measured rounds: medians, ratios with their spread over rounds, goals, and notes on measuring."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

WARMUP_STEPS = 3  # first steps of the parts `steps` and `precision`, left out on both sides
Round = dict


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        ours: The harness's values, one per round, in `unit`.
        ratios: One ratio per round: how many times better ours is, or ours / theirs where `goal` is a ceiling.
    """

    figure: str
    unit: str
    ours: Sequence[float]
    theirs: Sequence[float]
    ratios: Sequence[float]
    goal: str
    met: Callable[[float], bool] | None
    note: str = ""


def load_rounds(out: Path, part: str) -> list[Round]:
    """Load all rounds of a part, in order."""
    paths = sorted(out.glob(f"{part}-*.json"), key=lambda path: int(path.stem.rpartition("-")[2]))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def write_report(out: Path) -> str:
    """Return the table with its notes."""
    parts = {part: load_rounds(out, part) for part in ROWS}
    rows = [row for part, make in ROWS.items() if parts[part] for row in make(parts[part])]
    lines = [
        "| figure | ours | the peer | ratio | spread of the ratio | rounds | to reach | reached |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
        *map(format_row, rows),
    ]
    missing = [part for part, rounds in parts.items() if not rounds]
    if missing:
        lines += ["", f"Not measured: {', '.join(missing)}."]
    lines += ["", *_notes(parts)]
    return "\n".join(lines) + "\n"


def steps_rows(rounds: list[Round]) -> Iterator[Row]:
    """Compare the median step and the whole run with a bare loop's."""
    ours, theirs = (_each(rounds, who, _step) for who in ("ours", "bare loop"))
    yield _ceiling("a step of 16 x 128, against a bare loop", "s", ours, theirs, 1.01)
    ours, theirs = (_each(rounds, who, lambda run: run["train_s"]) for who in ("ours", "bare loop"))
    yield _ceiling("the whole run, first steps and all between steps included", "s", ours, theirs, None)


def throughput_rows(rounds: list[Round]) -> Iterator[Row]:
    """Compare samples per second over a whole epoch of the same rows, first steps included."""
    ours = _each(rounds, "ours, grouped", _rate)
    for padding, named, goal in (
        ("max", "padded to the maximum", 5.0),
        ("dynamic", "with dynamic padding", 1.6),
        ("grouped", "grouped by length", 1.2),
    ):
        theirs = _each(rounds, f"Trainer, {padding}", _rate)
        yield _times(f"samples/s, against Trainer {named}", "samples/s", ours, theirs, goal, inverse=False)


def engine_rows(rounds: list[Round]) -> Iterator[Row]:
    """Compare the seconds of training to the first evaluation at the target, with one recipe."""
    for padding, named, goal in (("dynamic", "with dynamic padding", 1.6), ("grouped", "grouped by length", 1.2)):
        figure = f"to {_target(rounds)} on validation, one recipe, against Trainer {named}"
        yield _to_target(rounds, figure, "ours, grouped", f"Trainer, {padding}", goal)


def recipe_rows(rounds: list[Round]) -> Iterator[Row]:
    """Compare the seconds of training to the first evaluation at the target, each side with its own recipe."""
    figure = f"to {_target(rounds)} on validation, our best recipe against TrainingArguments' defaults"
    yield _to_target(rounds, figure, "ours, best recipe", "Trainer, defaults", 4.0)


def start_rows(rounds: list[Round]) -> Iterator[Row]:
    """Compare the start of a cell and the whole command; also optimum-benchmark's loop with and without its launcher."""
    peer = "optimum-benchmark, process"
    for edge, seconds in (("beginning", _to_first_step), ("end", lambda run: run["cells"][0]["first_step_s"])):
        first = [_each(rounds, who, seconds) for who in ("ours", peer)]
        yield _times(f"a cell's order to its first step's {edge}, against optimum-benchmark", "s", *first, 20.0)
    walls = [_each(rounds, who, lambda run: run["wall_s"]) for who in ("ours", peer)]
    yield _times("one cell, the whole command, against optimum-benchmark", "s", *walls, None)
    under, alone = (_each(rounds, f"optimum-benchmark, {launcher}", _cell_step) for launcher in ("process", "inline"))
    slowed = [one / other for one, other in zip(under, alone, strict=True)]
    yield Row("its step under its launcher, against the same loop alone", "s", [], under, slowed, "-", None)


def sweep_rows(rounds: list[Round]) -> Iterator[Row]:
    """Compare the wall-clock time of the whole command."""
    walls = [_each(rounds, who, lambda run: run["wall_s"]) for who in ("ours", "optimum-benchmark, process")]
    num_cells = len(rounds[0]["runs"][0]["cells"])
    yield _times(f"{num_cells} cells, the whole command, against optimum-benchmark", "s", *walls, 5.0)


def precision_rows(rounds: list[Round]) -> Iterator[Row]:
    """Compare our median step in bf16 and in fp32."""
    for dropout in ("own dropout", "dropout 0"):
        runs = [_runs(one, f"bf16, {dropout}") for one in rounds]
        if any(run.get("outcome", "ok") != "ok" for group in runs for run in group):
            continue
        bf16, fp32 = (_each(rounds, f"{kind}, {dropout}", _step) for kind in ("bf16", "fp32"))
        yield _times(f"our step in bf16 against fp32, 16 x 128, {dropout}", "s", bf16, fp32, 2.0)


ROWS: dict[str, Callable[[list[Round]], Iterator[Row]]] = {
    "steps": steps_rows,
    "throughput": throughput_rows,
    "engine": engine_rows,
    "recipe": recipe_rows,
    "start": start_rows,
    "sweep": sweep_rows,
    "precision": precision_rows,
}


def seconds_to(run: dict, target: float) -> float | None:
    """Return the seconds of training to the first evaluation at or above the target; None if there is none."""
    return next((look["train_s"] for look in run["evaluations"] if look["accuracy"] >= target), None)


def _to_target(rounds: list[Round], figure: str, us: str, them: str, goal: float) -> Row:
    """Compare the seconds to the target, with one ratio per seed.

    A run that did not reach the target counts with its whole training time, which is a lower bound.
    """
    ours, theirs, late = [], [], {us: 0, them: 0}
    for one in rounds:
        (our,), (their,) = _runs(one, us), _runs(one, them)
        if our.get("outcome", "ok") != "ok":
            late[us] += 1
            continue
        for run, seconds in ((our, ours), (their, theirs)):
            reached = seconds_to(run, one["settings"]["target"])
            late[run["who"]] += reached is None
            seconds.append(run["train_s"] if reached is None else reached)
    notes = [f"{who}: not reached in {count} of {len(rounds)}" for who, count in late.items() if count]
    row = _times(figure, "s", ours, theirs, goal)
    # If ours missed the target for a seed, its time is only a lower bound, so the goal counts as missed.
    met = row.met if not late[us] else (lambda _: False)
    return Row(row.figure, row.unit, row.ours, row.theirs, row.ratios, row.goal, met, "; ".join(notes))


def _times(
    figure: str,
    unit: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    goal: float | None,
    *,
    inverse: bool = True,
) -> Row:
    """Return a row with ratios of how many times better ours is; `inverse` means that less is better."""
    pairs = list(zip(ours, theirs, strict=False))
    ratios = [b / a if inverse else a / b for a, b in pairs]
    if goal is None:
        return Row(figure, unit, ours, theirs, ratios, "-", None)
    return Row(figure, unit, ours, theirs, ratios, f"at least {goal:g}", lambda ratio: ratio >= goal)


def _ceiling(figure: str, unit: str, ours: Sequence[float], theirs: Sequence[float], goal: float | None) -> Row:
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    if goal is None:
        return Row(figure, unit, ours, theirs, ratios, "-", None)
    return Row(figure, unit, ours, theirs, ratios, f"at most {goal:g}", lambda ratio: ratio <= goal)


def _runs(one: Round, who: str) -> list[dict]:
    return [run for run in one["runs"] if run["who"] == who]


def _each(rounds: list[Round], who: str, value: Callable[[dict], float]) -> list[float]:
    """Return one value per round: the median of the runs of `who`."""
    return [median(map(value, _runs(one, who))) for one in rounds]


def _step(run: dict) -> float:
    return median(run["steps_s"][WARMUP_STEPS:] or run["steps_s"])


def _cell_step(run: dict) -> float:
    seconds = run["cells"][0]["steps_s"]
    return median(seconds[2:] or seconds)


def _to_first_step(run: dict) -> float:
    cell = run["cells"][0]
    return cell["first_step_s"] - cell["steps_s"][0]


def _rate(run: dict) -> float:
    return run["num_rows"] / run["train_s"]


def _target(rounds: list[Round]) -> str:
    return f"{rounds[0]['settings']['target']:g}"


def format_row(row: Row) -> str:
    return f"| {' | '.join(format_fields(row))} |"


def format_fields(row: Row) -> list[str]:
    if not row.ratios:
        return [row.figure, *"----", "0", row.goal, row.note or "no run"]
    ratio = median(row.ratios)
    spread = f"{_number(min(row.ratios))} to {_number(max(row.ratios))}"
    met = "-" if row.met is None else "yes" if row.met(ratio) else "**no**"
    shown = [f"{_number(median(values))} {row.unit}" if values else "-" for values in (row.ours, row.theirs)]
    note = f" ({row.note})" if row.note else ""
    return [row.figure, *shown, _number(ratio), spread, str(len(row.ratios)), row.goal, f"{met}{note}"]


def _number(value: float) -> str:
    """Format a number with three digits, or four if it is about 1."""
    return f"{value:.3f}" if value < 2 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _notes(parts: dict[str, list[Round]]) -> Iterator[str]:
    """Yield notes for the reader: machine, versions, settings, and figures that peers report about themselves."""
    rounds = [one for some in parts.values() for one in some]
    if not rounds:
        return
    yield (
        "- A ratio says how many times better ours is where a number is to be reached at least; where at most, ours over the "
        "peer's. It is the median over rounds of a round's own ratio."
    )
    for machine in _distinct(one["machine"] for one in rounds):
        yield f"- {machine['cpu']}, {machine['num_usable']} cores used, {machine['memory_bytes'] / 2**30:.0f} GiB, Python {machine['python']}"
    for versions in _distinct(run["versions"] for one in rounds for run in one["runs"] if "versions" in run):
        yield "- " + ", ".join(f"{name} {number}" for name, number in versions.items())
    for part, some in parts.items():
        for settings in _distinct(one["settings"] for one in some):
            named = ", ".join(f"{key} = {value}" for key, value in settings.items())
            days = sorted({one["started_at"][:10] for one in some})
            yield f"- {part}: {named}; {len(some)} round{'s' * (len(some) > 1)}, {' and '.join(days)}"
    yield from start_notes(parts["start"])


def start_notes(rounds: list[Round]) -> Iterator[str]:
    """Yield notes on where the time before the end of the first step goes, and on optimum-benchmark's own figures."""
    ours, theirs = (
        [cell for one in rounds for run in _runs(one, who) for cell in run["cells"]]
        for who in ("ours", "optimum-benchmark, process")
    )
    if not ours or not theirs:
        return
    phases = {
        "to the process's first line": median(cell["start_s"] for cell in ours),
        "to load model and rows": median(cell["load_s"] for cell in ours),
        "in the first step": median(cell["steps_s"][0] for cell in ours),
    }
    yield "- Of our seconds to the end of the first step: " + ", ".join(f"{s:.2f} {what}" for what, s in phases.items())
    outside = median(1 - sum(cell["steps_s"]) / cell["wall_s"] for cell in theirs)
    wall_s = median(cell["wall_s"] for cell in theirs)
    true = median(len(cell["steps_s"]) * cell["batch_size"] / sum(cell["steps_s"]) for cell in theirs)
    reported = median(cell["reported_samples_per_s"] for cell in theirs)
    yield (
        f"- optimum-benchmark spent {outside:.0%} of a cell's {wall_s:.1f} s outside its steps. It reported {reported:.0f} samples/s "
        f"where its own steps' seconds make {true:.1f}: it divides all samples by one step's mean."
    )


def _distinct(values: Iterable[dict]) -> list[dict]:
    return list({json.dumps(value, sort_keys=True): value for value in values}.values())
