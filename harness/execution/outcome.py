"""TODO: say in one line what this module is for."""

from __future__ import annotations

import signal

from harness.execution.memory_cap import MemoryCap, OomKillCounter
from harness.execution.oom_messages import find_oom_message
from harness.execution.rank_process import RankProcess, read_tail

# Endings that a rank tells of when it is done, and that end no other rank.
GRACEFUL = ("ok", "diverged", "interrupted", "preempted")


def classify_outcome(ranks: list[RankProcess], cage: MemoryCap | None, kills: OomKillCounter) -> tuple[str, str | None]:
    """The ending of the rank that failed first; another's "connection reset by peer" only follows from it."""
    failed = [rank for rank in ranks if rank.ended_at is not None and (rank.end or {}).get("outcome") != "ok"]
    if not failed:
        return "ok", None
    # A rank that died without a word is nearer to the cause than one that lived to complain of it.
    first = min(failed, key=lambda rank: (rank.end is not None, rank.ended_at))
    told = (first.end or {}).get("outcome") in ("interrupted", "preempted")  # all ranks stop together
    prefix = f"rank {ranks.index(first)}: " if len(ranks) > 1 and not told else ""
    capped = f" (under {cage.words})" if cage is not None and not cage.exact else ""
    if first.end is not None:
        outcome = first.end["outcome"]
        return outcome, f"{prefix}{first.end['reason']}{capped if outcome == 'oom' else ''}"
    code = first.process.exitcode
    if code == -signal.SIGKILL:
        why = (cage.oom_reason() if cage is not None else None) or kills.why()
        if why is not None:
            return "oom", f"the kernel killed rank {ranks.index(first)}: {why}"
        hint = "; the kernel kills so when memory is out, but its count of such kills did not rise"
        return "crashed", f"{prefix}the process was ended by SIGKILL{hint}"
    # A library that gets no memory in a thread of its own, or before Python runs, ends the process with these words.
    sign = find_oom_message(read_tail(first.stderr))
    if sign is not None:
        return "oom", f"{prefix}{sign}{capped}"
    if code is not None and code < 0:
        return "crashed", f"{prefix}the process was ended by {signal.Signals(-code).name}"
    return "crashed", f"{prefix}the process ended with status {code} and no word"
