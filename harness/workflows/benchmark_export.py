"""`harness export`: convert records to the JSON format of pytest-benchmark."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.analysis.estimate import Estimate
from harness.analysis.summarize import summarize
from harness.analysis.summary import Summary
from harness.analysis.throughput import ThroughputWindow, measure_windows
from harness.errors import UserError
from harness.schema.cells import FineTuneConfig, hash_config
from harness.schema.host_record import Machine
from harness.schema.record import Record
from harness.schema.settings import AXES
from harness.shipped import how_to_install

_UNKNOWN_BRANCH = "(unknown)"  # pytest-benchmark's own placeholder; records hold no branch
_HASH_LENGTH = 6  # characters of a configuration hash in a benchmark's name


@dataclass(frozen=True)
class BenchmarkExport:
    """Fields of a pytest-benchmark file.

    Attributes:
        num_benchmarks: Number of exported cells.
        skipped: Cells without a measured step, as `study/cell`.
    """

    fields: dict[str, object]
    num_benchmarks: int
    skipped: tuple[str, ...]


def export_benchmarks(records: Iterable[Record], machine: str | None = None) -> BenchmarkExport:
    """Convert each cell of one machine to a benchmark whose rounds are the measured steps of all its runs.

    Statistics are computed by pytest-benchmark's own code, so that they are comparable with other benchmarks.

    Args:
        records: Records of any cells.
        machine: Machine id or a part of the id; needed if the records come from several machines.

    Raises:
        UserError: If pytest-benchmark is not installed, `machine` is missing or ambiguous, or no cell has a measured step.
    """
    try:
        from pytest_benchmark import __version__
        from pytest_benchmark.stats import Stats
    except ImportError:
        raise UserError(f"pytest-benchmark is not installed ({how_to_install('pytest')})") from None
    summaries = summarize(_select_machine(list(records), machine))
    windows_by_cell = [(summary, _windows(summary)) for summary in summaries]
    measured = [(summary, windows) for summary, windows in windows_by_cell if windows]
    if not measured:
        raise UserError("nothing to export: no cell has a measured step")
    newest = max((summary.records[-1] for summary, _ in measured), key=lambda record: record.started_at)
    names = Counter((summary.study, summary.cell) for summary, _ in measured)
    benchmarks = []
    for summary, windows in measured:
        stats = Stats()
        for step_s in (second for window in windows for second in window.seconds):
            stats.update(step_s)
        ambiguous = names[summary.study, summary.cell] > 1
        benchmark = _benchmark(summary, windows, add_hash=ambiguous)
        benchmarks.append(benchmark | {"stats": stats.as_dict() | {"data": stats.data, "iterations": 1}})
    fields: dict[str, object] = {
        "machine_info": _machine_info(newest.machine),
        "commit_info": _commit_info(newest),
        "benchmarks": benchmarks,
        "datetime": newest.started_at.isoformat(),
        "version": __version__,
    }
    skipped = tuple(f"{summary.study}/{summary.cell}" for summary, windows in windows_by_cell if not windows)
    finite = {key: _finite(value) for key, value in fields.items()}
    return BenchmarkExport(finite, len(benchmarks), skipped)


def _finite(value: object) -> object:
    """Replace figures that are not finite, which JSON can't hold, by None: intervals of very noisy steps have no end."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _select_machine(records: Sequence[Record], machine: str | None) -> list[Record]:
    ids = sorted({record.machine.id for record in records})
    if not ids:
        raise UserError("nothing to export: no records found")
    matching = [name for name in ids if name == machine] or [name for name in ids if machine is None or machine in name]
    if len(matching) != 1:
        problem = f"--machine {machine} matches {len(matching)} machines" if machine else "one file holds one machine"
        raise UserError(f"{problem}; choose with --machine: {', '.join(ids)}")
    return [record for record in records if record.machine.id == matching[0]]


def _windows(summary: Summary) -> list[ThroughputWindow]:
    trainings = [record.training for record in summary.ok_records if record.training is not None]
    return [window for window in measure_windows(trainings) if window.seconds]


def _benchmark(summary: Summary, windows: Sequence[ThroughputWindow], *, add_hash: bool) -> dict[str, object]:
    """Return a benchmark without its statistics; `add_hash` tells cells of the same name apart."""
    config, newest = summary.config, summary.records[-1]
    assert isinstance(config, FineTuneConfig)  # noqa: S101 - only cells with measured steps get here, never baselines
    name = summary.cell + (f"[{hash_config(config, ignore=('seed',))[:_HASH_LENGTH]}]" if add_hash else "")
    return {
        "group": summary.study,
        "name": name,
        "fullname": f"{summary.study}::{name}",
        "param": None,
        "params": {axis: getattr(config, axis) for axis in AXES},
        "options": {"timer": newest.training.steps.clock if newest.training else None},
        "extra_info": {
            "samples_per_s": _estimate(summary.samples_per_s),
            "accuracy": _estimate(summary.accuracy),
            "macro_f1": summary.macro_f1,
            "peak_memory_bytes": summary.peak_memory_bytes,
            "peak_memory_source": summary.peak_memory_source,
            "real_tokens_per_s": summary.real_tokens_per_s,
            "padding_fraction": summary.padding_fraction,
            "setup_s": summary.setup_s,
            "train_s": summary.train_s,
            "evaluate_s": summary.evaluate_s,
            "num_runs": len(windows),
            "num_warmup_steps": summary.num_warmup_steps,
            "step_s_mean_by_run": [sum(window.seconds) / len(window.seconds) for window in windows],
            "warnings": list(summary.warnings),
            "is_made_up": any(record.is_made_up for record in summary.records),
            "config_hash": newest.config_hash,
            "measuring_version": newest.measuring_version,
            "commit": newest.git.commit if newest.git else None,
            "torch": newest.packages.get("torch"),
            "transformers": newest.packages.get("transformers"),
        },
    }


def _estimate(estimate: Estimate | None) -> dict[str, object] | None:
    return None if estimate is None else vars(estimate)


def _machine_info(machine: Machine) -> dict[str, object]:
    """Return the machine under pytest-benchmark's keys; `node` is the machine id, because records hold no host name."""
    return {
        "node": machine.id,
        "processor": machine.cpu.model,
        "python_version": machine.python,
        "release": machine.kernel,
        "system": machine.system,
        "cpu": {
            "brand_raw": machine.cpu.model,
            "count": machine.cpu.num_logical,
            "flags": list(machine.cpu.flags),
        },
        "harness_machine": machine.model_dump(mode="json"),
    }


def _commit_info(record: Record) -> dict[str, object]:
    """Return the commit of the harness that wrote a record."""
    return {
        "id": record.git.commit if record.git else "unversioned",
        "time": None,
        "author_time": None,
        "dirty": record.git.dirty if record.git else False,
        "project": "bert-cost-harness",
        "branch": _UNKNOWN_BRANCH,
    }
