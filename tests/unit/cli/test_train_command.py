"""Options of `harness train`: cell, limits and checkpoint folder; no cell is started."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.commands.train import stop_limits
from harness.cli.main import app
from harness.errors import Unavailable, UserError
from harness.execution.resumable import StopLimits, checkpoints_folder, choose_cell, plan_segment, remove_empty_folders
from harness.execution.stop_flag import StopFlag, StopReason, graceful_stop
from harness.schema.expansion import expand
from harness.schema.study_file import parse_study
from tests.make_priced import ASSUMED
from tests.make_records import make_machine

NO_PRICE = Unavailable("no price of this")


def cells_of(**raw):
    return expand(parse_study({"name": "s", "matrix": {"batch_size": [8, 16]}} | raw, "test"))


def test_a_cell_is_chosen_by_its_name_or_a_part_that_one_alone_has():
    cells = cells_of(training={"seeds": [0, 1]})
    name = "b16-s64-fp32-cpu-longest-all"
    assert [run.config.seed for run in choose_cell(cells, name)] == [0, 1]
    assert choose_cell(cells, "b16") == choose_cell(cells, name)
    assert {run.name for run in choose_cell(cells_of(matrix={}), None)} == {name}


@pytest.mark.parametrize(
    ("name", "word"),
    [
        (None, "--cell is needed; cells of the study: b8-s64-fp32-cpu-longest-all, b16-s64-fp32-cpu-longest-all"),
        ("b32", "--cell b32: 0 fine-tuning cells match; cells of the study: b8-"),
        ("s64", "--cell s64: 2 fine-tuning cells match"),
        ("baseline-tfidf", "--cell baseline-tfidf: 0 fine-tuning cells match"),
    ],
)
def test_another_choice_is_refused_with_the_names(name, word):
    with pytest.raises(UserError) as refused:
        choose_cell(cells_of(), name)
    assert str(refused.value).startswith(word)


def test_a_compiled_cell_is_refused():
    with pytest.raises(UserError, match=r"training\.compile = true can't be resumed"):
        choose_cell(cells_of(matrix={}, training={"compile": True}), None)


def test_the_folder_names_study_cell_and_configuration():
    (cell,) = choose_cell(cells_of(matrix={}), None)
    folder = checkpoints_folder(cell, Path("results"))
    assert folder == Path(f"results/checkpoints/s/{cell.name}-{cell.config_hash}")
    again = cell.model_copy(update={"repeat": 2})
    assert checkpoints_folder(again, Path("results")).name == f"{folder.name}-r2"


def test_minutes_and_dollars_become_the_stricter_seconds():
    hourly = ASSUMED.usd_per_hour
    assert stop_limits(None, None, None, NO_PRICE) == StopLimits()
    assert stop_limits(30, None, 500, NO_PRICE) == StopLimits(max_s=1800, max_s_text="--max-minutes 30", max_rows=500)
    limits = stop_limits(30, hourly / 4, None, ASSUMED)
    assert limits.max_s == pytest.approx(900)
    assert limits.max_s_text == f"--max-usd {hourly / 4:g} at {hourly:g} USD an hour (example price)"
    assert stop_limits(10, hourly, None, ASSUMED).max_s_text == "--max-minutes 10"
    with pytest.raises(UserError, match="--max-usd needs a price: no price of this"):
        stop_limits(None, 1.0, None, NO_PRICE)
    with pytest.raises(UserError, match="--max-minutes -1: expected a number above 0"):
        stop_limits(-1, None, None, NO_PRICE)


@pytest.mark.parametrize(
    ("bounds", "max_s", "words"),
    [
        (StopLimits(), 3600, "limits.timeout_s = 3600"),
        (StopLimits(max_s=60, max_s_text="--max-minutes 1"), 60, "--max-minutes 1"),
        (StopLimits(max_s=7200, max_s_text="--max-minutes 120"), 3600, "limits.timeout_s = 3600"),
    ],
)
def test_a_piece_stops_by_itself_before_the_parent_would_end_it(bounds, max_s, words, tmp_path):
    (cell,) = choose_cell(cells_of(matrix={}), None)
    plan, texts = plan_segment(cell.config, make_machine(), tmp_path, None, None, tmp_path / "stop", bounds)
    assert (plan.max_s, texts[StopReason.TIME_LIMIT], plan.timeout_s) == (max_s, words, max_s + 600)
    assert (plan.save_interval_s, plan.resume_from) == (600, None)


def test_an_emptied_folder_goes_and_what_is_not_the_harness_own_stays(tmp_path):
    root = tmp_path / "r" / "checkpoints"
    (root / "s" / "cell").mkdir(parents=True)
    (root / "s" / "cell" / ".lock").touch()
    remove_empty_folders(root / "s" / "cell", root)
    assert not root.exists() and (tmp_path / "r").is_dir()
    mine = tmp_path / "mine" / "here"
    mine.mkdir(parents=True)
    remove_empty_folders(mine, root)
    assert not mine.exists() and mine.parent.is_dir()
    mine.mkdir()
    (mine / "notes.txt").touch()
    remove_empty_folders(mine, root)
    assert mine.is_dir()


def test_signals_raise_the_flag_and_a_second_ctrl_c_is_one(tmp_path):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    flag = StopFlag(tmp_path / "stop")
    with pytest.raises(KeyboardInterrupt), graceful_stop(tmp_path / "stop"):
        assert flag.reason() is None
        signal.raise_signal(signal.SIGINT)
        assert flag.reason() is StopReason.USER
        signal.raise_signal(signal.SIGINT)
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
    with graceful_stop(tmp_path / "other"):
        signal.raise_signal(signal.SIGTERM)
        assert StopFlag(tmp_path / "other").reason() is StopReason.SIGTERM


def test_the_command_names_its_exit_statuses():
    shown = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    assert "75 stopped with a checkpoint" in shown
    for option in ("--max-minutes", "--max-usd", "--max-rows", "--checkpoints", "--cell"):
        assert option in shown
