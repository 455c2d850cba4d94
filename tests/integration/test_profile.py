"""`harness profile`: where the steps' time went, and a trace that Perfetto opens."""

from __future__ import annotations

import gzip
import json
import time
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType
from typer.testing import CliRunner

import harness.worker.train_loop
from harness.cli import main as cli
from harness.errors import UserError
from harness.schema.step_profile import PHASES, StepProfile
from harness.worker import main as worker
from harness.worker.diagnostics import profiler as profiling

MATRIX = '[matrix]\nseq_len = [24]\nthreads = [1]\ndevice = ["{device}"]\n'


def profile(study, out, *args):
    done = CliRunner().invoke(cli.app, ["profile", str(study), "--out", str(out), *args], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def ranges(trace):
    """Begin and end of the harness's own ranges on the trace's main thread, by name, in order."""
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    ours = [one for one in events if one.get("ph") == "X" and one["name"].startswith("harness: ")]
    found = {}
    for one in sorted(ours, key=lambda one: one["ts"]):
        found.setdefault(one["name"].removeprefix("harness: "), []).append((one["ts"], one["ts"] + one["dur"]))
    return found


@pytest.mark.usefixtures("warm_runner")
def test_the_phases_tile_each_step_and_the_trace_shows_them(study_file, tmp_path):
    study = study_file(MATRIX.format(device="cpu"), training="epochs = 1\ngrad_accum = 2")
    told = json.loads(profile(study, tmp_path / "traces", "--steps", "3", "--json"))
    found = StepProfile.model_validate(told["profile"])
    assert len(found.step_s) == 3 and found.all_reduce_s is None
    assert set(found.phases_s) == set(PHASES) and all(seconds > 0 for seconds in found.phases_s.values())
    assert sum(found.phases_s.values()) <= found.total_s
    assert 0 < found.idle_s < found.total_s - found.phases_s["data"]
    assert {"aten::addmm", "aten::mm"} & {one.name for one in found.operators}
    (trace,) = (tmp_path / "traces").iterdir()
    assert str(trace) == told["trace"]
    seen = ranges(trace)
    # Two micro-batches a step, each with its own batch, forward and backward pass; one update.
    assert {name: len(seen[name]) for name in (*PHASES, "step")} == dict(
        data=6, forward=6, backward=6, optimiser=3, step=3
    )
    first, last = seen["step"][0]
    order = sorted((begin, end, name) for name in PHASES for begin, end in seen[name] if first <= begin < last)
    assert [name for _, _, name in order] == ["data", "forward", "backward"] * 2 + ["optimiser"]
    assert all(one[1] <= other[0] for one, other in pairwise(order))
    assert list((tmp_path / "traces").rglob("*.json")) == []  # nothing that a report would take for a record


@pytest.mark.usefixtures("warm_runner")
def test_two_ranks_show_all_reduce_within_the_backward_pass(study_file, tmp_path, bench):
    if bench.environment.machine.cpu.num_usable < 2:
        pytest.skip("two ranks need two cores")
    printed = profile(study_file(MATRIX.format(device="cpu-ddp2")), tmp_path, "--steps", "2")
    rows = {line.split("  ")[0]: line.split() for line in printed.splitlines()}
    assert 0 < float(rows["within: all-reduce on its way"][-2]) < float(rows["whole step"][-2])
    assert rows["whole step"][-1] == "100.0%"


def test_a_pause_planted_in_batching_is_seen_there_alone(bench, tmp_path, monkeypatch):
    collate = harness.worker.train_loop.collate

    def slow(*args, **kwargs):
        time.sleep(0.2)
        return collate(*args, **kwargs)

    (cell,) = bench.cells(training={"max_steps": 4, "eval_every": 100})
    job = replace(bench.prepare(cell).job, num_threads=1, heartbeat=str(tmp_path / "heartbeat"))
    job = replace(job, profile_prefix=str(tmp_path / "p"), profile_first=2)
    # Only once the steps that are measured are done.
    steps = profiling._step
    monkeypatch.setattr(
        profiling,
        "_step",
        lambda *args: (monkeypatch.setattr(harness.worker.train_loop, "collate", slow), steps(*args)),
    )
    seconds = worker.run_training(job, lambda message: None, time.perf_counter()).training.step_s
    found = StepProfile.model_validate_json((tmp_path / "p.json").read_text())
    assert len(found.step_s) == 2
    assert 0.4 <= found.phases_s["data"] < 0.8
    assert sum(found.phases_s[name] for name in PHASES[1:]) < 0.4
    assert found.idle_s < 0.4  # batching is not idle
    assert len(seconds) == 4 and sum(seconds) < 0.8  # none of the profiled steps is among the figures


def test_what_has_no_step_or_can_not_run_here_is_refused(study_file, tmp_path):
    baselines = study_file(baselines=True)
    with pytest.raises(UserError, match="no cell that trains"):
        profile(baselines, tmp_path, "--only", "classifier=tfidf")
    tf32 = study_file('[matrix]\nseq_len = [24]\nprecision = ["tf32"]\n')
    with pytest.raises(UserError, match="tensor cores"):
        profile(tf32, tmp_path)


def event(name, begin, end, *, device=DeviceType.CPU, own_us=0, note=False):
    span = SimpleNamespace(start=begin, end=end, elapsed_us=lambda: end - begin)
    return SimpleNamespace(
        name=name, time_range=span, device_type=device, self_cpu_time_total=own_us, is_user_annotation=note
    )


def test_idle_on_a_gpu_is_the_time_without_a_kernel():
    """One step of 100 us: 10 of data, 40 forward, 30 backward, 10 optimiser; kernels overlap, one lies in data."""
    gpu = DeviceType.CUDA
    ours = [("step", 0, 100), ("data", 0, 10), ("forward", 10, 50), ("backward", 50, 80), ("optimiser", 80, 90)]
    events = [event(f"harness: {name}", begin, end, note=True) for name, begin, end in ours]
    events += [event("harness: forward", 12, 48, device=gpu, note=True), event("aten::mm", 10, 40, own_us=30)]
    kernels = [("copy", 5, 9), ("gemm", 12, 30), ("gemm", 28, 45), ("gemm", 55, 70)]
    kernels.append(("ncclDevKernel_AllReduce_Sum_f32", 60, 78))
    events += [event(name, begin, end, device=gpu) for name, begin, end in kernels]
    found = profiling.sum_up(events, "cuda", several=True)
    assert found.step_s == (100e-6,)
    assert found.phases_s == pytest.approx({"data": 10e-6, "forward": 40e-6, "backward": 30e-6, "optimiser": 10e-6})
    assert found.idle_s == pytest.approx((80 - 33 - 23) * 1e-6)
    assert found.all_reduce_s == pytest.approx(18e-6)
    assert (found.operators[0].name, found.operators[0].num_calls) == ("gemm", 3)
    assert found.operators[0].self_s == pytest.approx(50e-6)
    assert "aten::mm" not in {one.name for one in found.operators}
    assert torch.cuda.is_available() or profiling.sum_up([], "cpu", several=False).operators == ()
