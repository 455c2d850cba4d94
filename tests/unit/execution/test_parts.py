"""One record of the parts of several machines, without a process."""

from __future__ import annotations

import pickle
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from harness.execution.jobs import Environment, PreparedCell
from harness.execution.messages import RankResult, TrainHistory, TrainResult
from harness.execution.outcome import Ending
from harness.execution.parts import PartResult, merge_parts, unstarted
from harness.schema.cells import Cell
from harness.schema.host_record import Energy, GpuReading, Load
from harness.schema.inputs_record import ModelFacts
from harness.schema.nodes_record import AllReduceTimes, Network
from harness.schema.training_record import PeakMemory, ProgressMark
from tests.make_records import MIB, make_load, make_machine, make_model_facts, make_record

BEGAN = datetime(2026, 11, 1, 8, tzinfo=UTC)
NETWORK = Network(backend="gloo", all_reduce=(AllReduceTimes(num_bytes=65536, seconds=(0.001,)),))
READING = GpuReading(
    at_s=1.0, gpu=0, sm_clock_mhz=None, memory_clock_mhz=None, power_watts=100.0, temperature_celsius=None,
    used_bytes=None, throttle_reasons=None,
)  # fmt: skip


def rank_result(rank, *, loss=0.5, checksum=1.0):
    history = TrainHistory(
        loss_sums=[4 * loss, 4 * loss], num_samples=[4, 4], num_real_tokens=[40, 40], num_padded_tokens=[64, 64],
        num_token_pairs=[1024, 1024], held_bytes=[MIB, MIB],
    )  # fmt: skip
    peaks = (PeakMemory(rank=rank, source="rss", num_bytes=(10 + rank) * MIB),)
    model = ModelFacts.model_validate(make_model_facts())
    training = TrainResult(
        history, (0.1, 0.2), "perf_counter", 1.0, None, peaks, model, 1e-4, 2, 1, "2.13.0+cpu", checksum,
        cpus=(0, 1), network=NETWORK,
    )  # fmt: skip
    return RankResult("ok", training=training, cpu_s=3.0)


def part(node, num_ranks=2, **changes):
    machine = make_machine(host=f"host-{node}")
    results = tuple(rank_result(rank) for rank in range(node * num_ranks, (node + 1) * num_ranks))
    whole = PartResult(
        environment=Environment(machine, None, None, {"torch": "2.13.0"}),
        ending=Ending("ok", None),
        started_at=BEGAN,
        duration_s=9.0 + node,
        interface=f"eth{node}",
        results=results,
        stderr_tails=((f"node {node}",),) * num_ranks,
        marks=(ProgressMark(at_s=2.0, num_steps=1, num_samples=4, evaluate_s=0.0, loss=0.1 * node),),
        held_bytes=(MIB,),
        peaks=(PeakMemory(rank=None, source="pss", num_bytes=(100 + node) * MIB),),
        load=Load.model_validate(make_load([])),
        start_method="forkserver",
        gpu_readings=(READING,),
        energy=Energy(source="RAPL", seconds=9.0, cpu_joules=(50.0 + node,)),
    )
    return replace(whole, **changes)


@pytest.fixture
def cell():
    config = make_record(axes={"device": "cpu-ddp2x2", "batch_size": 4}).config
    return Cell(study="study", name="b4", repeat=0, config=config)


@pytest.fixture
def prepared():
    return PreparedCell(job=None, data=make_record().data, example=None, tokenise_s=0.5)


def test_the_parts_of_all_machines_make_one_record(cell, prepared):
    record = merge_parts(cell, prepared, [part(0), part(1)])
    training = record.training
    assert (record.outcome, record.machine.host, record.duration_s) == ("ok", "host-0", 10.0)
    assert (training.world_size, training.global_batch_size) == (4, 16)
    assert training.steps.num_samples == (16, 16)
    assert training.steps.loss == (0.5, 0.5)
    assert len(training.steps.seconds) == len(training.held_bytes) == len(record.stderr_tail) == 4
    assert training.network == NETWORK
    assert [(node.machine.host, node.num_ranks, node.interface) for node in record.nodes] == [
        ("host-0", 2, "eth0"), ("host-1", 2, "eth1"),
    ]  # fmt: skip


def test_memory_and_energy_are_those_of_all_machines(cell, prepared):
    record = merge_parts(cell, prepared, [part(0), part(1)])
    peaks = [(peak.rank, peak.source, peak.num_bytes // MIB) for peak in record.training.peak_memory]
    assert peaks == [(rank, "rss", 10 + rank) for rank in range(4)] + [(None, "pss", 100), (None, "pss", 101)]
    assert record.energy.cpu_joules == (50.0, 51.0)


def test_a_source_that_one_machine_lacks_is_left_out_since_its_sum_would_mislead(cell, prepared):
    record = merge_parts(cell, prepared, [part(0), part(1, peaks=(), energy=None)])
    assert {peak.source for peak in record.training.peak_memory} == {"rss"}
    assert record.energy is None


def test_gpus_are_numbered_over_all_machines(cell, prepared):
    gpus = make_machine(gpus=["Tesla T4"] * 2)
    with_gpus = [part(node, environment=replace(part(node).environment, machine=gpus)) for node in (0, 1)]
    assert [reading.gpu for reading in merge_parts(cell, prepared, with_gpus).gpu_readings] == [0, 2]


def test_a_machine_that_returned_nothing_leaves_no_training(cell, prepared):
    lost = part(0, ending=Ending("crashed", "rank 0: Connection closed by peer", is_consequence=True))
    record = merge_parts(cell, prepared, [lost, None])
    assert (record.outcome, record.reason) == ("interrupted", "node 1 was lost: it returned no result")
    assert (record.training, record.nodes, record.num_nodes) == (None, (), 2)
    with pytest.raises(ValueError, match="no part"):
        merge_parts(cell, prepared, [None, None])


def test_a_failed_rank_leaves_the_progress_of_the_first_node(cell, prepared):
    failed = part(1, ending=Ending("oom", "rank 3: MemoryError"), results=(rank_result(2), None))
    record = merge_parts(cell, prepared, [part(0), failed])
    assert (record.outcome, record.reason, record.training) == ("oom", "rank 3: MemoryError", None)
    assert record.marks[0].loss == 0.0 and record.held_bytes == (MIB,)
    assert len(record.nodes) == 2  # both are paid for


def test_parameters_that_differ_between_machines_are_a_crash(cell, prepared):
    other = part(1, results=(rank_result(2), rank_result(3, checksum=2.0)))
    record = merge_parts(cell, prepared, [part(0), other])
    assert record.outcome == "crashed" and "parameters differ" in record.reason


def test_a_cell_that_never_started_has_its_data_and_reason(cell, prepared):
    environment = part(0).environment
    record = merge_parts(cell, prepared, [unstarted(environment, Ending("unsupported", "no")), None])
    assert (record.outcome, record.reason, record.duration_s) == ("unsupported", "no", 0.0)
    assert record.data == prepared.data and record.load is None and record.start_method is None


def test_a_part_can_be_pickled():
    whole = part(1)
    assert pickle.loads(pickle.dumps(whole)) == whole
