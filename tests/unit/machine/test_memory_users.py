"""Memory users on GPUs, from NVML answers written from its documentation and not recorded from a GPU."""

from __future__ import annotations

import os
import sys
import types

import psutil
import pytest

from harness.machine.memory_users import find_memory_users

GIB = 2**30
UNUSED_PID = 2**22 + 1


@pytest.fixture
def nvml(monkeypatch):
    """Return a function that replaces pynvml by a fake with these (pid, bytes) processes per GPU."""

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
    return [(user.name, user.num_bytes, user.gpu) for user in find_memory_users(indices) if user.gpu is not None]


def test_other_processes_are_listed_largest_first(nvml):
    parent = os.getppid()
    nvml(
        {"compute": [(UNUSED_PID, 2 * GIB), (parent, 6 * GIB)], "graphics": []},
        {"compute": [(UNUSED_PID, 9 * GIB)], "graphics": []},
    )
    unseen = "a process that is not to be seen from here"
    assert on_gpus([0]) == [(psutil.Process(parent).name(), 6 * GIB, 0), (unseen, 2 * GIB, 0)]
    assert on_gpus([0, 1])[2:] == [(unseen, 9 * GIB, 1)]


def test_the_harness_small_users_and_unknown_sizes_are_left_out(nvml):
    nvml({"compute": [(os.getpid(), 3 * GIB), (UNUSED_PID, 2**20), (UNUSED_PID + 1, None)], "graphics": []})
    assert on_gpus([0]) == []


def test_a_process_with_compute_and_graphics_counts_once(nvml):
    nvml({"compute": [(UNUSED_PID, GIB)], "graphics": [(UNUSED_PID, GIB)]})
    assert [size for _, size, _ in on_gpus([0])] == [GIB]


def test_a_lost_gpu_does_not_affect_main_memory(nvml):
    nvml({"compute": [], "graphics": []}, failing=["compute"])
    assert find_memory_users([0]) is not None
    assert on_gpus([0]) == []


def test_only_large_users_are_listed():
    assert all(user.num_bytes >= 2**28 and user.gpu is None for user in find_memory_users())
