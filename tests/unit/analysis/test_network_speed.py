"""Latency and bandwidth between machines against hand-computed values."""

from __future__ import annotations

import pytest

from harness.analysis.network_speed import network_speed
from tests.make_records import make_network, make_record

KIB, MIB = 2**10, 2**20


def run(seconds_by_bytes, repeat=0):
    network = None if seconds_by_bytes is None else make_network(seconds_by_bytes)
    axes = {"device": "cpu-ddp2x2", "batch_size": 8}
    return make_record(axes=axes, repeat=repeat, training={"network": network})


def test_latency_is_that_of_the_smallest_size_and_bandwidth_that_of_the_best():
    speed = network_speed([run({64 * KIB: [0.001, 0.003, 0.002], 16 * MIB: [0.1, 0.1], 256 * MIB: [2.0]})])
    assert (speed.latency_s, speed.smallest_bytes) == (0.002, 64 * KIB)
    # 16 MiB in 0.1 s are 167.8 MB/s, 256 MiB in 2 s are 134.2; a ring of 4 ranks moves 2 x 3 / 4 of it on each link.
    assert (speed.bytes_per_s, speed.best_bytes) == (pytest.approx(16 * MIB / 0.1), 16 * MIB)
    assert speed.bus_bytes_per_s == pytest.approx(1.5 * 16 * MIB / 0.1)
    assert (speed.interfaces, speed.backend) == (("eth0",), "gloo")


def test_runs_count_alike_however_often_each_repeated():
    runs = [
        run({64 * KIB: [seconds] * count}, repeat) for repeat, (seconds, count) in enumerate([(1, 9), (3, 1), (2, 1)])
    ]
    assert network_speed(runs).latency_s == 2


def test_without_a_measurement_there_is_no_speed():
    assert network_speed([run(None), make_record()]) is None
