"""The view of running cells, with and without a terminal."""

import io

from rich.console import Console

from harness.cli.views.progress import ProgressView
from harness.execution.messages import PhaseStarted, Progress
from harness.schema.cells import Cell
from harness.schema.inputs_record import SimilarLabels
from tests.make_priced import baseline, fine_tune


def run_on(console, records):
    cells = [Cell(study="s", name=record.cell, repeat=0, config=record.config) for record in records]
    with ProgressView(console, cells) as view:
        for cell, record in zip(cells[:-1], records, strict=False):
            view.cell_started(cell)
            view.cell_progressed(cell, PhaseStarted("load"))
            view.cell_progressed(cell, Progress(num_steps=5, num_steps_planned=20, loss=0.625, accuracy=0.75))
            view.cell_ended(cell, record, None)
        view.cells_left_out(cells[-1:], "limits.budget_minutes = 1")


def make_console(*, terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=110, height=14, color_system=None)


def test_a_terminal_shows_the_table_progress_and_skipped_cells():
    console = make_console(terminal=True)
    records = [baseline(), fine_tune(8), fine_tune(16, outcome="oom", reason="out of memory"), fine_tune(32)]
    run_on(console, records)
    text = console.file.getvalue()
    assert "step 5/20  loss 0.625  validation 0.750" in text
    assert "1 cells left out: limits.budget_minutes = 1: b32-s64-fp32-cpu-longest-all" in text
    final = text[text.rindex("samples/s") :]
    assert [line.split()[-1] for line in final.splitlines() if line.startswith(("b", "baseline"))] == [
        "ok",
        "ok",
        "oom",
        "do",
    ]
    assert "0.780" in final


def test_a_long_study_shows_the_rows_around_the_running_cell():
    console = make_console(terminal=True)
    run_on(console, [fine_tune(batch) for batch in range(1, 31)])
    text = console.file.getvalue()
    assert "more" in text
    assert "above" in text


def test_without_a_terminal_cells_are_plain_lines():
    console = make_console(terminal=False)
    run_on(console, [fine_tune(8), fine_tune(16, outcome="oom", reason="out of memory"), fine_tune(32)])
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "[1/3] b8-s64-fp32-cpu-longest-all ..."
    assert "samples/s" in lines[1]
    assert "accuracy 0.780" in lines[1]
    assert lines[3].strip() == "oom: out of memory"
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
