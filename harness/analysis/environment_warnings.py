"""Warn about environment variables and CPU affinities that spoiled a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.schema.record import Record
from harness.schema.variables import find_spoilers


def environment_warnings(records: Sequence[Record]) -> Iterator[str]:
    """Yield one sentence on the variables that spoil figures, and one on threads that shared too few CPUs."""
    spoiled = {
        (one.name, one.value): one.spoiler
        for record in records
        for one in find_spoilers(record.machine.environment, on_gpu=record.config.on_gpu)
    }
    obeyed = [
        f"{name}={value} {spoiler.effect}" for (name, value), spoiler in spoiled.items() if not spoiler.is_removed
    ]
    removed = [f"{name}={value}" for (name, value), spoiler in spoiled.items() if spoiler.is_removed]
    if obeyed or removed:
        parts = [*obeyed, *([f"{', '.join(removed)} did not reach the cell's processes"] if removed else [])]
        names = ", ".join(dict.fromkeys(name for name, _ in spoiled))
        yield f"Environment variables: {'; '.join(parts)}. Unset {names}, and run it with --force."
    crowded = max((_crowding(record) for record in records), default=None)
    if crowded is not None and crowded[0] > 1:
        _, num_threads, num_cpus = crowded
        yield (
            f"{num_threads} threads had {num_cpus} CPU{'s' if num_cpus > 1 else ''} to run on although more were usable: "
            "find what binds them (`harness doctor`), and run it with --force."
        )


def _crowding(record: Record) -> tuple[float, int, int]:
    """Return threads per CPU, threads and CPUs of the rank, or of all ranks together, with the fewest CPUs per thread.

    Threads beyond the usable CPUs don't count: the study asked for them.
    """
    training = record.training
    if training is None or not training.cpus or not all(training.cpus):
        return 1.0, 0, 0
    usable = record.machine.cpu.num_usable
    groups = [(training.threads_per_rank, set(cpus)) for cpus in training.cpus]
    first = 0
    for num_ranks in [node.num_ranks for node in record.nodes] or [training.world_size]:
        groups.append((training.threads_per_rank * num_ranks, set().union(*training.cpus[first : first + num_ranks])))
        first += num_ranks
    return max((min(threads, usable) / len(cpus), min(threads, usable), len(cpus)) for threads, cpus in groups)
