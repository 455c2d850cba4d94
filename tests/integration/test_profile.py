"""`harness profile`: time by phase and operator, and a trace for Perfetto."""

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

from harness.cli import main as cli
from harness.errors import UserError
from harness.schema.step_profile import PHASES, StepProfile
from harness.worker import main as worker
from harness.worker import train_loop
from harness.worker.diagnostics import profiler

MATRIX = '[matrix]\nseq_len = [24]\nthreads = [1]\ndevice = ["{device}"]\n'


def profile(study, out, *args):
    done = CliRunner().invoke(cli.app, ["profile", str(study), "--out", str(out), *args], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def ranges(trace):
    """Return begin and end of the harness's own ranges in a trace, by name, in order."""
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    own = [event for event in events if event.get("ph") == "X" and event["name"].startswith("harness: ")]
    by_name = {}
    for event in sorted(own, key=lambda event: event["ts"]):
        name = event["name"].removeprefix("harness: ")
        by_name.setdefault(name, []).append((event["ts"], event["ts"] + event["dur"]))
    return by_name


@pytest.mark.usefixtures("warm_runner")
def test_the_phases_tile_each_step_and_the_trace_shows_them(study_file, tmp_path):
    study = study_file(MATRIX.format(device="cpu"), training="epochs = 1\ngrad_accum = 2")
    output = json.loads(profile(study, tmp_path / "traces", "--steps", "3", "--json"))
    summary = StepProfile.model_validate(output["profile"])
    assert len(summary.step_s) == 3 and summary.all_reduce_s is None
    assert set(summary.phases_s) == set(PHASES) and all(seconds > 0 for seconds in summary.phases_s.values())
    assert sum(summary.phases_s.values()) <= summary.total_s
    assert 0 < summary.idle_s < summary.total_s - summary.phases_s["data"]
    assert {"aten::addmm", "aten::mm"} & {operator.name for operator in summary.operators}
    (trace,) = (tmp_path / "traces").iterdir()
    assert str(trace) == output["trace"]
    in_trace = ranges(trace)
    # Two micro-batches a step, each with its own batch, forward and backward pass; one update.
    assert {name: len(in_trace[name]) for name in (*PHASES, "step")} == dict(
        data=6, forward=6, backward=6, optimiser=3, step=3
    )
    first, last = in_trace["step"][0]
    order = sorted((begin, end, name) for name in PHASES for begin, end in in_trace[name] if first <= begin < last)
    assert [name for _, _, name in order] == ["data", "forward", "backward"] * 2 + ["optimiser"]
    assert all(earlier[1] <= later[0] for earlier, later in pairwise(order))
    assert list((tmp_path / "traces").rglob("*.json")) == []  # a report would take these for records


@pytest.mark.usefixtures("warm_runner")
def test_two_ranks_show_all_reduce_inside_the_backward_pass(study_file, tmp_path, bench):
    if bench.environment.machine.cpu.num_usable < 2:
        pytest.skip("two ranks need two cores")
    printed = profile(study_file(MATRIX.format(device="cpu-ddp2")), tmp_path, "--steps", "2")
    rows = {line.split("  ")[0]: line.split() for line in printed.splitlines()}
    assert 0 < float(rows["within: all-reduce on its way"][-2]) < float(rows["whole step"][-2])
    assert rows["whole step"][-1] == "100.0%"


def test_a_sleep_in_batching_shows_in_the_data_phase_only(bench, tmp_path, monkeypatch):
    collate = train_loop.collate

    def slow(*args, **kwargs):
        time.sleep(0.2)
        return collate(*args, **kwargs)

    (cell,) = bench.cells(training={"max_steps": 4, "eval_every": 100})
    job = replace(bench.prepare(cell).job, num_threads=1, heartbeat=str(tmp_path / "heartbeat"))
    job = replace(job, profile_prefix=str(tmp_path / "p"), profile_first=2)
    # Slow down the profiled steps only, not the measured ones before them.
    run_step = profiler.run_step

    def run_slow_step(*args):
        monkeypatch.setattr(train_loop, "collate", slow)
        run_step(*args)

    monkeypatch.setattr(profiler, "run_step", run_slow_step)
    seconds = worker.run_training(job, lambda message: None, time.perf_counter()).training.step_s
    summary = StepProfile.model_validate_json((tmp_path / "p.json").read_text())
    assert len(summary.step_s) == 2
    assert 0.4 <= summary.phases_s["data"] < 0.8
    assert sum(summary.phases_s[name] for name in PHASES[1:]) < 0.4
    assert summary.idle_s < 0.4  # batching doesn't count as idle
    assert len(seconds) == 4 and sum(seconds) < 0.8  # the profiled steps are not among the measured ones


def test_baselines_and_unsupported_cells_are_refused(study_file, tmp_path):
    baselines = study_file(baselines=True)
    with pytest.raises(UserError, match="none of these cells trains a model"):
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
    """One step of 100 us: 10 of data, 40 forward, 30 backward, 10 optimiser; two kernels overlap, and one is in data."""
    gpu = DeviceType.CUDA
    phases = [("step", 0, 100), ("data", 0, 10), ("forward", 10, 50), ("backward", 50, 80), ("optimiser", 80, 90)]
    events = [event(f"harness: {name}", begin, end, note=True) for name, begin, end in phases]
    events += [event("harness: forward", 12, 48, device=gpu, note=True), event("aten::mm", 10, 40, own_us=30)]
    kernels = [("copy", 5, 9), ("gemm", 12, 30), ("gemm", 28, 45), ("gemm", 55, 70)]
    kernels.append(("ncclDevKernel_AllReduce_Sum_f32", 60, 78))
    events += [event(name, begin, end, device=gpu) for name, begin, end in kernels]
    summary = profiler.summarize_events(events, "cuda", distributed=True)
    assert summary.step_s == (100e-6,)
    assert summary.phases_s == pytest.approx({"data": 10e-6, "forward": 40e-6, "backward": 30e-6, "optimiser": 10e-6})
    assert summary.idle_s == pytest.approx((80 - 33 - 23) * 1e-6)
    assert summary.all_reduce_s == pytest.approx(18e-6)
    assert (summary.operators[0].name, summary.operators[0].num_calls) == ("gemm", 3)
    assert summary.operators[0].self_s == pytest.approx(50e-6)
    assert "aten::mm" not in {operator.name for operator in summary.operators}
    assert torch.cuda.is_available() or profiler.summarize_events([], "cpu", distributed=False).operators == ()
