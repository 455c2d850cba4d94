"""The outcome of a cell from how its ranks ended, without a process."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest

from harness.execution.memory_cgroup import OomKillCounter
from harness.execution.messages import RankResult, StopRequest, TrainHistory
from harness.execution.outcome import Ending, classify_outcome, merge_endings, server_lost_ending
from harness.execution.rank_process import RankProcess
from harness.execution.stop_flag import StopReason

NO_KILLS = OomKillCounter(lambda: (None, None))


def rank(tmp_path, result=None, *, exit_code=0, ended_at=1.0, log=""):
    stderr = tmp_path / f"{ended_at}.log"
    stderr.write_text(log)
    return RankProcess(SimpleNamespace(exitcode=exit_code), None, stderr, result=result, ended_at=ended_at)


def stopped(reason, failure=None):
    history = TrainHistory(stopped=StopRequest(reason, 5, 20, failure))
    return RankResult(history.outcome, training=SimpleNamespace(history=history))


@pytest.mark.parametrize(
    ("reason", "outcome", "text"),
    [
        (StopReason.ROW_LIMIT, "interrupted", "--max-rows 80"),
        (StopReason.TIME_LIMIT, "interrupted", "--max-minutes 30"),
        (StopReason.USER, "interrupted", "stopped by the user"),
        (StopReason.SIGTERM, "preempted", "SIGTERM"),
        (StopReason.CLOUD, "preempted", "the cloud takes this machine back"),
    ],
)
def test_a_stopped_training_has_the_text_of_its_reason_once_for_all_ranks(reason, outcome, text, tmp_path):
    limits = {StopReason.ROW_LIMIT: "--max-rows 80", StopReason.TIME_LIMIT: "--max-minutes 30"}
    ranks = [rank(tmp_path, stopped(reason)), rank(tmp_path, stopped(reason), ended_at=2.0)]
    expected = Ending(outcome, f"{text}: stopped after 5 of 20 updates", reason)
    assert classify_outcome(ranks, None, NO_KILLS, limits) == expected


def test_a_lost_forkserver_is_out_of_memory_only_where_the_kernel_counts_it():
    counts = iter([(0, 7), (0, 8)])
    assert server_lost_ending(NO_KILLS).outcome == "crashed"
    ending = server_lost_ending(OomKillCounter(lambda: next(counts)))
    assert (ending.outcome, "the machine was out of memory" in ending.reason) == ("oom", True)


def test_a_checkpoint_that_failed_is_in_the_reason(tmp_path):
    ending = classify_outcome([rank(tmp_path, stopped(StopReason.SIGTERM, "disk full"))], None, NO_KILLS)
    assert ending.reason == "SIGTERM: stopped after 5 of 20 updates; no checkpoint could be written: disk full"


def test_all_ranks_ok_is_ok(tmp_path):
    assert classify_outcome([rank(tmp_path, RankResult("ok"))], None, NO_KILLS) == Ending("ok", None)


def test_a_silent_exit_outweighs_an_earlier_error_of_another_rank(tmp_path):
    ranks = [
        rank(tmp_path, RankResult("crashed", "connection reset by peer"), ended_at=1.0),
        rank(tmp_path, exit_code=-signal.SIGSEGV, ended_at=1.5),
    ]
    ending = classify_outcome(ranks, None, NO_KILLS)
    assert ending == Ending("crashed", "rank 1: the process was ended by SIGSEGV")


@pytest.mark.parametrize(
    ("exit_code", "log", "outcome", "reason"),
    [
        (7, "", "crashed", "the process ended with status 7 and no word"),
        (-signal.SIGABRT, "what():  std::bad_alloc\n", "oom", "what():  std::bad_alloc"),
        (-signal.SIGKILL, "", "crashed", "the process was ended by SIGKILL; the kernel kills so when memory is out"),
    ],
)
def test_a_silent_exit_is_classified_by_exit_code_and_log(exit_code, log, outcome, reason, tmp_path):
    ending = classify_outcome([rank(tmp_path, exit_code=exit_code, log=log)], None, NO_KILLS)
    assert ending.outcome == outcome and ending.reason.startswith(reason)


def test_a_kernel_kill_is_out_of_memory_if_the_counts_rose(tmp_path):
    counts = iter([(1, 1), (1, 2)])
    kills = OomKillCounter(lambda: next(counts))
    ending = classify_outcome([rank(tmp_path, exit_code=-signal.SIGKILL)], None, kills)
    assert ending.outcome == "oom"
    assert ending.reason.startswith("the kernel killed rank 0: the machine was out of memory")


def test_a_rank_that_lost_its_peer_is_not_the_cause(tmp_path):
    lost = RankResult("crashed", "RuntimeError: Connection closed by peer", lost_peer=True)
    ranks = [rank(tmp_path, lost, ended_at=1.0), rank(tmp_path, RankResult("oom", "MemoryError"), ended_at=1.1)]
    assert classify_outcome(ranks, None, NO_KILLS) == Ending("oom", "rank 1: MemoryError")
    ending = classify_outcome(ranks[:1], None, NO_KILLS, first_rank=2, world_size=4)
    assert ending == Ending("crashed", "rank 2: RuntimeError: Connection closed by peer", is_consequence=True)


OK, OOM = Ending("ok", None), Ending("oom", "rank 3: MemoryError")
LOST = Ending("crashed", "rank 0: Connection closed by peer", is_consequence=True)


@pytest.mark.parametrize(
    ("endings", "expected"),
    [
        ([OK, OK], OK),
        ([LOST, OOM], OOM),
        ([OK, OOM], OOM),  # failed after the others had finished
        ([LOST, None], Ending("interrupted", "node 1 was lost: it returned no result")),
        ([OK, None], Ending("interrupted", "node 1 was lost: it returned no result")),
        ([OOM, None], OOM),
        ([LOST, LOST], LOST),
    ],
)
def test_the_node_that_failed_first_gives_a_cell_its_outcome(endings, expected):
    assert merge_endings(endings) == expected
