"""Heartbeat counters shared by parent and ranks."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.execution.heartbeat import Heartbeat
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
