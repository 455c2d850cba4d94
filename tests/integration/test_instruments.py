"""Compare the record's figures with independent instruments."""

import io
import os
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from harness.cli.views.progress import ProgressView
from harness.execution.messages import FilePages, Progress, RankResult
from harness.schema.settings import PACKAGED_MODEL
from harness.workflows.verify import run_wrapped, verify_cell

pytestmark = pytest.mark.alone

REAL = {"model": {"name": PACKAGED_MODEL}, "limits": {"max_train_s": 5}}


@pytest.mark.parametrize(
    ("padding", "precision"), [("max", "fp32"), ("longest", "fp32"), ("grouped", "fp32"), ("grouped", "bf16")]
)
def test_throughput_agrees_with_the_parents_clock_within_2_percent(bench, padding, precision):
    record = bench.run(
        **REAL,
        training={"epochs": 8, "eval_every": 1.0, "allow_slow_precision": True},
        matrix={"padding": [padding], "precision": [precision], "batch_size": [16], "seq_len": [24]},
    )
    assert record.outcome == "ok", record.stderr_tail
    first, last = record.marks[0], record.marks[-1]
    assert last.evaluate_s > first.evaluate_s  # evaluations came in between, and both clocks must exclude them
    parent_s = (last.at_s - last.evaluate_s) - (first.at_s - first.evaluate_s)
    worker_s = sum(record.training.steps.seconds[0][first.num_steps : last.num_steps])
    assert parent_s > 1
    assert worker_s == pytest.approx(parent_s, rel=0.02)
    assert sum(record.training.steps.num_samples[: last.num_steps]) == last.num_samples


def test_the_parent_uses_under_3_percent_of_a_cpu_while_it_shows_a_running_cell(bench):
    cells = bench.cells(**REAL, training={"epochs": 8}, matrix={"batch_size": list(range(16, 36))})
    terminal = Console(file=io.StringIO(), force_terminal=True, width=130, height=40)
    with ProgressView(terminal, cells) as screen:
        screen.cell_started(cells[0])
        record = bench.runner.run(
            cells[0],
            bench.prepare(cells[0]),
            bench.environment,
            lambda message: screen.cell_progressed(cells[0], message),
        )
    assert record.duration_s > 3
    assert "loss" in terminal.file.getvalue()
    assert (
        record.load.parent_s < 0.03 * record.duration_s
    )  # 0.8 to 1.6 % by the speed of the machine; a polling parent takes tens of percent


def test_both_clocks_see_a_pause_in_batching(bench, tmp_path, monkeypatch):
    """Add 50 ms to each of 20 steps of a tiny model: the step timer and a clock at the worker's messages must agree."""
    from harness.worker import main as worker
    from harness.worker import train_loop

    (cell,) = bench.cells(training={"max_steps": 20, "eval_every": 100})
    collate = train_loop.collate

    def run(pause_s):
        def slow(*args, **kwargs):
            time.sleep(pause_s)
            return collate(*args, **kwargs)

        monkeypatch.setattr(train_loop, "collate", slow if pause_s else collate)
        began = time.perf_counter()
        progress_at = []

        def send(message):
            if isinstance(message, Progress):
                progress_at.append(time.perf_counter())

        job = replace(bench.prepare(cell).job, submitted_at=began, num_threads=1, heartbeat=str(tmp_path / "heartbeat"))
        result = worker.run_training(job, send, began)
        return sum(result.training.step_s[1:]), progress_at[-1] - progress_at[0]

    run(0)  # warms up this process
    # The fastest of three runs each: other load on this machine makes a run longer, never shorter.
    plain, slowed = (list(map(min, zip(*(run(pause_s) for _ in range(3)), strict=True))) for pause_s in (0, 0.05))
    by_steps, by_messages = slowed[0] - plain[0], slowed[1] - plain[1]
    # On some processors the work after a pause takes longer, by up to the pause itself.
    assert 19 * 0.05 <= by_steps < 2 * 19 * 0.05
    # Validation's 2 batches of 32 rows pause too, between the last step and the last message.
    assert by_messages == pytest.approx(by_steps * 21 / 19, rel=0.1)


BIG = {
    "model": {"name": PACKAGED_MODEL},
    "matrix": {"batch_size": [32], "seq_len": [64], "padding": ["max"], "threads": [2]},
}


@pytest.fixture
def big_job(bench):
    """A job of several hundred MiB that runs no diagnostics after training."""
    (cell,) = bench.cells(**BIG, training={"max_steps": 4})
    return replace(bench.prepare(cell).job, num_threads=2, run_diagnostics=False)


def test_a_stopwatch_and_time_v_agree_with_the_record(bench):
    if not shutil.which("time"):
        pytest.skip("/usr/bin/time is not installed")
    (cell,) = bench.cells(**BIG, training={"max_steps": 12})
    verified = verify_cell(cell, bench.prepare, bench.environment.machine)
    assert verified.reason is None
    readings = {reading.figure: reading for reading in verified.readings}
    assert readings["throughput"].ours == pytest.approx(readings["throughput"].theirs, rel=0.02)
    assert readings["peak memory"].ours == pytest.approx(readings["peak memory"].theirs, rel=0.06)


def test_peak_memory_without_file_pages_agrees_with_the_cgroup_within_2_percent(big_job, tmp_path):
    # File pages are counted at the end, not at the peak. If other work on the machine made the kernel reclaim some in
    # between, neither instrument is wrong, so the run is repeated.
    peaks = []
    while len(peaks) < 3 and not (peaks and peaks[-1][0] == pytest.approx(peaks[-1][1], rel=0.02)):
        peaks.append(_peaks_without_files(big_job, tmp_path))
    assert peaks[-1][0] == pytest.approx(peaks[-1][1], rel=0.02), peaks


def _peaks_without_files(job, folder):
    """Return a run's peak bytes as the harness reads them, and as the cgroup counted them."""
    group, peak_file, files_key = _control_group()
    try:
        inside = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group)]
        messages = run_wrapped(job, folder, inside, timeout_s=120)
        # File pages stay charged to the cgroup after the process ended; its own pages are gone.
        file_bytes = int(re.search(rf"^{files_key} (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)[1])
        cgroup_peak = int((group / peak_file).read_text()) - file_bytes
    finally:
        group.rmdir()
    (result,) = (message for _, message in messages if isinstance(message, RankResult))
    (files,) = (message for _, message in messages if isinstance(message, FilePages))
    (peak,) = result.training.peaks
    return peak.num_bytes - files.num_bytes, cgroup_peak


def _control_group():
    """Create a memory cgroup; return it, its file of the peak, and the name of file pages in memory.stat. None if impossible."""
    for root, peak_file, files_key in (
        ("/sys/fs/cgroup/memory", "memory.max_usage_in_bytes", "cache"),
        ("/sys/fs/cgroup", "memory.peak", "file"),
    ):
        group = Path(root) / f"harness-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        if (group / peak_file).exists():
            return group, peak_file, files_key
        group.rmdir()
    return None
