"""The parent samples the memory of all ranks together."""

from __future__ import annotations

import os

import pytest

from harness.execution.memory_sampler import MemorySampler, pss_bytes
from harness.execution.messages import PhaseStarted


@pytest.fixture
def sizes():
    """Bytes of each process, for a test to change."""
    return {1: 100, 2: 200}


def peak_of(sampler):
    return [(peak.rank, peak.source, peak.num_bytes) for peak in sampler.peaks()]


def test_memory_is_sampled_every_5_seconds_of_training_and_at_its_end(sizes):
    sampler = MemorySampler([1, 2], None, sizes.get)
    sampler.poll(6.0)  # still loading
    assert peak_of(sampler) == []
    sampler.on_message(PhaseStarted("train"), 6.5)
    sampler.poll(7.0)
    assert peak_of(sampler) == [(None, "pss", 300)]
    sizes[1] = 900
    sampler.poll(11.9)
    assert peak_of(sampler) == [(None, "pss", 300)]
    sampler.poll(12.0)
    assert peak_of(sampler) == [(None, "pss", 1100)]
    sizes[2] = 300
    sampler.on_message(PhaseStarted("test"), 12.5)
    assert peak_of(sampler) == [(None, "pss", 1200)]
    sizes[1] = 1
    sampler.poll(30.0)
    assert peak_of(sampler) == [(None, "pss", 1200)]


def test_a_sum_without_one_of_the_ranks_does_not_count(sizes):
    sampler = MemorySampler([1, 2, 3], None, sizes.get)
    sampler.on_message(PhaseStarted("train"), 0.0)
    sampler.poll(5.0)
    assert peak_of(sampler) == []


def test_one_rank_is_not_sampled(sizes):
    sampler = MemorySampler([1], None, sizes.get)
    sampler.on_message(PhaseStarted("train"), 0.0)
    sampler.poll(5.0)
    sampler.on_message(PhaseStarted("test"), 6.0)
    assert peak_of(sampler) == []


def test_a_process_that_has_ended_has_no_pss():
    assert pss_bytes(2**22 + 1) is None
    assert pss_bytes(os.getpid()) != 0
