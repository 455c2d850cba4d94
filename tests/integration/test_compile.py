"""torch.compile end to end: same losses as eager training, no compilation in a timed step, no side effects of warm-up."""

from __future__ import annotations

import random
import shutil
import sysconfig
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.machine.support import unsupported_reason
from harness.worker import main as worker

# torch's compiler calls functions that torch itself has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

MODEL = {"num_layers": 1, "attention_dropout": 0.0, "hidden_dropout": 0.0}


def rng_states():
    return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]


# 250 rows in batches of 16: an epoch's last batch has 10 rows, which two micro-batches split into 5 and 5. Each is padded to
# its longest text, so nearly every micro-batch has a shape of its own.
@pytest.mark.slow
def test_compiled_training_has_the_losses_of_eager_training_and_compiles_before_the_clock_starts(
    bench, tmp_path, monkeypatch
):
    from torch._dynamo.utils import counters

    matrix = {"padding": ["longest"], "batch_size": [8], "seq_len": [24]}
    data = bench.defaults["data"] | {"num_train": 250}
    training = {"epochs": 2, "lr": 3e-3, "grad_accum": 2, "eval_every": 0.5}
    eager = bench.run(model=MODEL, data=data, training=training, matrix=matrix)
    (cell,) = bench.cells(model=MODEL, data=data, training=training | {"compile": True}, matrix=matrix)
    graphs_after_warmup = []

    def checked_warm_compile(state, context):
        before, weights = rng_states(), [p.detach().clone() for p in state.model.parameters()]
        seconds = warm_compile(state, context)
        assert rng_states() == before
        assert all(p.grad is None for p in state.model.parameters())
        assert all(torch.equal(p, was) for p, was in zip(state.model.parameters(), weights, strict=True))
        assert state.optimizer.state == {}
        graphs_after_warmup.append(counters["stats"]["unique_graphs"])
        return seconds

    warm_compile = worker.warm_compile
    monkeypatch.setattr(worker, "warm_compile", checked_warm_compile)
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "replaced by the worker")
    torch._dynamo.reset()
    counters.clear()
    heartbeat = tmp_path / "heartbeat"
    worker.Heartbeat(heartbeat, 1).close()
    began = time.perf_counter()
    job = replace(bench.prepare(cell).job, submitted_at=began, num_threads=1, heartbeat=str(heartbeat))
    measured = worker.run_training(job, lambda _: None, began).training
    history = measured.history
    losses = [total / count for total, count in zip(history.loss_sums, history.num_samples, strict=True)]
    assert len(losses) == 32
    assert losses == pytest.approx(eager.training.steps.loss, abs=1e-4)
    assert losses[-1] < losses[0]
    (num_graphs,) = graphs_after_warmup
    assert num_graphs >= 1
    assert counters["stats"]["unique_graphs"] == num_graphs, "a timed step compiled a graph"
    assert counters["graph_break"] == {}
    assert measured.compile_s > 10 * max(measured.step_s)  # so no step includes compilation
    assert Path(f"{heartbeat}-compiled-0").is_dir()


@pytest.mark.slow
def test_a_record_reports_compile_time_separately(bench):
    record = bench.run(model=MODEL, training={"max_steps": 4, "compile": True})
    assert record.outcome == "ok", record.stderr_tail
    assert record.training.compile_s > 0
    assert record.phases.first_step_s > record.training.compile_s > record.phases.train_s
    assert bench.run(model=MODEL, training={"max_steps": 4}).training.compile_s is None


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_without_a_compiler_the_cell_is_unsupported_and_starts_no_process(device, bench, monkeypatch):
    (cell,) = bench.cells(training={"compile": True}, matrix={"device": [device]})
    monkeypatch.setattr(shutil, "which", lambda _: None)
    reason = unsupported_reason(cell.config, bench.environment.machine)
    assert "torch.compile needs a C" in reason and "apt install g" in reason
    record = bench.runner.run(cell, bench.prepare(cell), bench.environment)
    assert (record.outcome, record.start_method) == ("unsupported", None)


def test_the_compiler_named_by_cxx_is_used(bench, monkeypatch, tmp_path):
    (cell,) = bench.cells(training={"compile": True})
    monkeypatch.setenv("CXX", "no-such-compiler -O3")
    assert "there is no no-such-compiler" in unsupported_reason(cell.config, bench.environment.machine)
    monkeypatch.delenv("CXX")
    assert unsupported_reason(cell.config, bench.environment.machine) is None
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path / "python3.11"))
    assert "no python3.11/Python.h (Debian: apt install python3-dev)" in unsupported_reason(
        cell.config, bench.environment.machine
    )
