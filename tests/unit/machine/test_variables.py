"""Reading, judging and removing environment variables."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from harness.machine.variables import (
    environment_without_thread_variables,
    read_variables,
    variable_findings,
    without_thread_variables,
)

PRINT_BINDING = [sys.executable, "-c", "import os; print(os.environ.get('OMP_PROC_BIND'))"]


def test_values_are_scrubbed():
    environ = {"TORCH_LOGS": f"{Path.home()}/mine", "ONEDNN_X": "token=abcdefgh", "HOME": "x", "OMP_DYNAMIC": "true"}
    assert read_variables(environ) == {"OMP_DYNAMIC": "true", "ONEDNN_X": "token=[secret]", "TORCH_LOGS": "~/mine"}


def test_one_finding_for_each_variable_that_spoils():
    environment = {"OMP_PLACES": "cores", "NVIDIA_TF32_OVERRIDE": "1", "OMP_NUM_THREADS": "2", "DNNL_VERBOSE": "1"}
    found = {one.name: one for one in variable_findings(environment, has_gpu=True)}
    assert {name: one.verdict for name, one in found.items()} == {
        "variable OMP_PLACES": "warn",
        "variable NVIDIA_TF32_OVERRIDE": "bad",
        "variable DNNL_VERBOSE": "warn",
    }
    assert found["variable OMP_PLACES"].value == "cores"
    assert found["variable OMP_PLACES"].fix == "unset OMP_PLACES"
    assert found["variable OMP_PLACES"].why.endswith("ranks are started without it")
    # Without a GPU, what only spoils a GPU's figures is no finding.
    assert "variable NVIDIA_TF32_OVERRIDE" not in {one.name for one in variable_findings(environment, has_gpu=False)}


def test_a_clean_environment_is_one_good_finding():
    (finding,) = variable_findings({"OMP_NUM_THREADS": "2"}, has_gpu=True)
    assert (finding.name, finding.verdict, finding.fix) == ("variables", "good", None)


def test_processes_that_start_meanwhile_lack_the_variables_and_this_one_keeps_them(monkeypatch):
    monkeypatch.setenv("OMP_PROC_BIND", "true")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    with without_thread_variables():
        assert subprocess.run(PRINT_BINDING, capture_output=True, text=True, check=True).stdout == "None\n"
        assert os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert subprocess.run(PRINT_BINDING, capture_output=True, text=True, check=True).stdout == "true\n"
    cleaned = environment_without_thread_variables()
    assert "OMP_PROC_BIND" not in cleaned and cleaned["ONEDNN_MAX_CPU_ISA"] == "AVX2"
