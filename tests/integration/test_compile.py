"""torch.compile for real: the losses of plain training, nothing compiled in a timed step, and nothing left of the passes before."""

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

# torch's compiler calls what torch itself has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

PLAIN = {"num_layers": 1, "attention_dropout": 0.0, "hidden_dropout": 0.0}


def states():
    return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]


# 250 rows in batches of 16: an epoch's last batch has 10. Two micro-batches split it into 5 and 5, and each is as long as
# its longest text: no two shapes need be alike.
@pytest.mark.slow
def test_compiled_training_has_the_losses_of_plain_training_and_compiles_before_its_clock_starts(
    bench, tmp_path, monkeypatch
):
    from torch._dynamo.utils import counters

    matrix = {"padding": ["longest"], "batch_size": [8], "seq_len": [24]}
    data = bench.defaults["data"] | {"num_train": 250}
    training = {"epochs": 2, "lr": 3e-3, "grad_accum": 2, "eval_every": 0.5}
    plain = bench.run(model=PLAIN, data=data, training=training, matrix=matrix)
    (cell,) = bench.cells(model=PLAIN, data=data, training=training | {"compile": True}, matrix=matrix)
    seen = {}

    def watched(trainee, *args):
        before, weights = states(), [p.detach().clone() for p in trainee.model.parameters()]
        seconds = compile_ahead(trainee, *args)
        assert states() == before
        assert all(p.grad is None for p in trainee.model.parameters())
        assert all(torch.equal(p, was) for p, was in zip(trainee.model.parameters(), weights, strict=True))
        assert trainee.optimizer.state == {}
        seen["graphs"] = counters["stats"]["unique_graphs"]
        return seconds

    compile_ahead = worker.compile_ahead
    monkeypatch.setattr(worker, "warm_compile", watched)
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "the worker's own is put in its place")
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
    assert losses == pytest.approx(plain.training.steps.loss, abs=1e-4)
    assert losses[-1] < losses[0]
    assert seen["graphs"] >= 1
    assert counters["stats"]["unique_graphs"] == seen["graphs"], "a step was timed while it compiled"
    assert counters["graph_break"] == {}
    assert measured.compile_s > 10 * max(measured.step_s)  # which hold none of it
    assert Path(f"{heartbeat}-compiled-0").is_dir()


@pytest.mark.slow
def test_a_record_tells_compilings_seconds_apart(bench):
    record = bench.run(model=PLAIN, training={"max_steps": 4, "compile": True})
    assert record.outcome == "ok", record.stderr_tail
    assert record.training.compile_s > 0
    assert record.phases.first_step_s > record.training.compile_s > record.phases.train_s
    assert bench.run(model=PLAIN, training={"max_steps": 4}).training.compile_s is None


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_without_a_compiler_it_is_unsupported_before_a_process_is_started(device, bench, monkeypatch):
    (cell,) = bench.cells(training={"compile": True}, matrix={"device": [device]})
    monkeypatch.setattr(shutil, "which", lambda _: None)
    reason = unsupported_reason(cell.config, bench.environment.machine)
    assert "torch.compile needs a C" in reason and "apt install g" in reason
    record = bench.runner.run(cell, bench.prepare(cell), bench.environment)
    assert (record.outcome, record.start_method) == ("unsupported", None)


def test_a_compiler_named_by_cxx_counts(bench, monkeypatch, tmp_path):
    (cell,) = bench.cells(training={"compile": True})
    monkeypatch.setenv("CXX", "no-such-compiler -O3")
    assert "there is no no-such-compiler" in unsupported_reason(cell.config, bench.environment.machine)
    monkeypatch.delenv("CXX")
    assert unsupported_reason(cell.config, bench.environment.machine) is None
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path / "python3.11"))
    assert "no python3.11/Python.h (Debian: apt install python3-dev)" in unsupported_reason(
        cell.config, bench.environment.machine
    )
