"""Latency and bandwidth of all-reduce between the machines of a cell, from the times that its runs measured (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from harness.schema.record import Record


@dataclass(frozen=True)
class NetworkSpeed:
    """What an all-reduce over all ranks takes; of each size the median over repeats, then over runs.

    Attributes:
        latency_s: Seconds of the smallest all-reduce.
        smallest_bytes: Its size.
        bytes_per_s: The highest bytes of a tensor / seconds over all sizes ("algorithm bandwidth" of nccl-tests).
        bus_bytes_per_s: `bytes_per_s` x 2 (n - 1) / n with n ranks: what each rank's link must carry at least each way.
        best_bytes: The size that reached it.
        interfaces: Names of the interfaces, each once.
        backend: The library that carried them.
    """

    latency_s: float
    smallest_bytes: int
    bytes_per_s: float
    bus_bytes_per_s: float
    best_bytes: int
    interfaces: tuple[str, ...]
    backend: str


def network_speed(records: Sequence[Record]) -> NetworkSpeed | None:
    """Return the network of a cell's runs; None if none measured it.

    Source of the two bandwidths: https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md
    """
    by_size: dict[int, list[float]] = {}
    newest: Record | None = None
    for record in records:
        if record.training is not None and record.training.network is not None:
            newest = record
            for times in record.training.network.all_reduce:
                by_size.setdefault(times.num_bytes, []).append(median(times.seconds))
    if newest is None or newest.training is None or newest.training.network is None:
        return None
    seconds = {num_bytes: median(values) for num_bytes, values in sorted(by_size.items())}
    smallest, num_ranks = next(iter(seconds)), newest.training.world_size
    best = max(seconds, key=lambda num_bytes: num_bytes / seconds[num_bytes])
    bandwidth = best / seconds[best]
    return NetworkSpeed(
        latency_s=seconds[smallest],
        smallest_bytes=smallest,
        bytes_per_s=bandwidth,
        bus_bytes_per_s=bandwidth * 2 * (num_ranks - 1) / num_ranks,
        best_bytes=best,
        interfaces=tuple(dict.fromkeys(node.interface for node in newest.nodes)),
        backend=newest.training.network.backend,
    )
