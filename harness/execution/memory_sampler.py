"""Peak memory of all ranks together, measured by the parent: the control group's peak, or samples of PSS.

PSS is the proportional set size: a process's resident memory, with each shared page divided among its users.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.execution.memory_cap import MemoryCap
from harness.execution.messages import Message, PhaseStarted
from harness.schema.training_record import PeakMemory

# PSS is not read at every tick of the parent, because reading it walks a process's page tables: some milliseconds per
# GiB.
_SAMPLE_INTERVAL_S = 5.0


def pss_bytes(pid: int) -> int | None:
    """Return a process's proportional set size; None if the process is gone or the system doesn't report it."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    match = re.search(r"^Pss:\s+(\d+) kB$", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


class MemorySampler:
    """Measures the peak memory of all ranks together, counting shared pages once.

    With a control group, the peak is the kernel's own. Otherwise, with several ranks, the peak is the largest sum of
    their proportional set sizes at one moment; peaks between two samples are missed.
    """

    def __init__(
        self, pids: Sequence[int], cap: MemoryCap | None, read_pss: Callable[[int], int | None] = pss_bytes
    ) -> None:
        """Begin to measure.

        Args:
            pids: Process id of each rank.
            cap: The cell's memory cap, whose control group is measured if there is one; None without a cap.
            read_pss: Returns the proportional set size of a process in bytes; None when unknown.
        """
        self._pids, self._cap, self._read_pss = pids, cap, read_pss
        self._is_sampling = cap is None and len(pids) > 1
        self._has_trained, self._sampled_at = False, 0.0
        self._pss_bytes, self._group_bytes = 0, 0

    def poll(self, now: float) -> None:
        """Take a sample if one is due; `now` is in seconds since submission."""
        if self._is_sampling and self._has_trained and now - self._sampled_at >= _SAMPLE_INTERVAL_S:
            self._sample(now)

    def on_message(self, message: Message, now: float) -> None:
        """Follow rank 0's phases: sample when training ends, read the control group when the measurement ends."""
        phase = message.name if isinstance(message, PhaseStarted) else None
        self._has_trained |= phase == "train"
        if phase == "test" and self._is_sampling:
            self._sample(now)
        if phase == "after" and self._cap is not None and self._cap.group is not None:
            self._group_bytes = self._cap.group.peak_bytes or 0

    def peaks(self) -> tuple[PeakMemory, ...]:
        """Return the peaks so far; empty for a single rank without a control group."""
        return tuple(
            PeakMemory(rank=None, source=source, num_bytes=num_bytes)
            for source, num_bytes in (("control_group", self._group_bytes), ("pss", self._pss_bytes))
            if num_bytes
        )

    def _sample(self, now: float) -> None:
        self._sampled_at = now
        sizes = [self._read_pss(pid) for pid in self._pids]
        known = [size for size in sizes if size is not None]
        if len(known) == len(sizes):
            self._pss_bytes = max(self._pss_bytes, sum(known))
