"""Determine the outcome of a cell from the way its ranks ended."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from harness.execution.memory_cap import MemoryCap
from harness.execution.memory_cgroup import OomKillCounter
from harness.execution.messages import StopRequest
from harness.execution.oom_messages import find_oom_message
from harness.execution.rank_process import RankProcess, read_tail
from harness.execution.stop_flag import StopReason
from harness.schema.record import Outcome

# If a rank ends with one of these outcomes, the other ranks go on; otherwise the parent ends them.
GRACEFUL: tuple[Outcome, ...] = ("ok", "diverged", "interrupted", "preempted")
# Without the reasons for limits, whose texts are in the user's words: see `PreparedCell.limit_texts`.
STOP_TEXTS: Mapping[StopReason, str] = {
    StopReason.USER: "stopped by the user",
    StopReason.SIGTERM: "SIGTERM",
    StopReason.SIGHUP: "SIGHUP, the terminal or connection closed",
    StopReason.CLOUD: "the cloud takes this machine back",
}


class Ending(NamedTuple):
    """How a cell ended.

    Attributes:
        reason: The record's reason; None for `ok`.
        stop_reason: Why a training was stopped on request; None for every other ending.
        is_consequence: Whether another rank or node seems to have failed first.
    """

    outcome: Outcome
    reason: str | None
    stop_reason: StopReason | None = None
    is_consequence: bool = False


def classify_outcome(
    ranks: list[RankProcess],
    cap: MemoryCap | None,
    oom_kills: OomKillCounter,
    limit_texts: Mapping[StopReason, str] | None = None,
    *,
    first_rank: int = 0,
    world_size: int | None = None,
) -> Ending:
    """Return how the cell ended, according to the rank that failed first.

    Errors of other ranks, such as "connection reset by peer", are consequences of the first failure.

    Args:
        ranks: All ranks of the cell on this machine.
        cap: The cell's memory cap; None without a cap.
        oom_kills: Counts the kernel's OOM kills since the cell began.
        limit_texts: The limits of a resumable training in the user's words.
        first_rank: Number of the first of them.
        world_size: Number of ranks on all machines; None: there is one machine.
    """
    failed = [
        rank for rank in ranks if rank.ended_at is not None and (rank.result is None or rank.result.outcome != "ok")
    ]
    if not failed:
        return Ending("ok", None)
    # Prefer ranks that exited without a result to ranks that reported an error, since they are more likely the cause.
    first = min(failed, key=lambda rank: (rank.result is not None, _lost_peer(rank), rank.ended_at))
    number, world_size = first_rank + ranks.index(first), world_size or len(ranks)
    if first.result is None:
        return _classify_silent_exit(first, number, world_size, cap, oom_kills)
    training = first.result.training
    if training is not None and training.history.stopped is not None:
        return _stopped_ending(training.history.stopped, {**STOP_TEXTS, **(limit_texts or {})})
    suffix = _cap_suffix(cap) if first.result.outcome == "oom" else ""
    prefix = f"rank {number}: " if world_size > 1 else ""
    return Ending(first.result.outcome, f"{prefix}{first.result.reason}{suffix}", is_consequence=_lost_peer(first))


def merge_endings(endings: Sequence[Ending | None]) -> Ending:
    """Return how a cell of several nodes ended, according to the node that failed first; clocks are not compared.

    Args:
        endings: How each node's part ended; None for a node that returned nothing.
    """
    known = [ending for ending in endings if ending is not None]
    causes = [ending for ending in known if ending.outcome != "ok" and not ending.is_consequence]
    if causes:
        return causes[0]
    if None in endings:
        return Ending("interrupted", f"node {endings.index(None)} was lost: it returned no result")
    return next((ending for ending in known if ending.outcome != "ok"), Ending("ok", None))


def _lost_peer(rank: RankProcess) -> bool:
    return rank.result is not None and rank.result.lost_peer


def server_lost_ending(oom_kills: OomKillCounter) -> Ending:
    """Return how a cell ended whose processes could not be started, because the process that starts them is gone."""
    what = "the process that loads torch and starts ranks was ended"
    reason = oom_kills.reason()
    return Ending("crashed", what) if reason is None else Ending("oom", f"{what}: {reason}")


def _stopped_ending(stop: StopRequest, texts: Mapping[StopReason, str]) -> Ending:
    updates = f"stopped after {stop.num_updates} of {stop.num_updates_planned} updates"
    failure = f"; no checkpoint could be written: {stop.failure}" if stop.failure is not None else ""
    return Ending(stop.reason.outcome, f"{texts[stop.reason]}: {updates}{failure}", stop.reason)


def _classify_silent_exit(
    rank: RankProcess, index: int, num_ranks: int, cap: MemoryCap | None, oom_kills: OomKillCounter
) -> Ending:
    """Classify the exit of a process that sent no result, by its exit code, the kernel's counters and its log."""
    prefix, code = f"rank {index}: " if num_ranks > 1 else "", rank.process.exitcode
    if code == -signal.SIGKILL:
        reason = (cap.oom_reason() if cap is not None else None) or oom_kills.reason()
        if reason is not None:
            return Ending("oom", f"the kernel killed rank {index}: {reason}")
        hint = "; the kernel kills so when memory is out, but its count of such kills did not rise"
        return Ending("crashed", f"{prefix}the process was ended by SIGKILL{hint}")
    # Search the log: a library that fails to allocate memory in its own thread, or before Python runs, writes a line to
    # it and ends the process.
    oom_line = find_oom_message(read_tail(rank.stderr))
    if oom_line is not None:
        return Ending("oom", f"{prefix}{oom_line}{_cap_suffix(cap)}")
    if code is not None and code < 0:
        return Ending("crashed", f"{prefix}the process was ended by {signal.Signals(-code).name}")
    return Ending("crashed", f"{prefix}the process ended with status {code} and no word")


def _cap_suffix(cap: MemoryCap | None) -> str:
    return f" (under {cap.description})" if cap is not None and not cap.exact else ""
