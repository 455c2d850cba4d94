"""What a cell's processes held together, seen from the parent: the control group's peak, or a sampled sum of PSS."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.execution.memory_cap import MemoryCap
from harness.schema.training_record import PeakMemory

# Reading it walks a process's page tables, some milliseconds for a GiB: too dear for every tick.
_EVERY_S = 5.0


class MemorySampler:
    """Takes the peak of all ranks together, pages that they share counted once.

    In a control group it is the kernel's own high-water mark over the cell's life. Otherwise, of several ranks, it is
    the largest sum of their proportional set sizes seen at one moment; such samples miss what lies between them.
    """

    def __init__(self, pids: Sequence[int], cage: MemoryCap | None) -> None:
        """Count the processes `pids`, and whatever else is in `cage`."""
        self._pids, self._cage = pids, cage
        self._samples = cage is None and len(pids) > 1
        self._trains, self._looked_at = False, 0.0
        self._pss_bytes, self._group_bytes = 0, 0

    def poll(self, now: float) -> None:
        """Take a sample when it is time for one; `now` is on the cell's clock."""
        if self._samples and self._trains and now - self._looked_at >= _EVERY_S:
            self._sample(now)

    def on_message(self, message: dict[str, Any], now: float) -> None:
        """Follow what rank 0 tells of its phase."""
        phase = message.get("name") if message["kind"] == "phase" else None
        self._trains |= phase == "train"
        if phase == "test" and self._samples:
            self._sample(now)
        if phase == "after" and self._cage is not None and self._cage.group is not None:
            self._group_bytes = self._cage.group.peak_bytes or 0

    def peaks(self) -> tuple[PeakMemory, ...]:
        """What was seen; nothing of a single rank without a control group."""
        found = []
        if self._group_bytes:
            found.append(PeakMemory(rank=None, source="control_group", num_bytes=self._group_bytes))
        if self._pss_bytes:
            found.append(PeakMemory(rank=None, source="pss", num_bytes=self._pss_bytes))
        return tuple(found)

    def _sample(self, now: float) -> None:
        self._looked_at = now
        sizes = [pss_bytes(pid) for pid in self._pids]
        known = [size for size in sizes if size is not None]
        if len(known) == len(sizes):
            self._pss_bytes = max(self._pss_bytes, sum(known))


def pss_bytes(pid: int) -> int | None:
    """A process's proportional set size; None where the system does not tell, or the process is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    found = re.search(r"^Pss:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None
