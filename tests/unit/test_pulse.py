"""Counters that parent and ranks share."""

from __future__ import annotations

from harness import pulse as pulse_module
from harness.pulse import Pulse


def test_a_rank_at_work_beats_by_itself_and_its_counter_is_then_set_back(tmp_path, monkeypatch):
    monkeypatch.setattr(pulse_module, "_AT_WORK_S", 0.001)
    pulse, parents = Pulse(tmp_path / "pulse", 2), Pulse(tmp_path / "pulse", 2)
    pulse.beat(0)
    pulse.beat(1)
    with pulse.at_work(0):
        while parents.read()[0] == 1:
            pass
        assert parents.read()[1] == 1
    assert parents.read() == (1, 1)
