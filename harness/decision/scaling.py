"""Scaling series: speed-up, efficiency and cost as the number of devices grows, on one machine or several (pure)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Literal

from harness.analysis.estimate import Estimate, map_increasing, ratio_estimate
from harness.analysis.network_speed import NetworkSpeed, network_speed
from harness.analysis.ranking import rank
from harness.analysis.summary import Summary
from harness.pricing.cost import Priced
from harness.schema.cells import Device, FineTuneConfig, hash_config

# Configuration keys in which the cells of one series may differ.
_FREE_KEYS = ("seed", "device", "batch_size", "global_batch_size")
_ONE = Estimate(1.0, None, None, "the base that the others are held against")  # the text is shown on the page

Kind = Literal["strong", "weak"]
Cost = Literal["less", "more", "level"]


@dataclass(frozen=True)
class ScalingPoint:
    """A series' measurement at one device count, compared with the series' base, the point with the fewest devices.

    Attributes:
        num_devices: Number of devices on all machines.
        num_nodes: Number of machines.
        device_batch_size: Examples per device and micro-batch.
        global_batch_size: Examples per update over all devices.
        speed_up: Throughput divided by the base's throughput.
        efficiency: Speed-up divided by the ratio of device numbers (this point's / the base's).
        cost_ratio: Cost per sample divided by the base's, if every machine is paid for: (this point's machines / the
            base's) / speed_up.
        share_cost_ratio: Cost ratio if only the GPUs in use are paid for: 1 / efficiency; None on a CPU.
        cost: `less` or `more` if the cost per sample differs significantly from the base's, else `level`. All pairs of
            the series count as one family (see `analysis.ranking`).
        communication_fraction: Share of time spent waiting for all-reduce (see the function of this name).
        network: What the machines' network was measured to give; None on one machine.
    """

    cell: Priced
    num_devices: int
    num_nodes: int
    device_batch_size: int
    global_batch_size: int
    samples_per_s: Estimate
    speed_up: Estimate
    efficiency: Estimate
    cost_ratio: Estimate
    share_cost_ratio: Estimate | None
    cost: Cost
    communication_fraction: float | None
    network: NetworkSpeed | None = None


@dataclass(frozen=True)
class Series:
    """Cells on one kind of machine that differ only in the number of devices and in batch size, fewest devices first.

    Attributes:
        kind: `strong`: constant global batch, split among the devices; `weak`: constant batch per device.
        batch_size: The constant batch size.
        cheaper: Pairs of indices of points of which the first trains significantly more samples per second and machine,
            and so costs less per sample.
    """

    kind: Kind
    device: Literal["cpu", "gpu"]
    batch_size: int
    points: tuple[ScalingPoint, ...]
    cheaper: frozenset[tuple[int, int]]

    @property
    def base(self) -> ScalingPoint:
        """The point that the others are compared with."""
        return self.points[0]

    @property
    def more(self) -> tuple[ScalingPoint, ...]:
        """The points with more devices than the base."""
        return self.points[1:]

    def costs_more(self, point: ScalingPoint, than: ScalingPoint) -> bool:
        """Return True if a sample costs significantly more at `point` than at `than`."""
        return (self.points.index(than), self.points.index(point)) in self.cheaper

    @property
    def over_nodes(self) -> bool:
        """Whether a point trains on several machines."""
        return any(point.num_nodes > 1 for point in self.points)


def scaling_series(cells: Sequence[Priced]) -> list[Series]:
    """Find every series with at least two numbers of devices, in the cells' order, strong before weak."""
    groups: dict[tuple[str, str, str], list[Priced]] = defaultdict(list)
    for cell in cells:
        config = cell.summary.config
        if isinstance(config, FineTuneConfig) and num_devices(cell.summary) and cell.summary.samples_per_s is not None:
            kind = Device.parse(config.device).kind
            groups[cell.summary.machine_id, kind, hash_config(config, ignore=_FREE_KEYS)].append(cell)
    return [series for members in groups.values() for kind in ("strong", "weak") for series in _series(members, kind)]


def num_devices(summary: Summary) -> int | None:
    """Return the number of devices that the newest run used; None if no run succeeded or ranks shared a GPU."""
    run = next((record for record in reversed(summary.ok_records) if record.training is not None), None)
    if run is None or run.training is None or not isinstance(summary.config, FineTuneConfig):
        return None
    on_gpu = summary.config.on_gpu
    return None if on_gpu and run.training.world_size > run.num_gpus else run.training.world_size


def communication_fraction(summary: Summary) -> float | None:
    """Return the share of a forward and backward pass spent waiting for all-reduce that does not overlap computing.

    The share is (median s with all-reduce - median s without) / median s with all-reduce, mean over the runs. Values
    below 0 are noise and become 0. None if no run measured these times.
    """
    fractions = []
    for record in summary.ok_records:
        timed = record.training.communication if record.training is not None else None
        if timed is not None and timed.sync_s and timed.no_sync_s:
            fractions.append(1 - median(timed.no_sync_s) / median(timed.sync_s))
    return max(0.0, fmean(fractions)) if fractions else None


def several_gpus_ran(cells: Sequence[Priced]) -> bool:
    """Return True if any cell trained successfully on at least two GPUs."""
    return any(cell.summary.config.on_gpu and (num_devices(cell.summary) or 0) > 1 for cell in cells)


def best_cost(series: Series) -> ScalingPoint:
    """Return the point with the lowest cost per sample of those significantly cheaper than the base; else the base."""
    cheaper = [point for point in series.more if point.cost == "less"]
    return min(cheaper, key=lambda point: point.cost_ratio.value, default=series.base)


def _series(members: Sequence[Priced], kind: Kind) -> list[Series]:
    by_batch: dict[int, dict[tuple[int, int], Priced]] = defaultdict(dict)
    # Of several cells with the same devices and batch, the last in this order is kept: without DDP, then the newest.
    for cell in sorted(members, key=_preference):
        devices, device_batch, global_batch = _sizes(cell)
        shared = global_batch if kind == "strong" else device_batch
        if shared is not None:
            by_batch[shared][devices, cell.num_nodes] = cell
    return [
        _ranked_series(kind, shared, [by_size[size] for size in sorted(by_size)])
        for shared, by_size in sorted(by_batch.items())
        if len({devices for devices, _ in by_size}) > 1
    ]


def _ranked_series(kind: Kind, batch_size: int, cells: Sequence[Priced]) -> Series:
    """Compare a series' cells, fewest devices first, with the first and with each other."""
    base = cells[0]
    cheaper = rank([_times(_rate(cell), 1 / cell.num_nodes) for cell in cells], most=True).clear
    points = []
    for index, cell in enumerate(cells):
        cost: Cost = "less" if (index, 0) in cheaper else "more" if (0, index) in cheaper else "level"
        points.append(_point(cell, base, cost))
    return Series(kind, Device.parse(_config(base).device).kind, batch_size, tuple(points), cheaper)


def _preference(cell: Priced) -> tuple[bool, float]:
    return not Device.parse(_config(cell).device).ddp, cell.summary.records[-1].started_at.timestamp()


def _sizes(cell: Priced) -> tuple[int, int | None, int]:
    """Return the number of devices, the batch size per device (None if devices differ) and the global batch size."""
    config, devices = _config(cell), num_devices(cell.summary) or 1
    whole = cell.summary.global_batch_size or config.global_batch(devices)
    each = config.device_batch(devices)
    return devices, each if each * config.training.grad_accum * devices == whole else None, whole


def _point(cell: Priced, base: Priced, cost: Cost) -> ScalingPoint:
    devices, device_batch, global_batch = _sizes(cell)
    more = devices / _sizes(base)[0]
    rate, base_rate = _rate(cell), _rate(base)
    speed_up = _ONE if cell is base else ratio_estimate(rate, base_rate)
    efficiency = _times(speed_up, 1 / more)
    return ScalingPoint(
        cell=cell,
        num_devices=devices,
        num_nodes=cell.num_nodes,
        device_batch_size=device_batch or _config(cell).device_batch(devices),
        global_batch_size=global_batch,
        samples_per_s=rate,
        speed_up=speed_up,
        efficiency=efficiency,
        cost_ratio=_inverse(_times(speed_up, base.num_nodes / cell.num_nodes)),
        share_cost_ratio=_inverse(efficiency) if _config(cell).on_gpu else None,
        cost=cost,
        communication_fraction=communication_fraction(cell.summary),
        network=network_speed(cell.summary.ok_records),
    )


def _times(estimate: Estimate, factor: float) -> Estimate:
    return map_increasing(estimate, lambda value: value * factor)


def _inverse(estimate: Estimate) -> Estimate:
    """Return 1 / estimate, with the interval's ends swapped."""
    low = None if estimate.high is None else 1 / estimate.high
    high = None if not estimate.low else 1 / estimate.low
    return replace(estimate, value=1 / estimate.value, low=low, high=high)


def _rate(cell: Priced) -> Estimate:
    assert cell.summary.samples_per_s is not None  # noqa: S101 - scaling_series leaves out all others
    return cell.summary.samples_per_s


def _config(cell: Priced) -> FineTuneConfig:
    assert isinstance(cell.summary.config, FineTuneConfig)  # noqa: S101 - scaling_series leaves out all others
    return cell.summary.config
