"""Readings of independent instruments, from made-up messages and recorded output of GNU time."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from harness.cli.views.verify import show_tolerance, show_verified
from harness.execution.messages import Progress
from harness.schema.expansion import expand
from harness.schema.study_file import parse_study
from harness.schema.training_record import PeakMemory
from harness.workflows.verify import (
    InstrumentReading,
    VerifiedCell,
    read_time,
    stopwatch_reading,
    time_readings,
    verify_cell,
)
from tests.make_records import MIB, make_machine

# Recorded from GNU time 1.9.
TIME_V = """\tCommand being timed: "python -m harness.verify_child"
\tUser time (seconds): 21.50
\tSystem time (seconds): 1.30
\tPercent of CPU this job got: 187%
\tElapsed (wall clock) time (h:mm:ss or m:ss): 0:12.18
\tMaximum resident set size (kbytes): 1048576
\tMinor (reclaiming a frame) page faults: 302001
\tExit status: 0
"""


def mark(num_steps, at_s, *, evaluate_s=0.0):
    return at_s, Progress(num_steps, num_steps_planned=9, num_samples=16 * num_steps, evaluate_s=evaluate_s)


def test_the_stopwatch_covers_steps_between_marks_without_validation():
    messages = [mark(1, 100.0), mark(3, 101.0), mark(5, 102.0), mark(6, 109.0, evaluate_s=6.5)]
    reading = stopwatch_reading(messages, [9.0, 0.5, 0.5, 0.49, 0.49, 0.5])
    assert reading.theirs == pytest.approx(4 * 16 / 2)
    assert reading.ours == pytest.approx(4 * 16 / 1.98)
    assert reading.difference == pytest.approx(2 / 1.98 - 1)
    assert reading.verdict == "agrees"
    wrong = stopwatch_reading(messages, [0.1] * 6)
    assert (wrong.verdict, wrong.difference) == ("differs", pytest.approx(4.0))


@pytest.mark.parametrize("messages", [[], [mark(1, 5.0)], [mark(1, 5.0), mark(9, 5.9)]])
def test_a_stopwatch_window_under_a_second_is_not_measured(messages):
    reading = stopwatch_reading(messages, [0.1] * 9)
    assert reading.verdict == "not measured" and "training.max_steps" in reading.note


def test_output_of_gnu_time_is_parsed():
    assert read_time(TIME_V) == {"max_rss_kib": 2**20, "elapsed_s": 12.18}
    assert read_time("Elapsed (wall clock) time (h:mm:ss or m:ss): 1:02:03")["elapsed_s"] == 3723
    peaks = [PeakMemory(rank=0, source="rss", num_bytes=1000 * MIB)]
    memory, whole = time_readings(peaks, 12.2, read_time(TIME_V), on_gpu=False)
    assert (memory.ours, memory.theirs, memory.verdict) == (1000, 1024, "differs")
    assert (whole.ours, whole.theirs) == (12.2, 12.18)


def test_without_gnu_time_nothing_is_measured():
    for reading in time_readings([], 1.0, None, on_gpu=False):
        assert reading.verdict == "not measured" and "apt install time" in reading.note


def test_cells_that_can_not_be_verified_are_not_run():
    study = {"matrix": {"device": ["cpu-ddp2"], "precision": ["fp32", "tf32"]}}
    cells = [verify_cell(cell, None, make_machine()) for cell in expand(parse_study(study, "s"))]
    assert [(one.outcome, one.readings) for one in cells] == [("not run", ())] * 4 + [("unsupported", ())]
    assert [one.reason for one in cells][2:4] == [
        "a baseline has no steps",
        "these instruments take one process; it has several",
    ]


def test_the_view_shows_both_figures_and_the_verdict():
    readings = (
        InstrumentReading("throughput", "samples/s", 71.0, 70.5, "a stopwatch in another process"),
        InstrumentReading("peak memory", "MiB", 1100.0, 1000.0, "/usr/bin/time -v"),
    )
    verified = VerifiedCell("b16-s64", "ok", None, readings)
    console = Console(file=io.StringIO(), width=140)
    show_verified(console, verified)
    show_tolerance(console)
    printed = console.file.getvalue()
    assert "71.00 samples/s  70.50 samples/s      +0.71%  agrees   a stopwatch in another process" in printed
    assert "+10.00%  differs" in printed and "within 2%" in printed
    assert not verified.agrees
