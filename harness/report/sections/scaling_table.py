"""The table of what more devices gain and cost (pure)."""

from __future__ import annotations

from collections.abc import Sequence

from harness.decision.scaling import ScalingPoint, Series
from harness.pricing.cost import Priced, gpu_share
from harness.report.formatting import MoneyFormat, interval, memory, number, percent
from harness.report.sections.cell_table import Field, amount_field, known
from harness.report.sections.scaling_words import communication_words, count, ratio_interval, ratio_words
from harness.report.series_labels import series_parts

HEADS = (
    *("scaling", "devices", "batch a device", "global batch", "samples/s", "speed-up", "efficiency"),
    *("cost per 1,000 samples", "cost to target", "exposed communication", "peak memory"),
)
_NO_COMMUNICATION = "one device has nobody to wait for; of several, no run measured it"


def scaling_rows(series: Sequence[Series], cells: Sequence[Priced], money: MoneyFormat) -> list[tuple[Field, ...]]:
    """Every point of every series, in the order of HEADS."""
    parts, places = series_parts(series, cells), {cell.key: index for index, cell in enumerate(cells)}
    return [
        _row(point, one, ", ".join(words), places[point.cell.key], money)
        for one, words in zip(series, parts, strict=True)
        for point in one.points
    ]


def _row(point: ScalingPoint, series: Series, words: str, place: int, money: MoneyFormat) -> tuple[Field, ...]:
    cell, summary = point.cell, point.cell.summary
    is_base = point is series.base
    communication = point.communication_fraction
    base = "the base" if is_base else ""
    return (
        Field(series.kind, series.kind, words, numeric=False),
        Field(count(point, series), point.num_devices),
        Field(f"{point.device_batch_size}", point.device_batch_size),
        Field(f"{point.global_batch_size}", point.global_batch_size),
        Field(number(point.samples_per_s.value), point.samples_per_s.value, interval(point.samples_per_s, "number")),
        Field(ratio_words(point.speed_up.value), point.speed_up.value, base or ratio_interval(point.speed_up)),
        Field(percent(point.efficiency.value), point.efficiency.value, base or interval(point.efficiency, "percent")),
        amount_field(
            cell, place, "usd_per_1000_samples", cell.missing or "no rate", _share_words(cell, money), money=money
        ),
        amount_field(cell, place, "usd_to_target", "the target was not reached, or the study sets none", money=money),
        Field(communication_words(point), communication, title="" if communication is not None else _NO_COMMUNICATION),
        known(
            memory(summary.peak_memory_bytes),
            summary.peak_memory_bytes,
            "not read",
            summary.peak_memory_source or "",
        ),
    )


def _share_words(cell: Priced, money: MoneyFormat) -> str:
    share, each = gpu_share(cell.summary), cell.usd_per_1000_samples_of_share
    if share is None or each is None:
        return ""
    return f"{money.amount(each.value)} for {share[0]} of {share[1]} GPUs"
