"""Records to the JSON that `pytest-benchmark compare` reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.analysis.estimate import Estimate
from harness.analysis.summarize import summarize
from harness.analysis.summary import Summary
from harness.analysis.throughput import ThroughputWindow, measure_windows
from harness.errors import UserError
from harness.schema.cells import FineTuneConfig, hash_config
from harness.schema.host_record import Machine
from harness.schema.record import Record
from harness.schema.settings import AXES

_NOT_RECORDED = "(unknown)"  # pytest-benchmark's own word for a branch that it can't tell
_SHOWN_HASH = 6


@dataclass(frozen=True)
class Exported:
    """A file's fields, and the cells that have no step to tell of."""

    fields: dict[str, Any]
    left_out: tuple[str, ...]


def export_benchmarks(records: Iterable[Record], machine: str | None = None) -> Exported:
    """Make a benchmark of each cell of one machine, of the seconds of its measured steps in all runs.

    Statistics are pytest-benchmark's own code, so that they mean what they mean beside other benchmarks.

    Args:
        machine: Its id or a part of it, where the records are of several.

    Raises:
        UserError: When pytest-benchmark is not installed, or the machine is not told, or none of its cells has a step.
    """
    try:
        from pytest_benchmark import __version__
        from pytest_benchmark.stats import Stats
    except ImportError:
        raise UserError("pytest-benchmark is not installed (pip install '.[pytest]')") from None
    summaries = summarize(_of_one_machine(list(records), machine))
    measured = [(summary, windows) for summary in summaries if (windows := _windows(summary))]
    if not measured:
        raise UserError("nothing to export: no cell has a measured step")
    newest = max((summary.records[-1] for summary, _ in measured), key=lambda record: record.started_at)
    names = Counter((summary.study, summary.cell) for summary, _ in measured)
    benchmarks = []
    for summary, windows in measured:
        stats = Stats()
        for step_s in (second for window in windows for second in window.seconds):
            stats.update(step_s)
        known = stats.as_dict() | {"data": stats.data, "iterations": 1}
        same_name = names[summary.study, summary.cell] > 1
        benchmarks.append(_benchmark(summary, windows, same_name=same_name) | {"stats": known})
    fields = {
        "machine_info": _machine_info(newest.machine),
        "commit_info": _commit_info(newest),
        "benchmarks": benchmarks,
        "datetime": newest.started_at.isoformat(),
        "version": __version__,
    }
    done = {id(summary) for summary, _ in measured}
    return Exported(fields, tuple(f"{one.study}/{one.cell}" for one in summaries if id(one) not in done))


def _of_one_machine(records: Sequence[Record], machine: str | None) -> list[Record]:
    ids = sorted({record.machine.id for record in records})
    if not ids:
        raise UserError("nothing to export: no record was found")
    meant = [one for one in ids if one == machine] or [one for one in ids if machine is None or machine in one]
    if len(meant) != 1:
        say = f"--machine {machine}: stands for {len(meant)} of them" if machine else "one file tells of one machine"
        raise UserError(f"{say}; choose by --machine: {', '.join(ids)}")
    return [record for record in records if record.machine.id == meant[0]]


def _windows(summary: Summary) -> list[ThroughputWindow]:
    trainings = [record.training for record in summary.ok_records if record.training is not None]
    return [window for window in measure_windows(trainings) if window.seconds]


def _benchmark(summary: Summary, windows: Sequence[ThroughputWindow], *, same_name: bool) -> dict[str, Any]:
    """All of a benchmark but its statistics; the configuration's hash tells cells of one name apart."""
    config, newest = summary.config, summary.records[-1]
    assert isinstance(config, FineTuneConfig)  # noqa: S101 - a baseline has no steps
    name = summary.cell + (f"[{hash_config(config, ignore=('seed',))[:_SHOWN_HASH]}]" if same_name else "")
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


def _estimate(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else vars(estimate)


def _machine_info(machine: Machine) -> dict[str, Any]:
    """As pytest-benchmark names it where it has a name; no host's name, which no record has."""
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


def _commit_info(record: Record) -> dict[str, Any]:
    """Of the harness's own checkout, as the newest record has it."""
    return {
        "id": record.git.commit if record.git else "unversioned",
        "time": None,
        "author_time": None,
        "dirty": record.git.dirty if record.git else False,
        "project": "bert-cost-harness",
        "branch": _NOT_RECORDED,
    }
