"""Who holds a GPU's memory, by NVML's answers as its documentation words them (no GPU was here to record any)."""

from __future__ import annotations

import os
import sys
import types

import psutil
import pytest

from harness.machine.memory_users import find_memory_users

GIB = 2**30
NOBODY = 2**22 + 1


@pytest.fixture
def nvml(monkeypatch):
    """Installs a stand-in for pynvml whose GPUs run these processes: (pid, bytes) computing and drawing."""

    def install(*gpus, failing=()):
        fake = types.ModuleType("pynvml")
        fake.NVMLError = RuntimeError

        def listed(kind):
            def answer(handle):
                if kind in failing:
                    raise RuntimeError("GPU is lost")
                return [types.SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in handle[kind]]

            return answer

        fake.nvmlInit = fake.nvmlShutdown = lambda: None
        fake.nvmlDeviceGetCount = lambda: len(gpus)
        fake.nvmlDeviceGetHandleByIndex = lambda index: gpus[index]
        fake.nvmlDeviceGetComputeRunningProcesses = listed("compute")
        fake.nvmlDeviceGetGraphicsRunningProcesses = listed("graphics")
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return install


def on_gpus(indices):
    return [(one.name, one.num_bytes, one.gpu) for one in find_memory_users(indices) if one.gpu is not None]


def test_others_on_the_cells_gpus_are_named_largest_first(nvml):
    parent = os.getppid()
    nvml(
        {"compute": [(NOBODY, 2 * GIB), (parent, 6 * GIB)], "graphics": []},
        {"compute": [(NOBODY, 9 * GIB)], "graphics": []},
    )
    unseen = "a process that is not to be seen from here"
    assert on_gpus([0]) == [(psutil.Process(parent).name(), 6 * GIB, 0), (unseen, 2 * GIB, 0)]
    assert on_gpus([0, 1])[2:] == [(unseen, 9 * GIB, 1)]


def test_the_harness_itself_small_ones_and_unknown_sizes_are_left_out(nvml):
    nvml({"compute": [(os.getpid(), 3 * GIB), (NOBODY, 2**20), (NOBODY + 1, None)], "graphics": []})
    assert on_gpus([0]) == []


def test_a_process_that_computes_and_draws_counts_once(nvml):
    nvml({"compute": [(NOBODY, GIB)], "graphics": [(NOBODY, GIB)]})
    assert [size for _, size, _ in on_gpus([0])] == [GIB]


def test_a_gpu_that_fell_off_is_no_failure_and_main_memory_is_still_looked_at(nvml):
    nvml({"compute": [], "graphics": []}, failing=["compute"])
    assert find_memory_users([0]) is not None
    assert on_gpus([0]) == []


def test_only_large_ones_are_told_of():
    assert all(one.num_bytes >= 2**28 and one.gpu is None for one in find_memory_users())
