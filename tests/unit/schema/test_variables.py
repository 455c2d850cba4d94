"""Environment variables: which are recorded, and which spoil figures."""

from __future__ import annotations

import pytest

from harness.schema.variables import REMOVED, find_spoilers, is_recorded, obeyed_spoilers


@pytest.mark.parametrize(
    ("name", "recorded"),
    [
        ("OMP_PROC_BIND", True),
        ("GOMP_CPU_AFFINITY", True),
        ("KMP_AFFINITY", True),
        ("MKL_CBWR", True),
        ("ONEDNN_MAX_CPU_ISA", True),
        ("DNNL_MAX_CPU_ISA", True),
        ("NVIDIA_TF32_OVERRIDE", True),
        ("CUBLAS_WORKSPACE_CONFIG", True),
        ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", True),
        ("PYTORCH_CUDA_ALLOC_CONF", True),
        ("NVIDIA_VISIBLE_DEVICES", False),  # may hold a card's serial id
        ("TORCH_HOME", False),
        ("NCCL_VERSION", False),
        ("PATH", False),
        ("HF_TOKEN", False),
    ],
)
def test_what_moves_a_figure_is_recorded(name, recorded):
    assert is_recorded(name) == recorded


@pytest.mark.parametrize(
    ("name", "value", "on_cpu", "on_gpu"),
    [
        ("OMP_PROC_BIND", "true", True, True),
        ("OMP_PROC_BIND", "FALSE", False, False),
        ("OMP_PROC_BIND", "", False, False),
        ("OMP_MAX_ACTIVE_LEVELS", "0", True, True),
        ("OMP_MAX_ACTIVE_LEVELS", "1", False, False),
        ("ONEDNN_MAX_CPU_ISA", "AVX2", True, False),
        ("ONEDNN_MAX_CPU_ISA", "ALL", False, False),
        ("NVIDIA_TF32_OVERRIDE", "1", False, True),
        ("NVIDIA_TF32_OVERRIDE", "0", False, True),  # tf32 cells would be computed in fp32
        ("OMP_WAIT_POLICY", "passive", False, False),  # recorded, a matter of taste
    ],
)
def test_what_spoils_depends_on_the_value_and_the_device(name, value, on_cpu, on_gpu):
    for device, spoils in ((False, on_cpu), (True, on_gpu)):
        assert [one.name for one in find_spoilers({name: value}, on_gpu=device)] == ([name] if spoils else [])


def test_only_what_ranks_still_get_is_obeyed():
    environment = {"OMP_PROC_BIND": "true", "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    assert obeyed_spoilers(environment, on_gpu=False) == {("ONEDNN_MAX_CPU_ISA", "AVX2")}
    assert obeyed_spoilers(None, on_gpu=False) == frozenset()
    assert "OMP_PROC_BIND" in REMOVED and "ONEDNN_MAX_CPU_ISA" not in REMOVED
