"""The checks of `make gpu-check` as tests; skipped, with the reason, on machines without an NVIDIA GPU."""

from __future__ import annotations

import contextlib

import pytest

from harness.execution.preparation import Preparations
from harness.execution.runner import Runner
from harness.execution.sweep import describe_environment
from harness.workflows.gpu_check.__main__ import base_tables, no_gpu
from harness.workflows.gpu_check.checks import CHECKS, CheckRun

REASON = no_gpu(describe_environment(None).machine)
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(REASON is not None, reason=REASON or "there is a GPU"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    with contextlib.chdir(folder), Runner() as runner:
        runner.wait_until_warm()
        base = base_tables(None, None, folder)
        yield CheckRun("gpu", folder / "results", runner, Preparations(folder), describe_environment(None), base)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CHECKS)
def test_no_verdict_of_a_check_fails(name, run):
    check, _ = CHECKS[name]
    verdicts = list(check(run))
    assert verdicts
    assert [str(verdict) for verdict in verdicts if verdict.passed is False] == []
