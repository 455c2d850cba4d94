"""Counters that parent and ranks share."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from harness.execution import heartbeat as pulse_module
from harness.execution.heartbeat import Heartbeat


def test_a_rank_at_work_beats_by_itself_and_its_counter_is_then_set_back(tmp_path, monkeypatch):
    monkeypatch.setattr(pulse_module, "_AT_WORK_S", 0.001)
    pulse, parents = Heartbeat(tmp_path / "pulse", 2), Heartbeat(tmp_path / "pulse", 2)
    pulse.tick(0)
    pulse.tick(1)
    with pulse.keepalive(0):
        while parents.read()[0] == 1:
            pass
        assert parents.read()[1] == 1
    assert parents.read() == (1, 1)


def test_those_who_open_it_at_once_find_it_whole(tmp_path):
    together = threading.Barrier(4)

    def open_and_read(number):
        together.wait()
        pulse = Heartbeat(tmp_path / f"pulse-{number}", 3)
        pulse.tick(1)
        return pulse.read()

    with ThreadPoolExecutor(4) as pool:
        for number in range(100):
            seen = list(pool.map(open_and_read, [number] * 4))
            assert all(beats[0] == beats[2] == 0 and beats[1] > 0 for beats in seen)
