"""Energy of real cells, their counters laid out as the kernel documents RAPL's: this machine has none of its own."""

from __future__ import annotations

import pytest

from harness.execution.messages import PhaseStarted
from harness.machine import energy_meter as energy
from harness.store.record_files import load_record, save_record


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Make a CPU package whose energy counter the test sets."""
    folder = tmp_path / "powercap" / "intel-rapl" / "intel-rapl:0"
    folder.mkdir(parents=True)
    for name, value in {"name": "package-0", "energy_uj": 0, "max_energy_range_uj": 262_143_328_850}.items():
        (folder / name).write_text(f"{value}\n")
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "powercap")
    return folder / "energy_uj"


def test_energy_is_measured_from_submission_to_the_end_of_the_test_evaluation(bench, package, tmp_path):
    def set_counter(message):
        if isinstance(message, PhaseStarted):
            # Energy after the test evaluation must not count.
            package.write_text(
                {"load": "1000000\n", "train": "5000000\n", "test": "7500000\n"}.get(message.name, "99000000\n")
            )

    record = bench.run(on_message=set_counter)
    assert record.outcome == "ok"
    assert (record.energy.source, record.energy.cpu_joules) == ("RAPL", (7.5,))
    measured_s = record.phases.start_s + record.phases.load_s + record.phases.train_s + record.phases.test_s
    assert measured_s * 0.9 < record.energy.seconds <= record.duration_s
    assert load_record(save_record(record, tmp_path / "results")).energy == record.energy


def test_the_energy_of_a_failed_cell_is_measured_until_its_end(bench, package):
    def set_counter(message):
        package.write_text("3000000\n")

    endless = {"epochs": 100_000, "eval_every": 100_000}
    record = bench.run(on_message=set_counter, training=endless, limits={"timeout_s": 3})
    assert (record.outcome, record.energy.cpu_joules) == ("timeout", (3.0,))
    assert record.energy.seconds == pytest.approx(record.duration_s)


def test_a_machine_without_counters_has_no_energy(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "nothing")
    assert bench.run().energy is None
