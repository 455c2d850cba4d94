"""How fast a cell was in its earlier runs, and whether a new run is slower."""

from __future__ import annotations

from collections.abc import Iterable

from harness.analysis.estimate import Estimate
from harness.analysis.ranking import rank
from harness.analysis.summarize import summarize
from harness.schema.cells import BaselineConfig, FineTuneConfig, hash_config
from harness.schema.record import Record


def runs_of(records: Iterable[Record], config: FineTuneConfig | BaselineConfig) -> list[Record]:
    """Return the successful runs of a configuration, with any seed."""
    wanted = hash_config(config, ignore=("seed",))
    return [
        record
        for record in records
        if record.outcome == "ok" and hash_config(record.config, ignore=("seed",)) == wanted
    ]


def speed_of(runs: Iterable[Record]) -> Estimate | None:
    """Return the samples per second of runs of one configuration on one machine; None if none was measured."""
    summaries = summarize(runs)
    return summaries[0].samples_per_s if summaries else None


def slowdown(now: Estimate | None, earlier: Estimate | None) -> float | None:
    """Return a speed divided by an earlier one if it is significantly lower; None otherwise."""
    if now is None or earlier is None or (1, 0) not in rank([now, earlier], most=True).clear:
        return None
    return now.value / earlier.value
