"""TODO: say in one line what this module is for."""

from __future__ import annotations

from collections.abc import Sequence

from harness.decision.scaling import Series
from harness.pricing.cost import Priced
from harness.report.labels import STUDY, axis_word, common_values, config_fields, machine_labels

MAX_SERIES = 6


_UNNAMED = frozenset({"batch_size", "global_batch_size", "device"})


_THINGS = {"cpu": ("process", "processes"), "gpu": ("GPU", "GPUs")}


def series_names(series: Sequence[Series], cells: Sequence[Priced]) -> list[str]:
    """A name for each series: its kind with the batch that stays, and in what else it differs from the others."""
    names = []
    for one, parts in zip(series, series_parts(series, cells), strict=True):
        names.append(f"{one.kind} scaling ({', '.join([_kept(one), *parts])})")
    return names


def series_parts(series: Sequence[Series], cells: Sequence[Priced]) -> list[list[str]]:
    """In what each series differs from the others, its kind and batch apart; its study only where nothing else does."""
    varied = [key for key in common_values([one.base.cell for one in series]) if key not in _UNNAMED]
    machines = machine_labels(cells)
    kinds = {one.device for one in series}
    found: list[list[str]] = []
    for keys in ([key for key in varied if key != STUDY], varied):
        found = []
        for one in series:
            fields = config_fields(one.base.cell)
            words = [axis_word(key, fields[key]) for key in keys if fields[key] is not None]
            machine = [machines[one.base.cell.summary.machine_id]] if len(machines) > 1 else []
            found.append([*([_THINGS[one.device][1]] if len(kinds) > 1 else []), *words, *machine])
        if len({(one.kind, one.batch_size, *parts) for one, parts in zip(series, found, strict=True)}) == len(series):
            break
    return found


def _kept(series: Series) -> str:
    return f"global batch {series.batch_size}" if series.kind == "strong" else f"{series.batch_size} a device"


def legend_names(series: Sequence[Series], cells: Sequence[Priced]) -> list[list[str]]:
    """The same in lines short enough for a chart's legend."""
    found = zip(series, series_parts(series, cells), strict=True)
    return [[f"{one.kind}, {_kept(one)}", *([", ".join(parts)] if parts else [])] for one, parts in found]
