"""Probes of a tiny model, and what is predicted from them."""

from __future__ import annotations

import re

import pytest

from harness.execution import hidden_paths
from harness.execution.probing import STUDY, StudyPrediction, plan_cells
from harness.store.record_files import load_records, own_records

TWO_BATCHES = {"batch_size": [8, 16], "seq_len": [24], "threads": [1]}


@pytest.fixture(scope="module")
def probed(bench, tmp_path_factory):
    """The cells of a study, their prediction, and the folder with the probe's record."""
    results = tmp_path_factory.mktemp("probed")
    cells = bench.cells(matrix=TWO_BATCHES)
    planned = plan_cells(cells, [bench.prepare(cell) for cell in cells], bench.environment.machine)
    prediction = StudyPrediction(planned, (), bench.environment.machine)
    asked = []
    records = prediction.probe(bench.runner, results, bench.environment, asked.append)
    return cells, planned, prediction, results, records, asked


def test_cells_that_compute_alike_share_one_probe(probed):
    cells, planned, _, _, records, asked = probed
    (record,) = records
    assert len(planned) == 2 and len(asked) == 1
    assert (record.outcome, record.study, record.training) == ("ok", STUDY, None)
    assert {cell.config_hash for cell in cells} == set(record.probe.planned)


def test_a_probe_holds_the_shapes_that_were_asked_for(probed):
    record = probed[4][0]
    shapes = [(shape.num_rows, shape.num_tokens) for shape in record.probe.shapes]
    assert len(shapes) >= 3 and (16, 24) in shapes
    assert all(
        len(shape.step_s) in (3, 6) and len(shape.evaluate_s) == len(shape.step_s) for shape in record.probe.shapes
    )
    peaks = [shape.peak_bytes for shape in record.probe.shapes]
    assert peaks == sorted(peaks) and peaks[0] > 50 * 2**20
    # Fast shapes are timed in two rounds.
    assert any(len(shape.step_s) == 6 for shape in record.probe.shapes)


def test_every_cell_is_predicted(probed):
    cells, _, prediction, *_ = probed
    small, large = (prediction.predict(cell.config_hash) for cell in cells)
    assert small.time.basis == large.time.basis == "probe"
    assert small.time.seconds.low < small.time.seconds.value < small.time.seconds.high
    # The first step, and the first one of each shape, take longer than the steps that the speed is of.
    assert small.time.samples_per_s.value > 256 / small.time.train_s.value
    assert small.peak_bytes.low < small.peak_bytes.value < small.peak_bytes.high


def test_a_saved_probe_is_used_again_and_is_no_run(probed, bench):
    cells, planned, before, results, *_ = probed
    stored = own_records(results, bench.environment.machine)
    assert stored.records == () and len(stored.probes) == 1 and stored.unreadable == ()
    again = StudyPrediction(planned, stored.probes, bench.environment.machine)
    assert again.probe(bench.runner, results, bench.environment) == []
    assert again.predict(cells[0].config_hash) == before.predict(cells[0].config_hash)
    assert len(load_records([results]).probes) == 1


def test_ranks_are_probed_together(bench, tmp_path):
    cells = bench.cells(matrix={"device": ["cpu-ddp2"], "batch_size": [8], "seq_len": [24], "threads": [2]})
    environment = bench.with_cores(2)
    planned = plan_cells(cells, [bench.prepare(cell) for cell in cells], environment.machine)
    (record,) = StudyPrediction(planned, (), environment.machine).probe(bench.runner, tmp_path, environment)
    assert record.probe is not None and record.probe.world_size == 2
    assert record.probe.shapes[0].num_rows == 8


def test_earlier_runs_serve_where_there_is_no_probe(bench, tmp_path):
    record = bench.run(training={"epochs": 3})
    cells = bench.cells(training={"epochs": 1})
    planned = plan_cells(cells, [bench.prepare(cell) for cell in cells], bench.environment.machine)
    prediction = StudyPrediction(planned, [record], bench.environment.machine)
    assert prediction.probe(bench.runner, tmp_path, bench.environment) == []
    predicted = prediction.predict(cells[0].config_hash)
    assert predicted.time.basis == "records"
    mean_step = sum(record.training.steps.seconds[0][2:]) / (len(record.training.steps.seconds[0]) - 2)
    assert predicted.time.train_s.value == pytest.approx(mean_step * planned[0].work.training.num_batches, rel=0.25)


def test_a_probe_that_fails_is_no_cell_of_a_study_and_is_not_saved(bench, tmp_path):
    """It was saved without a probe's figures, so that a report counted it as a failed cell of a study "probes"."""
    cells = bench.cells(limits={"memory_limit_gib": 0.05}, matrix={"seq_len": [24], "threads": [1]})
    planned = plan_cells(cells, [bench.prepare(cell) for cell in cells], bench.environment.machine)
    (record,) = StudyPrediction(planned, (), bench.environment.machine).probe(bench.runner, tmp_path, bench.environment)
    assert record.outcome != "ok" and record.probe is None
    assert list(tmp_path.rglob("*.json")) == []


def test_a_saved_probe_hides_homes_and_is_known_again(bench, tiny_bert, tmp_path, monkeypatch):
    """The folder of another user stood in the record of a probe."""
    cells = bench.cells(matrix={"seq_len": [24], "threads": [1]})
    home = tmp_path / "home"
    monkeypatch.setattr(hidden_paths, "_HOME", re.compile(re.escape(str(tiny_bert.parent)) + "/.*"))
    planned = plan_cells(cells, [bench.prepare(cell) for cell in cells], bench.environment.machine)
    StudyPrediction(planned, (), bench.environment.machine).probe(bench.runner, home, bench.environment)
    (file,) = home.rglob("*.json")
    assert str(tiny_bert.parent) not in file.read_text()
    stored = own_records(home, bench.environment.machine)
    again = StudyPrediction(planned, stored.probes, bench.environment.machine)
    assert again.predict(cells[0].config_hash).time.basis == "probe"


def test_a_cell_over_machines_is_planned_with_all_its_ranks_and_no_machine_alone_probes_it(bench):
    cells = bench.cells(matrix={"device": ["cpu-ddp2", "cpu-ddp1x2"], "batch_size": [16]})
    machine = bench.with_cores(2).machine
    planned = plan_cells(cells, [bench.prepare(cell) for cell in cells], machine)
    one, two = planned
    assert (one.num_ranks, two.num_ranks) == (2, 2)
    assert one.work == two.work  # the same batches
    assert one.group != two.group  # whose seconds are not those of one machine
    assert StudyPrediction([one], (), machine).unknown_flop > 0
    alone = StudyPrediction([two], (), machine)
    assert (alone.unknown_flop, alone.predict(two.cell.config_hash)) == (0, None)
