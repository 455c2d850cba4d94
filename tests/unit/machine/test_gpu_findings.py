"""Findings from NVML's answers, which are written from NVIDIA's documentation and not recorded from a GPU."""

from __future__ import annotations

import importlib.util
import os
import sys
import types

import pytest

from harness.machine import gpu_findings as gpu_checks
from harness.machine.gpu_findings import driver_finding, gpu_findings, torch_cuda
from harness.machine.nvml import describe_gpus
from tests.make_nvml import MIG_GPU, TWO_GPUS, make_nvml

MIB = 2**20


@pytest.fixture
def findings(monkeypatch):
    """Return a function from NVML answers to findings by name, with a torch built for CUDA 13.0."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpu_checks, "torch_cuda", lambda: "13.0")
    monkeypatch.setattr(gpu_checks, "package_version", lambda _: "2.13.0")

    def find(gpus, *args, **kwargs):
        monkeypatch.setitem(sys.modules, "pynvml", make_nvml(gpus, *args, **kwargs))
        found = describe_gpus()
        return {finding.name: finding for finding in gpu_findings(found.gpus, found.note)}

    return find


def process(pid, num_bytes):
    return types.SimpleNamespace(pid=pid, usedGpuMemory=num_bytes)


def test_a_well_configured_gpu_is_good(findings):
    found = findings(TWO_GPUS[:1])
    assert list(found) == ["driver and CUDA", "persistence", "ECC", "MIG", "other GPU processes"]
    assert {finding.verdict for finding in found.values()} == {"good"}
    assert all(finding.fix is None for finding in found.values())


@pytest.mark.parametrize(
    ("call", "answer", "name", "value", "fix"),
    [
        ("nvmlDeviceGetPersistenceMode", 0, "persistence", "off", "sudo nvidia-smi -i 1 -pm 1"),
        ("nvmlDeviceGetEccMode", (0, 1), "ECC", "off", "sudo nvidia-smi -i 1 -e 1, then restart"),
    ],
)
def test_a_setting_names_its_gpu_by_number(findings, call, answer, name, value, fix):
    usual = {"nvmlDeviceGetPersistenceMode": 1, "nvmlDeviceGetEccMode": (1, 0)}[call]
    found = findings(TWO_GPUS, **{call: lambda handle: answer if handle is TWO_GPUS[1] else usual})
    assert found[f"{name} of GPU 0"].verdict == "good"
    seen = found[f"{name} of GPU 1"]
    assert (seen.verdict, seen.value, seen.fix) == ("warn", value, fix)


def test_a_mig_instance_is_a_warning(findings):
    found = findings([MIG_GPU])["MIG"]
    assert (found.verdict, found.value) == ("warn", "on")
    assert found.fix.startswith("sudo nvidia-smi -i 0 -mig 0 ")


def test_with_cuda_visible_devices_the_command_has_a_placeholder(findings, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    found = findings(TWO_GPUS, nvmlDeviceGetPersistenceMode=0)["persistence"]
    assert found.fix == "sudo nvidia-smi -i GPU -pm 1"


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("nvmlDeviceGetPersistenceMode", "persistence"),
        ("nvmlDeviceGetEccMode", "ECC"),
        ("nvmlDeviceGetMigMode", "MIG"),
        ("nvmlSystemGetCudaDriverVersion_v2", "driver and CUDA"),
    ],
)
def test_unanswered_calls_are_not_known(findings, call, name):
    assert findings(TWO_GPUS[:1], failing=[call])[name].verdict == "not known"


GONE = 2**22 + 1  # above the largest process id of Linux


def test_other_gpu_processes_are_listed_once_without_the_own_one(findings):
    found = findings(
        TWO_GPUS[:1],
        nvmlDeviceGetComputeRunningProcesses=[
            process(os.getpid(), MIB),
            process(GONE, 512 * MIB),
            process(GONE + 1, None),
        ],
        nvmlDeviceGetGraphicsRunningProcesses=[process(GONE, 512 * MIB)],
    )["other GPU processes"]
    assert found.verdict == "bad"
    assert found.value.splitlines() == [
        "2 processes",
        f"a process (pid {GONE}, owner not known) 512 MiB", f"a process (pid {GONE + 1}, owner not known)",
    ]  # fmt: skip
    assert found.fix == "ask its owner to stop them; or wait until they are done"
    both = ["nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"]
    assert findings(TWO_GPUS[:1], failing=both)["other GPU processes"].verdict == "not known"


@pytest.mark.parametrize(
    ("error", "verdict", "words"),
    [
        ("NVML_ERROR_LIBRARY_NOT_FOUND", "good", "no NVIDIA driver is installed"),
        ("NVML_ERROR_LIB_RM_VERSION_MISMATCH", "bad", "restart the machine"),
        ("NVML_ERROR_GPU_IS_LOST", "bad", "Xid"),
    ],
)
def test_a_driver_error_is_bad_and_a_missing_driver_is_good(findings, error, verdict, words):
    found = findings(TWO_GPUS, failing={"nvmlInit": error})
    assert list(found) == ["GPU"]
    assert found["GPU"].verdict == verdict
    assert words in found["GPU"].value


def test_mig_without_an_instance_is_bad(findings):
    assert findings([MIG_GPU | {"instances": []}])["GPU"].verdict == "bad"


@pytest.mark.parametrize(
    ("driver_cuda", "version", "cuda", "verdict", "fix"),
    [
        ("13.0", "2.13.0", "13.0", "good", None),
        ("12.2", "2.13.0+cu126", "12.6", "good", None),
        ("12.8", "2.13.0", "13.0", "bad", "install a newer driver, or a torch built for CUDA 12"),
        ("13.0", "2.13.0+cpu", None, "bad", "make bench TORCH=torch==2.13.0 (the CUDA build)"),
        ("13.0", "not installed", None, "not known", "make setup"),
    ],
)
def test_a_driver_supports_its_major_cuda_version_and_older_ones(monkeypatch, driver_cuda, version, cuda, verdict, fix):
    monkeypatch.setitem(sys.modules, "pynvml", make_nvml(TWO_GPUS[:1]))
    gpu = describe_gpus().gpus[0].model_copy(update={"cuda_driver": driver_cuda})
    found = driver_finding(gpu, version, cuda)
    assert (found.verdict, found.fix) == (verdict, fix)


@pytest.mark.parametrize(
    ("text", "cuda"),
    [
        ("cuda: Optional[str] = '13.0'\n", "13.0"),
        ("cuda = '12.6'\nhip = None\n", "12.6"),
        ("cuda: Optional[str] = None\nhip: Optional[str] = '6.4'\n", None),
    ],
)
def test_the_cuda_version_is_read_from_torchs_version_file(tmp_path, monkeypatch, text, cuda):
    (tmp_path / "version.py").write_text(text)
    spec = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    assert torch_cuda() == cuda
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert torch_cuda() is None
