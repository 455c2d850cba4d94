"""Each machine's part of a cell's run, and the record that all parts make together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from typing import Literal

from harness.execution.assemble import (
    baseline_with_peaks,
    blank_record,
    checksum_mismatch,
    merge_probes,
    merge_ranks,
    model_facts,
)
from harness.execution.jobs import Environment, PreparedCell
from harness.execution.messages import RankResult
from harness.execution.outcome import Ending, merge_endings
from harness.machine.support import num_threads
from harness.schema.cells import Cell
from harness.schema.host_record import Energy, GpuReading, Load, MemoryCapFacts
from harness.schema.nodes_record import Node
from harness.schema.record import Record
from harness.schema.training_record import PeakMemory, Phases, ProgressMark


@dataclass(frozen=True)
class PartResult:
    """What the ranks of one machine reported, and what their parent measured; can be pickled.

    Attributes:
        environment: Facts about the machine.
        ending: How the part ended.
        interface: Network interface that carried the gradients; None on a single machine.
        results: The last message of each rank; None for one that sent none. Empty if no process was started.
        stderr_tails: Last lines of each rank's log, scrubbed.
        phases: Seconds of each phase, of the first rank.
        marks: Progress of the first rank.
        held_bytes: Memory of the first rank after each step that its progress messages cover.
        peaks: Peak memory of all ranks together, sampled by the parent.
        load: The machine's load; None when no process was started.
    """

    environment: Environment
    ending: Ending
    started_at: datetime
    duration_s: float = 0.0
    interface: str | None = None
    results: tuple[RankResult | None, ...] = ()
    stderr_tails: tuple[tuple[str, ...], ...] = ()
    phases: Phases = field(default_factory=Phases)
    marks: tuple[ProgressMark, ...] = ()
    held_bytes: tuple[int, ...] = ()
    peaks: tuple[PeakMemory, ...] = ()
    load: Load | None = None
    start_method: Literal["forkserver", "spawn", "fresh"] | None = None
    cap: MemoryCapFacts | None = None
    gpu_readings: tuple[GpuReading, ...] = ()
    energy: Energy | None = None


def unstarted(environment: Environment, ending: Ending, interface: str | None = None) -> PartResult:
    """Return the result of a part of which no process was started."""
    return PartResult(environment, ending, datetime.now(UTC), interface=interface)


def merge_parts(cell: Cell, prepared: PreparedCell, parts: Sequence[PartResult | None]) -> Record:
    """Make the record of a cell from the parts of all its machines.

    Args:
        cell: The cell that was run.
        prepared: The cell's inputs on the first machine.
        parts: Each machine's part, in the order of its nodes; None for one that returned nothing.

    Raises:
        ValueError: If no machine returned anything.
    """
    known = [part for part in parts if part is not None]
    if not known:
        raise ValueError("no part of the cell returned anything")
    first, ending = known[0], merge_endings([None if part is None else part.ending for part in parts])
    record = blank_record(cell, first.environment, ending.outcome, ending.reason)
    results = [result for part in known for result in part.results]
    is_whole = len(known) == len(parts) and all(part.results for part in known)
    peaks = _sum_peaks(known)
    training = merge_ranks(results, prepared, cell, peaks) if is_whole else None
    measured = {
        "started_at": first.started_at,
        "duration_s": max(part.duration_s for part in known),
        "stderr_tail": tuple(chain.from_iterable(part.stderr_tails for part in known)),
        "phases": first.phases,
        "load": first.load,
        "start_method": first.start_method,
        "cap": first.cap,
        "data": prepared.data,
        "model": next((model for result in results if (model := model_facts(result)) is not None), None),
        "baseline": baseline_with_peaks(results[0] if results else None, peaks),
        "marks": first.marks,
        "held_bytes": () if training else first.held_bytes,
        "gpu_readings": _number_gpus(known),
        "energy": _sum_energy(known) if len(known) == len(parts) else None,
        "training": training,
        "probe": merge_probes(results, num_threads(cell.config, record.machine)) if is_whole else None,
        "nodes": _nodes(known) if is_whole else (),
    }
    if mismatch := checksum_mismatch(results):
        record = record.model_copy(update={"outcome": "crashed", "reason": mismatch})
    # Validate the whole record, because model_copy does not validate its arguments.
    return Record.model_validate(record.model_copy(update=measured).model_dump())


def _nodes(parts: Sequence[PartResult]) -> tuple[Node, ...]:
    if len(parts) == 1:
        return ()
    return tuple(
        Node(
            machine=part.environment.machine,
            stated=part.environment.stated,
            detected=part.environment.detected,
            num_ranks=len(part.results),
            interface=part.interface or "unknown",
            load=part.load,
        )
        for part in parts
    )


def _sum_peaks(parts: Sequence[PartResult]) -> tuple[PeakMemory, ...]:
    """Return the sampled peaks of all machines; of each source only if every machine has it, since they are added up."""
    sources = [{peak.source for peak in part.peaks} for part in parts]
    common = set.intersection(*sources)
    return tuple(peak for part in parts for peak in part.peaks if peak.source in common)


def _number_gpus(parts: Sequence[PartResult]) -> tuple[GpuReading, ...]:
    """Return the readings of all machines' GPUs, numbered over all machines."""
    readings, first = [], 0
    for part in parts:
        readings += [each.model_copy(update={"gpu": first + each.gpu}) for each in part.gpu_readings]
        first += len(part.environment.machine.gpus)
    return tuple(readings)


def _sum_energy(parts: Sequence[PartResult]) -> Energy | None:
    """Return the energy of all machines; None unless each was measured by the same instruments."""
    known = [part.energy for part in parts if part.energy is not None]
    if len(known) < len(parts) or len({energy.source for energy in known}) > 1:
        return None
    return Energy(
        source=known[0].source,
        seconds=max(energy.seconds for energy in known),
        gpu_joules=tuple(chain.from_iterable(energy.gpu_joules for energy in known)),
        cpu_joules=tuple(chain.from_iterable(energy.cpu_joules for energy in known)),
        dram_joules=tuple(chain.from_iterable(energy.dram_joules for energy in known)),
    )
