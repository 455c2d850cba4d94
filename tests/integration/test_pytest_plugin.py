"""The fixture `bert_cell` in a user's tests."""

from __future__ import annotations

import subprocess
import sys

import pytest

from harness.errors import UserError
from harness.workflows.measure_cell import as_study

pytest_plugins = ["pytester"]

TESTS = """
import pytest

@pytest.fixture(scope="module")
def cell(bert_cell):
    return bert_cell(
        batch_size=16, seq_len=24, threads=1, num_train=64, num_val=32, num_test=64, max_steps=12,
        model={{"name": {model!r}}}, source={reviews!r},
    )

def test_figures_are_those_of_the_record(cell):
    steps = cell.record.training.steps
    assert len(steps.seconds[0]) == 12
    warmup, measured = cell.summary.num_warmup_steps, cell.summary.num_measured_steps
    assert warmup + measured == 12 and warmup <= 6
    assert cell.samples_per_s == pytest.approx(measured * 16 / sum(steps.seconds[0][warmup:]))
    assert 0 <= cell.accuracy == cell.record.training.test.accuracy
    assert cell.peak_memory_bytes > 2**26
    assert cell.outcome == "ok" and cell.reason is None

def test_that_is_to_fail(cell):
    assert cell.samples_per_s > 1e9

def test_of_a_precision_that_no_cpu_has(bert_cell):
    bert_cell(precision="tf32", source={reviews!r}, model={{"name": {model!r}}}, num_train=64, num_val=32, num_test=64)

def test_of_two_cells(bert_cell):
    bert_cell(batch_size=[8, 16])

def test_of_a_key_that_is_none(bert_cell):
    bert_cell(batchsize=8)
"""


# In this process, so that the cell is forked from the warm process.
@pytest.mark.usefixtures("warm_runner")
def test_a_users_test_runs_a_cell_and_asserts_on_its_figures(pytester, tiny_bert, reviews):
    pytester.makepyfile(TESTS.format(model=str(tiny_bert), reviews=str(reviews)))
    done = pytester.runpytest_inprocess("-p", "harness.pytest_plugin", "-p", "no:cacheprovider", "--tb=short")
    done.assert_outcomes(passed=1, failed=4)
    done.stdout.fnmatch_lines_random(
        [
            "E*assert * > 1000000000.0*",
            "E*<MeasuredCell b16-s24-*: ok>.samples_per_s",
            "*ended as unsupported: tf32 is a format of NVIDIA's tensor cores*",
            "*bert_cell runs one cell; these keys name 2: b8-s64-*, b16-s64-*",
            "*unknown study key 'batchsize' (did you mean 'batch_size'?)*",
        ]
    )


def test_keys_are_assigned_to_their_tables():
    keys = {"batch_size": 8, "num_train": 64, "lr": 1e-3, "repeats": 2, "training": {"epochs": 1}, "timeout_s": 60}
    assert as_study(keys) == {
        "matrix": {"batch_size": 8},
        "data": {"num_train": 64},
        "training": {"lr": 1e-3, "epochs": 1},
        "repeats": 2,
        "limits": {"timeout_s": 60},
    }
    with pytest.raises(UserError, match="seeds="):
        as_study({"seed": 1})


def test_loading_the_plugin_imports_no_other_module_of_the_harness():
    code = (
        "import sys, pytest; before = set(sys.modules); import harness.pytest_plugin; print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"harness", "harness.pytest_plugin"}
