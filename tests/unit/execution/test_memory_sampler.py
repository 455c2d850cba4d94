"""When the parent looks at what a cell's processes hold together."""

from __future__ import annotations

import os

import pytest

from harness.execution import memory_sampler as census_module
from harness.execution.memory_sampler import MemorySampler


@pytest.fixture
def sizes(monkeypatch):
    """What each process holds, to be changed by a test."""
    held = {1: 100, 2: 200}
    monkeypatch.setattr(census_module, "pss_bytes", held.get)
    return held


def phase(name):
    return {"kind": "phase", "name": name}


def peak_of(census):
    return [(peak.rank, peak.source, peak.num_bytes) for peak in census.peaks()]


def test_it_looks_every_5_seconds_of_training_and_once_at_its_end(sizes):
    census = MemorySampler([1, 2], cage=None)
    census.poll(6.0)  # still loading
    assert peak_of(census) == []
    census.on_message(phase("train"), 6.5)
    census.poll(7.0)
    assert peak_of(census) == [(None, "pss", 300)]
    sizes[1] = 900
    census.poll(11.9)
    assert peak_of(census) == [(None, "pss", 300)]
    census.poll(12.0)
    assert peak_of(census) == [(None, "pss", 1100)]
    sizes[2] = 300
    census.on_message(phase("test"), 12.5)
    assert peak_of(census) == [(None, "pss", 1200)]
    sizes[1] = 1
    census.poll(30.0)
    assert peak_of(census) == [(None, "pss", 1200)]


def test_a_sum_that_misses_a_rank_is_no_sum(sizes):
    census = MemorySampler([1, 2, 3], cage=None)
    census.on_message(phase("train"), 0.0)
    census.poll(5.0)
    assert peak_of(census) == []


def test_one_rank_is_not_sampled(sizes):
    census = MemorySampler([1], cage=None)
    census.on_message(phase("train"), 0.0)
    census.poll(5.0)
    census.on_message(phase("test"), 6.0)
    assert peak_of(census) == []


def test_a_process_that_is_gone_has_no_share():
    assert census_module.pss_bytes(2**22 + 1) is None
    assert census_module.pss_bytes(os.getpid()) != 0
