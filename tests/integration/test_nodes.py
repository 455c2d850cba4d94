"""Training across two machines: two network namespaces that only a cable joins, each with a parent process of its own."""

from __future__ import annotations

import os
import pickle
import secrets
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
from node_parent import PartRequest
from two_machines import ADDRESSES, Parent, ip, part_of, read_results, send_requests, two_machines, why_no_namespaces

from harness.analysis.network_speed import network_speed
from harness.execution.jobs import Environment
from harness.execution.parts import merge_parts
from harness.schema.record import to_json, upgrade_record

pytestmark = [pytest.mark.alone, pytest.mark.slow]  # four ranks compute at once

NO_DROPOUT = {"attention_dropout": 0.0, "hidden_dropout": 0.0}
ENDLESS = {"epochs": 100_000, "eval_every": 100_000}
# The same global batches of 32 rows in every test, without dropout, in fp32.
EQUAL = {"model": NO_DROPOUT, "training": {"max_steps": 22, "lr": 1e-3}, "data": {"num_train": 250}}


@dataclass
class TwoNodes:
    """Two machines that a cable joins; runs the parts of a cell on both."""

    parents: tuple[Parent, Parent]
    bench: object
    folder: Path
    num_requests: int = 0

    def start(self, device, *, worker="", differ=None, save_model=False, **raw):
        """Ask both parents to run a cell; return it with its inputs."""
        matrix = {"device": [device], "threads": [1]} | raw.pop("matrix", {})
        (cell,) = self.bench.cells(**raw, matrix=matrix)
        prepared = replace(self.bench.prepare(cell), read_texts=None)
        self.num_requests += 1
        requests, token = [], secrets.token_hex(8)
        for index, parent in enumerate(self.parents):
            machine = self.bench.with_cores(2).machine.model_copy(
                update={"host": f"host-{index}"} | (differ or {} if index else {})
            )
            if save_model:  # a folder of each machine's own, as they share no disk
                self.model_folder(index).mkdir()
                prepared = replace(prepared, job=replace(prepared.job, save_model_to=str(self.model_folder(index))))
            environment = Environment(machine, None, None, self.bench.environment.packages)
            requests.append(PartRequest(cell, prepared, environment, part_of(parent, index, token), worker))
        send_requests(self.parents, requests, self.folder)
        return cell, prepared

    def model_folder(self, index):
        return self.folder / f"model-{self.num_requests}-{index}"

    def results(self):
        """Wait until both parents are done, and return their parts' results."""
        return read_results(self.parents, self.folder)

    def run(self, device, **raw):
        cell, prepared = self.start(device, **raw)
        return merge_parts(cell, prepared, self.results())


@pytest.fixture(scope="module")
def nodes(bench, tmp_path_factory):
    reason = why_no_namespaces()
    if reason:
        pytest.skip(reason)
    with two_machines() as parents:
        yield TwoNodes(parents, bench, tmp_path_factory.mktemp("parts"))


def assert_gone(pids):
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=10)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="module")
def one_machine(bench):
    """The losses of 2 x 1 ranks: two ranks on one machine."""
    matrix = {"device": ["cpu-ddp2"], "batch_size": [16]}
    record = bench.run(bench.with_cores(4), **EQUAL, matrix=matrix)
    assert record.outcome == "ok", (record.reason, record.stderr_tail)
    return record.training


@pytest.mark.parametrize(("device", "batch_size"), [("cpu-ddp1x2", 16), ("cpu-ddp2x2", 8)])
def test_two_machines_give_the_losses_of_one(nodes, one_machine, device, batch_size):
    record = nodes.run(device, **EQUAL, matrix={"batch_size": [batch_size]})
    assert record.outcome == "ok", (record.reason, record.stderr_tail)
    training, num_ranks = record.training, 32 // batch_size
    assert (training.world_size, training.global_batch_size) == (num_ranks, 32)
    assert training.steps.num_samples == one_machine.steps.num_samples
    assert training.steps.loss == pytest.approx(one_machine.steps.loss, abs=1e-4)
    assert max(training.steps.loss) - min(training.steps.loss) > 1e-3  # the losses do change
    assert training.evaluations[-1].accuracy == pytest.approx(one_machine.evaluations[-1].accuracy, abs=2 / 64)
    assert len(training.test.labels) == len(one_machine.test.labels)
    # Both machines are on the record, and the memory of all ranks.
    assert [node.machine.host for node in record.nodes] == ["host-0", "host-1"]
    assert [node.interface for node in record.nodes] == [parent.interface for parent in nodes.parents]
    assert {peak.rank for peak in training.peak_memory if peak.source == "rss"} == set(range(num_ranks))
    assert len(training.communication.sync_s) == 6
    assert upgrade_record(pickle.loads(pickle.dumps(record.model_dump(mode="json")))) == record
    assert not any(address in to_json(record) for address in ADDRESSES)


def test_the_network_is_measured_before_training(nodes):
    record = nodes.run("cpu-ddp1x2", training={"max_steps": 2})
    assert record.outcome == "ok", (record.reason, record.stderr_tail)
    sizes = [times.num_bytes for times in record.training.network.all_reduce]
    assert sizes == [2**16 * 4**power for power in range(7)][: len(sizes)] and len(sizes) >= 5
    counts = [len(times.seconds) for times in record.training.network.all_reduce]
    assert counts == sorted(counts, reverse=True) and counts[0] == 20 and counts[-1] >= 3
    speed = network_speed([record])
    assert speed.latency_s < min(record.training.network.all_reduce[-1].seconds)
    assert speed.interfaces == tuple(parent.interface for parent in nodes.parents)
    # The training clock and the seconds of loading don't include it.
    phases = record.phases
    measured_s = sum(sum(times.seconds) for times in record.training.network.all_reduce)
    assert phases.load_s + phases.train_s + measured_s < record.duration_s


def test_the_best_model_is_saved_on_the_first_machine_and_tested_on_both(nodes):
    recipe = {"epochs": 6, "lr": 5e-3, "keep_model": True}
    record = nodes.run("cpu-ddp1x2", training=recipe, save_model=True)
    assert record.outcome == "ok", (record.reason, record.stderr_tail)  # equal parameters on both, at the end
    training = record.training
    best = max(evaluation.accuracy for evaluation in training.evaluations)
    first_best = next(each for each in training.evaluations if each.accuracy == best)
    assert (
        training.kept.num_updates == first_best.num_updates < len(training.steps.loss)
    )  # an earlier model was restored
    assert (nodes.model_folder(0) / "model.safetensors").is_file() and list(nodes.model_folder(1).iterdir()) == []


def test_a_rank_that_is_killed_ends_the_cell_on_both_machines_with_its_outcome(nodes):
    cell, prepared = nodes.start("cpu-ddp2x2", training=ENDLESS)
    pids = [list(map(int, parent.wait_for("progress"))) for parent in nodes.parents]
    os.kill(pids[1][0], signal.SIGKILL)
    killed_at = time.monotonic()
    results = nodes.results()
    assert time.monotonic() - killed_at < 15
    record = merge_parts(cell, prepared, results)
    assert record.outcome == "crashed"
    assert record.reason.startswith("rank 2: the process was ended by SIGKILL")
    assert results[0].ending.is_consequence and not results[1].ending.is_consequence
    assert len(record.nodes) == 2 and record.marks
    assert_gone(pid for node in pids for pid in node)


def test_a_rank_that_waits_for_nobody_is_ended_too(nodes):
    """Only the parents' connection tells this machine: its rank is no longer in any all-reduce."""
    cell, prepared = nodes.start("cpu-ddp1x2", worker="rank_0_sleeps_and_rank_1_leaves", training=ENDLESS)
    began = time.monotonic()
    record = merge_parts(cell, prepared, nodes.results())
    assert (record.outcome, record.reason) == ("crashed", "rank 1: the process ended with status 7 and no word")
    assert record.duration_s < 15 and time.monotonic() - began < 30


def test_memory_that_runs_out_on_one_machine_is_the_cells_outcome(nodes):
    record = nodes.run("cpu-ddp1x2", worker="runs_out_of_memory", training=ENDLESS)
    assert (record.outcome, record.reason) == ("oom", "rank 1: MemoryError: made by a test")


def test_a_stopped_rank_is_found_across_machines(nodes):
    record = nodes.run("cpu-ddp1x2", worker="stops_itself", training=ENDLESS)
    assert record.outcome == "timeout"
    assert record.reason.startswith("rank 1 hung: nothing got on for")


def test_a_cut_cable_ends_both_parts(nodes):
    nodes.start("cpu-ddp1x2", training=ENDLESS)
    for parent in nodes.parents:
        parent.wait_for("progress")
    first = nodes.parents[0]
    ip("-n", first.namespace, "link", "set", first.interface, "down")
    cut_at = time.monotonic()
    try:
        results = nodes.results()
    finally:
        ip("-n", first.namespace, "link", "set", first.interface, "up")
    assert time.monotonic() - cut_at < 25
    assert {result.ending.outcome for result in results} <= {"interrupted", "timeout"}


def test_machines_of_different_kinds_are_refused(nodes):
    record = nodes.run("cpu-ddp1x2", differ={"id": "another-kind"})
    assert record.outcome == "unsupported"
    assert record.reason.startswith("node 1 differs in its kind of machine: another-kind")
    assert record.load is None and record.duration_s == 0
