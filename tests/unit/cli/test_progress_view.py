"""The view of running cells, with and without a terminal."""

import io
import re

import pytest
from rich.console import Console

from harness.analysis.estimate import Estimate
from harness.cli.views.progress import ProgressView
from harness.cli.views.running_cell import RunningCell
from harness.execution.messages import PhaseStarted, Progress
from harness.machine.cpu_usage import BusyProcess, CpuUsage
from harness.schema.cells import Cell
from harness.schema.inputs_record import SimilarLabels
from tests.make_priced import baseline, fine_tune
from tests.make_records import make_load, make_record

WIDTH = 80
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")  # moves of the cursor


def cell_of(record, **limits):
    config = record.config.model_copy(update={"limits": record.config.limits.model_copy(update=limits)})
    return Cell(study="s", name=record.cell, repeat=0, config=config)


def run_on(console, records, **options):
    cells = [cell_of(record) for record in records]
    with ProgressView(console, cells, **options) as view:
        view.setup_started("loading torch")
        view.setup_ended()
        for cell, record in zip(cells[:-1], records, strict=False):
            view.cell_started(cell)
            view.cell_progressed(cell, PhaseStarted("load"))
            view.cell_progressed(cell, PhaseStarted("train"))
            view.load_read(cell, 0.73)
            view.cell_progressed(cell, Progress(num_steps=5, num_steps_planned=20, loss=0.625, accuracy=0.75))
            view.cell_progressed(cell, PhaseStarted("test"))
            view.cell_ended(cell, record, None)
        view.cells_left_out(cells[-1:], "limits.budget_minutes = 1")


def make_console(*, terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=WIDTH, height=14, color_system=None)


def test_a_terminal_shows_a_row_a_finished_cell_progress_and_left_out_cells():
    console = make_console(terminal=True)
    records = [baseline(), fine_tune(8), fine_tune(16, outcome="oom", reason="out of memory"), fine_tune(32)]
    run_on(console, records, usd_per_hour=3.6)
    text = CONTROL.sub("\n", console.file.getvalue())
    assert "loading torch, 0:0" in text
    assert "[2/4] b8-s64-fp32-cpu-longest-all" in text
    assert "loading the model, 0:0" in text
    assert "testing, 0:0" in text
    assert "1 cells left out: limits.budget_minutes = 1: b32-s64-fp32-cpu-longest-all" in text
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.startswith(("b8", "b16", "baseline"))}
    assert [row[-1] for row in rows.values()] == ["ok", "ok", "oom"]
    assert rows["b8-s64-fp32-cpu-longest-all"][3] == "0.780"
    assert re.fullmatch(r"3 of 4 cells in 0:\d\d, \$0\.0\d{3} at \$3\.6 an hour\.", text.splitlines()[-1])


def test_a_running_cell_shows_its_share_speed_time_left_cost_and_what_disturbs_it():
    running = RunningCell(cell_of(fine_tune(8)), 100.0, num_ranks=2, usd_per_hour=3.6)
    running.on_message(PhaseStarted("train"), 110.0)
    for now, samples in ((112.0, 16), (116.0, 80), (118.0, 112)):
        running.on_message(Progress(num_steps=samples // 16, num_steps_planned=28, num_samples=samples), now)
    running.on_load(0.734)
    title, work, *rest = (line.plain for line in running.lines("3/13", 120.0, 200))
    assert title == "[3/13] b8-s64-fp32-cpu-longest-all"
    # 96 samples of each of two ranks in 6 s; 7 of 28 steps in 10 s; 20 s at a tenth of a cent a second.
    assert work.split("  ")[1:] == ["██████░░░░░░░░░░░░░░░░░░", "25%", "step 7/28", "32.0 samples/s", "0:30 left", "$0.0200 so far"]  # fmt: skip
    assert rest == ["  ! other processes take 73% of the CPU"]
    running.on_load(0.04)
    assert len(running.lines("3/13", 120.0, 200)) == 2
    assert all(line.cell_len <= 40 for line in running.lines("3/13", 120.0, 40)[1:])


@pytest.mark.parametrize("evaluate_s", [0.0, 2.0])
def test_the_speed_leaves_evaluations_out(evaluate_s):
    running = RunningCell(cell_of(fine_tune(8)), 0.0)
    running.on_message(Progress(num_steps=1, num_steps_planned=9, num_samples=8), 1.0)
    running.on_message(
        Progress(num_steps=9, num_steps_planned=9, num_samples=72, evaluate_s=evaluate_s), 5.0 + evaluate_s
    )
    assert running.samples_per_s == 16.0


def test_steps_longer_than_the_window_have_a_speed_too():
    running = RunningCell(cell_of(fine_tune(8)), 0.0)
    for now, samples in ((0.0, 8), (40.0, 16), (80.0, 24)):
        running.on_message(Progress(num_steps=1, num_steps_planned=9, num_samples=samples), now)
    assert running.samples_per_s == 0.2


def test_the_speed_is_shown_beside_the_earlier_run_or_the_prediction_or_the_fastest_so_far():
    def shown(earlier=None, predicted=None):
        running = RunningCell(cell_of(fine_tune(8)), 0.0, earlier=earlier)
        if predicted:
            running.on_prediction(predicted)
        running.on_message(PhaseStarted("train"), 0.0)
        for now, samples in ((1.0, 50), (2.0, 100), (12.0, 110)):
            running.on_message(Progress(num_steps=1, num_steps_planned=9, num_samples=samples), now)
        running.on_load(0.9)
        return " ".join(line.plain for line in running.lines("1/1", 12.0, None))

    earlier, predicted = (Estimate(value, value, value, "") for value in (53.0, 47.0))
    assert "1.0 samples/s (earlier run 53.0)" in shown(earlier, predicted)
    assert "1.0 samples/s (predicted 47.0)" in shown(None, predicted)
    assert "other processes take 90% of the CPU; it ran at 50.0 samples/s before" in shown()


def test_a_cell_that_waits_for_a_quiet_machine_names_the_busiest_process():
    running = RunningCell(cell_of(fine_tune(8), wait_for_quiet_s=60), 0.0)
    running.on_wait(CpuUsage((BusyProcess("python3", 7, 1.46),), 1.6, None, None, None))
    assert running.lines("1/1", 12.0, None)[1].plain == (
        "  waiting for a quiet machine (python3 (pid 7) 1.5 cores), at most 1:00, 0:12"
    )


def slow(factor, **fields):
    return make_record(training={"seconds": [0.3 * factor] * 40, "peaks": [(0, "rss", 2**30)]}, **fields)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_cell_that_is_clearly_slower_than_its_earlier_run_is_not_called_ok(terminal):
    console, earlier = make_console(terminal=terminal), slow(1.0)
    run_on(console, [slow(14.7, minutes=60), fine_tune(32)], earlier=[earlier])
    text = " ".join(console.file.getvalue().split())
    assert "! 3.6 samples/s, 0.068 times the 53.3 of its earlier run." in text
    assert "unsteady" in text
    console = make_console(terminal=terminal)
    run_on(console, [slow(1.1, minutes=60), fine_tune(32)], earlier=[earlier])  # within what runs differ by
    assert "unsteady" not in console.file.getvalue()


def test_a_cell_beside_other_load_is_not_called_ok():
    load = make_load() | {"system_busy_s": 60.0, "cell_s": 20.0, "parent_s": 0.1}
    loaded = slow(1.0, load=load, duration_s=30.0)
    console = make_console(terminal=False)
    run_on(console, [loaded, fine_tune(32)])
    text = console.file.getvalue()
    assert "ok, unsteady  53.3 samples/s" in text
    assert "    ! Other processes used " in text


def test_without_a_terminal_cells_are_plain_lines():
    console = make_console(terminal=False)
    run_on(console, [fine_tune(8), fine_tune(16, outcome="oom", reason="out of memory"), fine_tune(32)])
    lines = console.file.getvalue().splitlines()
    assert lines[:2] == ["loading torch ...", "[1/3] b8-s64-fp32-cpu-longest-all ..."]
    assert "samples/s" in lines[2]
    assert "accuracy 0.780" in lines[2]
    assert lines[4].strip() == "oom: out of memory"
    assert "\x1b" not in console.file.getvalue()


def test_labels_that_look_alike_are_told_once_before_the_first_cell():
    console, record = make_console(terminal=False), fine_tune(8)
    similar = SimilarLabels(kinds=("case",), rows={"neg": 120, "Neg": 3})
    one_label = record.data.test.model_copy(update={"majority_fraction": 1.0})
    data = record.data.model_copy(update={"similar_labels": (similar,), "test": one_label})
    with ProgressView(console, []) as view:
        view.data_prepared(data)
        view.data_prepared(data)
    text = " ".join(console.file.getvalue().split())
    assert text.count("Labels that look alike count as classes of their own: 'neg' 120, 'Neg' 3 (case).") == 1
    assert text.count("All test rows have the same label: accuracy on them is that label's recall") == 1


def time_left(expected, durations, planned):
    """Return what the screen shows as left when the last cell has just begun."""
    console = make_console(terminal=True)
    records = [
        fine_tune(8 + index).model_copy(update={"duration_s": float(seconds)})
        for index, seconds in enumerate(durations)
    ]
    cells = [cell_of(record) for record in records] + [cell_of(fine_tune(64 + index)) for index in range(planned)]
    with ProgressView(console, cells) as view:
        view.times_expected(expected)
        for cell, record in zip(cells, records, strict=False):
            view.cell_started(cell)
            view.cell_ended(cell, record, None)
        view.cell_started(cells[len(records)])
    return re.findall(r"about (\d+:\d\d) left", CONTROL.sub("\n", console.file.getvalue()))[-1]


def test_the_time_left_is_what_is_expected_of_the_cells_to_come_at_the_pace_of_those_done():
    assert time_left([100, 300], [], 2) == "6:40"
    assert time_left([10, 20, 200], [15, 30], 1) == "5:00"  # one and a half times as slow as expected
    assert time_left([10, None, 30], [10], 2) == "0:50"  # an unknown one counts as the mean of the known
