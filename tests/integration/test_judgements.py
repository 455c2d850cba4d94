"""Decisions of the worker and the sweep that need no cell of their own for each case."""

from __future__ import annotations

import errno

import pytest
import torch

from harness.errors import UserError
from harness.execution import sweep
from harness.execution.preparation import require_meaningful_accuracy
from harness.execution.sweep import Budget, NullListener, run_cells
from harness.store.record_files import load_records
from harness.worker.device import Unsupported, has_kernels
from harness.worker.failures import classify


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (MemoryError(), "oom", "MemoryError: no message"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "oom", "CUDA out of memory"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
            "oom",
            "alloc_cpu",
        ),
        (RuntimeError("CUDA error: out of memory"), "oom", "out of memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "oom", "Cannot allocate memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "crashed", "No space left"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), "oom", "CUBLAS"),
        (
            RuntimeError("mat1 and mat2 shapes cannot be multiplied\nmore"),
            "crashed",
            "RuntimeError: mat1 and mat2 shapes",
        ),
        (ValueError("out of memory is only its name"), "crashed", "ValueError"),
        (Unsupported("no kernels"), "unsupported", "no kernels"),
        (KeyError(), "crashed", "KeyError: no message"),
        (RuntimeError("no sdpa" + " yet" * 200 + "; set eager"), "crashed", "yet yet; set eager"),
        (
            RuntimeError("NCCL error in: x.hpp:275\nLast error:\nCuda failure 2 'out of memory'"),
            "oom",
            "RuntimeError: Cuda failure 2 'out of memory'",
        ),
        (ImportError("libx.so: failed to map segment from shared object"), "oom", "ImportError: libx.so"),
        (RuntimeError("std::bad_alloc"), "oom", "RuntimeError: std::bad_alloc"),
    ],
)
def test_an_exception_is_classified_by_type_and_message(error, outcome, reason):
    classified, text = classify(error)
    assert classified == outcome
    assert reason in text and "\n" not in text and len(text) <= 300


def test_an_error_raised_from_a_memory_error_is_out_of_memory():
    try:
        try:
            bytearray(2**62)
        except MemoryError as error:
            raise ValueError("the layer could not be built") from error
    except ValueError as error:
        wrapped = error
    assert classify(wrapped) == ("oom", "MemoryError: no message")


def test_an_error_while_handling_a_memory_error_is_a_crash():
    try:
        try:
            bytearray(2**62)
        except MemoryError:
            {}["no such key"]
    except KeyError as error:
        assert classify(error)[0] == "crashed"


@pytest.mark.parametrize("size", [2**40, 2**62])
def test_failed_allocations_of_torch_are_recognized(size):
    with pytest.raises(RuntimeError) as caught:
        torch.empty(size, dtype=torch.uint8)
    assert classify(caught.value)[0] == "oom"


@pytest.mark.parametrize(
    ("capability", "built", "runs"),
    [
        ((8, 6), ["sm_75", "sm_80", "sm_90"], True),  # cubins run on later minors of their major version
        ((8, 0), ["sm_86"], False),
        ((7, 0), ["sm_75", "sm_80", "compute_90"], False),  # a V100 under a build for later GPUs
        ((9, 0), ["sm_80", "compute_80"], True),  # PTX runs on anything later
        ((9, 0), ["sm_80"], False),
        ((9, 0), ["sm_90a"], True),
        ((12, 0), ["sm_100", "sm_120"], True),
        ((10, 0), [], False),
    ],
)
def test_a_gpu_needs_kernels_that_it_can_run(capability, built, runs):
    assert has_kernels(capability, built) is runs


class RecordingListener(NullListener):
    def __init__(self):
        self.started, self.ended, self.left_out = [], [], []

    def data_prepared(self, data):
        assert not self.started

    def cell_started(self, cell):
        self.started.append(cell)

    def cell_progressed(self, cell, message):
        assert cell == self.started[-1]

    def cell_ended(self, cell, record, path):
        assert path.is_file()
        self.ended.append(record)

    def cells_left_out(self, cells, reason):
        self.left_out.append((list(cells), reason))


def test_cells_expected_to_exceed_the_budget_are_left_out_with_the_reason(bench, tmp_path):
    cells = bench.cells(training={"max_steps": 2}, matrix={"batch_size": [8, 16, 32]})
    listener = RecordingListener()
    previous_s = {cells[0].config_hash: 1.0, cells[1].config_hash: 1000.0}
    records = run_cells(
        cells,
        tmp_path,
        bench.environment,
        listener,
        previous_s=previous_s,
        budget=Budget(100.0, "limits.budget_minutes = 1.7"),
    )
    assert [record.outcome for record in records] == ["ok"]
    assert listener.ended == records == list(load_records([tmp_path]).records)
    ((left_out, reason),) = listener.left_out
    assert left_out == cells[1:]
    assert "limits.budget_minutes = 1.7" in reason and "1000 s" in reason


def test_a_missing_package_is_reported_before_any_cell_runs(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "package_version", lambda name: "not installed" if name == "torch" else "1")
    with pytest.raises(UserError, match="torch not installed: cells need the extra `train`"):
        run_cells(bench.cells(), tmp_path, bench.environment, RecordingListener())
    records = run_cells(bench.cells(matrix={"precision": ["tf32"]}), tmp_path, bench.environment, RecordingListener())
    assert [record.outcome for record in records] == ["unsupported"]  # needs no torch


def test_a_training_split_of_one_label_is_refused_before_anything_runs(bench, tmp_path):
    """One positive row in 100: TF-IDF crashed, and BERT was `ok` with a test accuracy of 1.000."""
    path = tmp_path / "rare.csv"
    path.write_text("text,label\n" + "".join(f"row {row},{'good' if row == 7 else 'bad'}\n" for row in range(100)))
    data = {"source": str(path), "num_train": 32, "num_val": 8, "num_test": 8, "seed": 4}
    cells = bench.cells(data=data, baselines=True)
    with pytest.raises(UserError, match=r"all 32 training rows have the same label, .* set data\.stratify = true"):
        run_cells(cells, tmp_path / "results", bench.environment, NullListener())
    assert not list((tmp_path / "results").rglob("*.json"))
    # Random weights measure speed and memory alone.
    (cell,) = bench.cells(data=data, model={"init": "random"})
    require_meaningful_accuracy(cell, bench.prepare(cell))
