"""The spread between runs: stated, measured over a machine's repeats, or assumed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from harness.analysis.run_spread import RunSpeed, assumed_spread, measured_spread, stated_spread
from harness.analysis.serial_correlation import RunStart
from harness.analysis.summarize import summarize
from harness.store.record_files import load_records
from tests.make_records import make_machine, make_record

REFERENCE = Path("results/reference")
HOUR_S = 3600.0


def speeds(*logs, host="a", apart_s=HOUR_S):
    return [RunSpeed(RunStart(host, index * apart_s), log) for index, log in enumerate(logs)]


def test_squares_of_several_cells_are_pooled():
    # Three cells of three runs far apart: sums of squares 0.02, 0.08, 0 over 6 repeats. A fourth cell has one run.
    spread = measured_spread([speeds(0, 0.1, 0.2), speeds(5, 5.2, 5.4), speeds(1, 1, 1), speeds(9)])
    assert spread.value == pytest.approx(math.sqrt(0.1 / 6))
    assert spread.degrees_of_freedom == pytest.approx(6)
    assert spread.basis == "13 % between runs measured over 6 repeats"


def test_fewer_than_six_repeats_measure_nothing():
    assert measured_spread([speeds(0, 0.1, 0.2), speeds(5, 5.2, 5.4), speeds(1, 1)]) is None
    assert (assumed_spread().value, assumed_spread().basis) == (0.1, "10 % between runs assumed")
    assert (stated_spread(0.035).value, stated_spread(0.035).basis) == (0.035, "3.5 % between runs stated")


def test_repeats_that_follow_each_other_understate_the_spread():
    """Seven runs, 30 s apart, of a machine whose drift makes neighbours alike: the naive standard deviation is 15 % low."""
    random, starts = np.random.default_rng(20261127), 30.0 * np.arange(7)
    root = np.linalg.cholesky(0.75 * np.exp(-abs(starts[:, None] - starts) / 65) + 0.25 * np.eye(7))
    draws = 0.1 * random.standard_normal((2000, 7)) @ root.T
    assert np.sqrt(draws.var(axis=1, ddof=1).mean()) == pytest.approx(0.0855, abs=0.002)
    squares = [measured_spread([speeds(*logs, apart_s=30.0)]).value ** 2 for logs in draws]
    assert math.sqrt(np.mean(squares)) == pytest.approx(0.1, abs=0.002)


def test_each_machine_has_its_own_spread_and_a_stated_one_replaces_all():
    noisy, other = make_machine(), make_machine(machine_id="xeon-2c-8g-000002")
    repeats = [
        make_record(machine=noisy, repeat=i, minutes=60 * i, training={"seconds": [step_s] * 40})
        for i, step_s in enumerate((1.0, 1.5, 1.0, 1.5, 1.0, 1.5, 1.0))
    ]
    singles = [make_record(machine=machine, axes={"batch_size": 4}) for machine in (noisy, other)]
    by_cell = {(one.machine_id, one.num_ok): one for one in summarize([*repeats, *singles])}
    assert by_cell[noisy.id, 7].run_spread is None
    assert by_cell[noisy.id, 7].samples_per_s.basis == "between 7 runs"
    assert by_cell[noisy.id, 1].samples_per_s.basis == "one run, with 22 % between runs measured over 6 repeats"
    assert by_cell[other.id, 1].run_spread == assumed_spread()
    stated = summarize([*repeats, *singles], stated_spread(0.02))
    assert [one.run_spread.value for one in stated if one.num_ok == 1] == [0.02, 0.02]


def test_replaced_runs_of_the_same_software_count_as_repeats():
    runs = [make_record(minutes=60 * i, training={"seconds": [1 + i % 2] * 40}) for i in range(7)]
    (summary,) = summarize(runs)
    assert (summary.num_ok, summary.run_spread.basis) == (1, "37 % between runs measured over 6 repeats")
    newer = [run.model_copy(update={"packages": {"torch": f"2.{i}"}}) for i, run in enumerate(runs)]
    assert summarize(newer)[0].run_spread == assumed_spread()


def test_the_reference_machines():
    """The shared Xeon's two runs of a cell differ by up to a factor of 2.7; before, each had the interval of its steps."""
    records = load_records([REFERENCE]).records
    used = {
        one.machine_id: one.run_spread.basis for one in summarize(records) if one.kind == "fine_tune" and one.run_spread
    }
    assert used == {
        "amd-epyc-2c-24g-dbbbf2": "8.5 % between runs measured over 171 repeats",
        "intel-xeon-2c-24g-b47fd4": "35 % between runs measured over 11 repeats",
        "amd-epyc-1c-24g-1d0db1": "10 % between runs assumed",
        "amd-epyc-2c-2g-32cca2": "10 % between runs assumed",
    }
