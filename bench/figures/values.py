"""The figures and tables that the documents quote, each computed from the shipped records."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from math import exp, log
from statistics import median
from textwrap import wrap

from bench_coverage import coverage_table
from bench_memory_prediction import describe_errors, errors_of, read_rows
from figures.reference import AMD, REFERENCE, XEON, priced
from peers.table import ROWS, format_fields, load_rounds
from typer.testing import CliRunner

from harness.analysis.estimate import Estimate, map_increasing, ratio_estimate, t_interval
from harness.cli.main import app
from harness.decision.choice import choose
from harness.decision.ladder import LadderStep, ladders
from harness.decision.learning_curve import forecast_gains, forecast_lead, learning_curves, whole_error
from harness.decision.scaling import scaling_series
from harness.pricing.cost import Priced
from harness.report.formatting import USD, number, with_interval
from harness.schema.record import Record

_MIB = 2**20
_CHOSEN, _CHOSEN_IN_FP32 = "b16-s64-bf16-cpu-grouped-all", "b16-s64-fp32-cpu-grouped-all"
_FEWER_ROWS = 2000
_SHOWN_SENTENCES, _COLUMNS = 3, 100


def figure(name: str) -> str:
    """Return a figure by its name, `SECTION.KEY`."""
    section, _, key = name.partition(".")
    return SECTIONS[section]()[key]


def spread(estimate: Estimate, show: Callable[[float], str]) -> str:
    """Format an estimate with its interval, as `0.037 (0.017 to 0.057)`."""
    return with_interval(show(estimate.value), f"{show(estimate.low)} to {show(estimate.high)}")


def ratio(estimate: Estimate) -> str:
    """Format a ratio of two figures with its interval."""
    return spread(estimate, lambda value: number(value, 2))


def share(value: float) -> str:
    """Format an accuracy."""
    return f"{value:.3f}"


def points(value: float) -> str:
    """Format a difference of accuracies in points."""
    return f"{100 * value:.1f}"


def usd(estimate: Estimate) -> str:
    """Format an amount of USD, without its sign and interval."""
    return USD.amount(estimate.value).removeprefix(USD.sign)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], texts: Sequence[str] = ()) -> str:
    """Return a Markdown table; all columns but the first and `texts` hold numbers."""
    rule = "|".join("---" if name in (head[0], *texts) else "---:" for name in head)
    first, *others = (f"| {' | '.join(fields)} |" for fields in (head, *rows))
    return "\n".join(["", first, f"|{rule}|", *others, ""])


def cell(study: str, name: str, machine: str = AMD) -> Priced:
    """Return a cell by its name or a part of it."""
    return next(each for each in priced(study, machine).cells if name in each.summary.cell)


@functools.cache
def default() -> dict[str, str]:
    """Compute the figures of the default study."""
    found = priced("default", AMD)
    choice = choose(found.cells, found.assumed)
    way, price = choice.way, choice.way.cell.price
    cells = sorted(found.cells, key=lambda each: each.summary.kind != "baseline")
    head = (
        "cell",
        "samples/s",
        "peak memory, MiB",
        "test accuracy",
        "updates",
        "training, s",
        "USD per 1,000 samples",
        "USD a run",
    )
    return {
        "table": table(head, [_default_row(each) for each in cells]),
        "verdict": f"{choice.verdict.kind} `{way.name}`",
        "bill": f"{USD.prose(way.usd.value).removeprefix(USD.sign)} USD",
        "admitted": str(len(choice.admitted)),
        "loss": points(way.loss.mean),
        "largest-loss": points(way.loss.largest),
        "accuracy": spread(way.score, share),
        "percent": f"{100 * way.score.value:.0f} %",
        "over-features": spread(choice.difference(choice.best_of("features")), points),
        "over-tfidf": points(choice.difference(choice.best_of("tfidf")).value),
        "seconds": f"{way.seconds:.0f} seconds",
        "price": f"{USD.hourly(price.usd_per_hour).removeprefix(USD.sign)} USD an hour",
        "price-source": f"{price.instance}, {price.as_of}",
        "bf16-amd": ratio(_bf16_speed_up(AMD)),
        "bf16-xeon": ratio(_bf16_speed_up(XEON)),
        "padding": ratio(ratio_estimate(*(cell("default", name).summary.samples_per_s for name in (_CHOSEN_IN_FP32, "cpu-max-all")))),
    }  # fmt: skip


def _default_row(each: Priced) -> list[str]:
    found = each.summary
    if not found.num_ok:
        return [f"`{found.cell}`", found.outcome, *[""] * 6]
    return [
        f"`{found.cell}`",
        "-" if found.samples_per_s is None else spread(found.samples_per_s, lambda value: f"{value:.1f}"),
        f"{found.peak_memory_bytes / _MIB:,.0f}",
        share(found.accuracy.value),
        "-" if found.num_updates is None else str(found.num_updates),
        f"{found.train_s:.1f}",
        "-" if each.usd_per_1000_samples is None else f"{each.usd_per_1000_samples.value:.5f}",
        f"{each.usd_per_run.value:.5f}",
    ]


def _bf16_speed_up(machine: str) -> Estimate:
    bf16, fp32 = (cell("default", name, machine).summary.samples_per_s for name in (_CHOSEN, _CHOSEN_IN_FP32))
    return ratio_estimate(bf16, fp32)


@functools.cache
def quickstart() -> dict[str, str]:
    """Show the first sentences of `harness recommend` on the default study's records, wrapped as in a terminal."""
    folders = [str(folder) for folder in sorted(REFERENCE.glob("*/default"))]
    sentences = CliRunner().invoke(app, ["recommend", *folders]).stdout.splitlines()[:_SHOWN_SENTENCES]
    lines = [line for sentence in sentences for line in wrap(sentence, _COLUMNS, subsequent_indent="  ")]
    return {"output": "\n" + "\n".join(["```", *lines, "```"]) + "\n"}


@functools.cache
def ladder() -> dict[str, str]:
    """Compute the figures of the ladder: of the first script, the recommended step and the cheapest, numbered as there."""
    (found,) = ladders(priced("ladder", AMD).cells)
    first, figures = found.rungs[0], {"target": f"{found.target:.2f}"}
    for step in found.rungs[1:]:
        figures |= {
            f"{step.number}-speed-up": ratio(step.speed_up),
            f"{step.number}-saving": ratio(step.saving),
            f"{step.number}-reached": f"{step.num_reached} of {step.num_runs}",
            f"{step.number}-lost": points(_accuracy(first).value - _accuracy(step).value),
        }
        if step.num_runs == first.num_runs:
            figures[f"{step.number}-cheaper"] = ratio(_times_cheaper(first, step))
    return figures | {f"{step.number}-accuracy": spread(_accuracy(step), share) for step in found.rungs}


def _accuracy(step: LadderStep) -> Estimate:
    return step.cell.summary.accuracy


def _times_cheaper(first: LadderStep, step: LadderStep) -> Estimate:
    """Divide the seconds of whole runs, seed by seed; on one machine, dollars have the same ratio."""
    pairs = zip(*(sorted(each.cell.summary.records, key=_seed) for each in (first, step)), strict=True)
    return map_increasing(t_interval([log(_run_s(a) / _run_s(b)) for a, b in pairs], "between seeds"), exp)


def _seed(record: Record) -> int:
    return record.config.seed


def _run_s(record: Record) -> float:
    """Return the seconds of set-up, training and validations."""
    phases = record.phases
    return phases.start_s + phases.load_s + phases.tokenise_s + phases.train_s + phases.evaluate_s


@functools.cache
def data() -> dict[str, str]:
    """Compute the figures of the learning curves."""
    curve, *others = learning_curves(priced("data", AMD).cells)
    sizes = [point.num_train for point in curve.points]
    fewer, whole = curve.points[sizes.index(_FEWER_ROWS)], curve.largest
    (forecast,) = forecast_gains(curve)
    figures = {
        "gain": "+" + spread(curve.errors.gain(sizes.index(_FEWER_ROWS), -1), share),
        "accuracy-2000": share(fewer.accuracy.value),
        "accuracy-all": share(whole.accuracy.value),
        "usd": number(whole.cell.usd_per_run.value - fewer.cell.usd_per_run.value, 2),
        "labels-usd": f"{(whole.num_train - _FEWER_ROWS) / 10:,.0f}",
        "forecast": "+" + spread(forecast.accuracy, share),
        "forecast-usd": number(forecast.usd, 2),
        "lead": "+" + spread(forecast_lead(curve), share),
        "seconds-error": f"{100 * max(abs(whole_error(curve, point) or 0) for point in curve.points):.0f} %",
    }
    for name, other in zip(("frozen", "tfidf"), others, strict=True):
        figures[name] = share(other.largest.accuracy.value)
        figures[f"{name}-usd"] = number(other.largest.cell.usd_per_run.value, 1)
    figures["tfidf-forecast"] = "+" + spread(forecast_gains(others[1])[0].accuracy, share)
    return figures


@functools.cache
def ddp() -> dict[str, str]:
    """Compute the speed of two processes on two cores over that of one."""
    return {series.kind: ratio(series.points[-1].speed_up) for series in scaling_series(priced("ddp", AMD).cells)}


@functools.cache
def lab() -> dict[str, str]:
    """Compute the figures of the student's recipe and of the model trained whole."""
    figures = {}
    for key, name in (("head", "max-head"), ("whole", "max-all")):
        found = cell("lab", name)
        figures |= {
            f"{key}-accuracy": share(found.summary.accuracy.value),
            f"{key}-usd": usd(found.usd_per_run),
            f"{key}-minutes": f"{found.summary.train_s / 60:.1f}",
        }
    return figures


@functools.cache
def memory() -> dict[str, str]:
    """Compute the errors of predicted memory, with every block mapped and with glibc's default allocator."""
    rows = read_rows()
    mapped, of_default = errors_of(rows, default_allocator=False), errors_of(rows, default_allocator=True)
    return {
        "table": f"\n{describe_errors(rows)}\n",
        "cells": str(len(mapped)),
        "median": f"{100 * mapped[len(mapped) // 2]:.1f} %",
        "worst": f"{100 * mapped[-1]:.1f} %",
        "default-cells": str(len(of_default)),
        "default-median": f"{100 * of_default[len(of_default) // 2]:.0f} %",
        "default-worst": f"{100 * of_default[-1]:.0f} %",
    }


@functools.cache
def peers() -> dict[str, str]:
    """Compute the comparison with other tools."""
    rows = [row for part, make in ROWS.items() for row in make(load_rounds(REFERENCE / "peers", part))]
    head = ("figure", "ours", "the other", "ratio", "its range over rounds", "rounds", "goal", "reached")
    starts = {
        "bare": "a step of",
        "padded": "samples/s, against Trainer padded",
        "dynamic": "samples/s, against Trainer with dynamic",
        "grouped": "samples/s, against Trainer grouped",
    }
    return {"table": table(head, [format_fields(row) for row in rows], ("reached",))} | {
        key: _median_and_range(next(row.ratios for row in rows if row.figure.startswith(start)))
        for key, start in starts.items()
    }


def _median_and_range(ratios: Sequence[float]) -> str:
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


@functools.cache
def coverage() -> dict[str, str]:
    """Compute how often intervals of speed hold the other runs' mean."""
    lines = coverage_table([REFERENCE / AMD / "coverage"])
    rows = [[field.strip() for field in line.strip("|").split("|")] for line in lines]
    column = dict(zip(rows[0], range(len(rows[0])), strict=True))
    fives = [row for row in rows if row[column["runs in a block"]] == "5"]
    return {
        "table": "\n" + "\n".join(lines) + "\n",
        "spread": _range([row[column["spread between runs"]] for row in rows[2:]]),
        "fives-covered": _range([row[column["interval covers"]] for row in fives]),
        "fives-width": _range([row[column["its half-width, median"]] for row in fives]),
    }


def _range(percentages: Sequence[str]) -> str:
    """Return the range of percentages, such as `8 to 10 %`; empty fields are left out."""
    values = [float(text.rstrip("%")) for text in percentages if text]
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return f"{low} %" if low == high else f"{low} to {high} %"


SECTIONS: dict[str, Callable[[], dict[str, str]]] = {
    section.__name__: section for section in (default, quickstart, ladder, data, ddp, lab, memory, peers, coverage)
}
