"""Names of scaling series, which tell them apart in tables, sentences and chart legends (pure)."""

from __future__ import annotations

from collections.abc import Sequence

from harness.decision.scaling import ScalingPoint, Series
from harness.pricing.cost import Priced
from harness.report.labels import STUDY, axis_word, common_values, config_fields, machine_labels

MAX_SERIES = 6
DEVICE_NOUNS = {"cpu": ("process", "processes"), "gpu": ("GPU", "GPUs")}

# Labels omit these settings, because every series' name or points show them already.
_HIDDEN = frozenset({"batch_size", "global_batch_size", "device"})


def size_text(point: ScalingPoint) -> str:
    """State a point's number of devices, and of machines if there are several."""
    return f"{point.num_devices}{_on_machines(point)}"


def count_text(point: ScalingPoint, series: Series) -> str:
    """State a point's number of devices with the noun for them, and its number of machines if there are several."""
    singular, plural = DEVICE_NOUNS[series.device]
    return f"{point.num_devices} {singular if point.num_devices == 1 else plural}{_on_machines(point)}"


def _on_machines(point: ScalingPoint) -> str:
    return f" on {point.num_nodes} machines" if point.num_nodes > 1 else ""


def series_names(series: Sequence[Series], cells: Sequence[Priced]) -> list[str]:
    """Name each series by its kind, its constant batch, and what else distinguishes it."""
    return [
        f"{each.kind} scaling ({', '.join([_constant_batch(each), *parts])})"
        for each, parts in zip(series, series_parts(series, cells), strict=True)
    ]


def series_parts(series: Sequence[Series], cells: Sequence[Priced]) -> list[list[str]]:
    """Return what distinguishes each series besides kind and batch; the study's name only if nothing else does."""
    varied = [key for key in common_values([each.base.cell for each in series]) if key not in _HIDDEN]
    machines = machine_labels(cells)
    devices = {each.device for each in series}
    all_parts: list[list[str]] = []
    for keys in ([key for key in varied if key != STUDY], varied):
        all_parts = []
        for each in series:
            fields = config_fields(each.base.cell)
            settings = [axis_word(key, fields[key]) for key in keys if fields[key] is not None]
            machine = [machines[each.base.cell.summary.machine_id]] if len(machines) > 1 else []
            device = [DEVICE_NOUNS[each.device][1]] if len(devices) > 1 else []
            all_parts.append([*device, *settings, *machine])
        names = {(each.kind, each.batch_size, *parts) for each, parts in zip(series, all_parts, strict=True)}
        if len(names) == len(series):
            break
    return all_parts


def legend_names(series: Sequence[Series], cells: Sequence[Priced]) -> list[list[str]]:
    """Name each series in lines that are short enough for a chart's legend."""
    named = zip(series, series_parts(series, cells), strict=True)
    return [[f"{each.kind}, {_constant_batch(each)}", *([", ".join(parts)] if parts else [])] for each, parts in named]


def _constant_batch(series: Series) -> str:
    return f"global batch {series.batch_size}" if series.kind == "strong" else f"{series.batch_size} a device"
