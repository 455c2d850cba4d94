"""Heartbeat counters shared by parent and ranks."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.execution.heartbeat import Heartbeat, Stall, hang_reason
from tests.small_disk import fill, small_disk


def test_keepalive_ticks_by_itself_and_then_restores_the_counter(tmp_path):
    ranks, parent = Heartbeat(tmp_path / "heartbeat", 2), Heartbeat(tmp_path / "heartbeat", 2)
    ranks.tick(0)
    ranks.tick(1)
    with ranks.keepalive(0, interval_s=0.001):
        while parent.read()[0] == 1:
            pass
        assert parent.read()[1] == 1
    assert parent.read() == (1, 1)


def test_processes_that_open_the_file_at_once_see_whole_counters(tmp_path):
    barrier = threading.Barrier(4)

    def open_and_read(number):
        barrier.wait()
        heartbeat = Heartbeat(tmp_path / f"heartbeat-{number}", 3)
        heartbeat.tick(1)
        return heartbeat.read()

    with ThreadPoolExecutor(4) as pool:
        for number in range(100):
            reads = list(pool.map(open_and_read, [number] * 4))
            assert all(counters[0] == counters[2] == 0 and counters[1] > 0 for counters in reads)


def test_a_full_disk_is_told_with_the_file(tmp_path):
    with small_disk(tmp_path / "disk", "size=64k") as disk:
        fill(disk)
        with pytest.raises(OSError, match="No space left") as failed:  # was without a file, in a run's only message
            Heartbeat(disk / "heartbeat", 1)
    assert failed.value.filename == str(disk / "heartbeat")


def stall(counters, idle, *, quiet_s=6.0, longest_s=1.0, stopped=None):
    return Stall(quiet_s, longest_s, counters, idle, stopped or (False,) * len(counters))


@pytest.mark.parametrize(
    ("stalls", "expected"),
    [
        ([stall((5, 5), (False, False))], None),  # a long step keeps every rank busy
        ([stall((5, 5), (True, False), longest_s=3.0)], None),  # waits no longer than four of the longest so far
        ([stall((5, 5), (True, False))], "rank 1 hung: nothing got on for 6 s while the others waited"),
        ([stall((5, 4), (True, True))], "rank 1 hung: nothing got on for 6 s while the others waited"),
        ([stall((5, 5), (True, True))], "the ranks hung, each idle: nothing got on for 6 s"),
        # Of two nodes: neither alone could tell that a rank of the other is busy, or behind, or stopped.
        ([stall((5,), (True,)), stall((5,), (False,), longest_s=3.0)], None),
        ([stall((5,), (True,)), stall((4,), (True,), quiet_s=5.0)], "rank 1 hung: nothing got on for 5 s while the others waited"),
        ([stall((5, 5), (True, True)), stall((5, 5), (True, True), stopped=(False, True))],
         "rank 3 hung: nothing got on for 6 s while the others waited"),
    ],
)  # fmt: skip
def test_a_hang_names_the_rank_that_the_others_wait_for(stalls, expected):
    assert hang_reason(stalls) == expected


def test_a_stall_comes_through_json_and_nothing_else_does():
    sent = stall((5, 4), (True, False))
    assert Stall.from_json(json.loads(json.dumps(sent.as_json()))) == sent
    for other in (None, "text", {}, sent.as_json() | {"idle": [True]}, sent.as_json() | {"counters": "ab"}):
        assert Stall.from_json(other) is None
